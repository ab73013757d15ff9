"""django-structlog: hc_listen's log as JSON of structlog."""

from typing import Any

PACKAGES = ("django-structlog", "structlog")
APPS = ["django_structlog"]


def _logging() -> dict[str, Any]:
    import structlog

    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processor": structlog.processors.JSONRenderer(),
                "foreign_pre_chain": [structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
            }
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {"hc_signals": {"handlers": ["console"], "level": "INFO"}},
    }


def settings() -> dict[str, Any]:
    """Return the settings."""
    return {"LOGGING": _logging(), "MIDDLEWARE": ["django_structlog.middlewares.RequestMiddleware"]}
