"""django-environ: DATABASES and HC_SIGNALS come from the environment."""

import os
from typing import Any

PACKAGES = ("django-environ",)
os.environ.setdefault("HC_RETENTION_HOURS", "24")


def settings() -> dict[str, Any]:
    """Return the settings."""
    import environ

    env = environ.Env()
    return {
        "DATABASES": {"default": env.db("DATABASE_URL")},
        "HC_SIGNALS": {
            "RETENTION_HOURS": env.int("HC_RETENTION_HOURS"),
            "DJANGO_SIGNALS": env.list("MODELS", default=[]),
        },
    }


def check(site: Any) -> None:
    from hc_signals.conf import get_conf
    from tests.ecosystem.site import equal

    equal(get_conf().RETENTION_HOURS, 24)
