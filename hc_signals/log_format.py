"""What hc_listen prints of the log: lines of text, or JSON objects. Never a traceback: it may hold contents."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

FIELDS = ("consumer", "shard", "receiver", "signal", "model", "change_id", "delivery_id", "attempt", "sqlstate")
"""Attributes of a log record that tell what it is about; each is a key of the JSON where the record has it."""

LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
"""By --verbosity."""


class TextFormatter(logging.Formatter):
    """The message and nothing else."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage()


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, thread, and those of FIELDS that the record has.

    Args:
        consumer: given to every line.
    """

    def __init__(self, consumer: str = "") -> None:
        super().__init__()
        self.consumer = consumer

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "thread": record.threadName,
        }
        if self.consumer:
            line["consumer"] = self.consumer
        line |= {name: getattr(record, name) for name in FIELDS if getattr(record, name, None) is not None}
        return json.dumps(line, default=str)


def formatter(log_format: str, consumer: str) -> logging.Formatter:
    """Return the formatter for ``text`` or ``json``."""
    return JsonFormatter(consumer) if log_format == "json" else TextFormatter()


def print_log(stream: Any, verbosity: int, log_formatter: logging.Formatter) -> None:
    """Print what ``hc_signals`` logs to the stream; where the project has a handler for it, that one is left alone.

    Args:
        verbosity: 0 to 3, as Django's commands have it.
        log_formatter: from :func:`formatter`.
    """
    logger = logging.getLogger("hc_signals")
    if logger.handlers:
        return
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log_formatter)
    handler.addFilter(lambda record: record.name != "hc_signals.receivers")
    logger.addHandler(handler)
    logger.setLevel(LEVELS[min(verbosity, 3)])
