"""What hc_listen prints of the log: lines of text, or JSON objects. Never a traceback: it may hold contents."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def printed_log(stream: Any, verbosity: int, log_formatter: logging.Formatter) -> Iterator[None]:
    """For the length of the block, print what ``hc_signals`` logs to the stream.

    Where the project has a handler for it, that one is left alone. Afterwards all is as before: a command may be called
    in a process that goes on, a test's.

    Args:
        verbosity: 0 to 3, as Django's commands have it.
        log_formatter: from :func:`formatter`.
    """
    logger = logging.getLogger("hc_signals")
    if logger.handlers:
        yield
        return
    handler, level = logging.StreamHandler(stream), logger.level
    handler.setFormatter(log_formatter)
    handler.addFilter(lambda record: record.name != "hc_signals.receivers")
    logger.addHandler(handler)
    logger.setLevel(LEVELS[min(verbosity, 3)])
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
