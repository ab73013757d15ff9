"""The log as hc_listen prints it: lines of text or JSON objects, without tracebacks, which may quote values."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

FIELDS = ("consumer", "shard", "receiver", "signal", "model", "change_id", "delivery_id", "attempt", "sqlstate")
"""Attributes of a log record that become keys of the JSON, if the record has them."""
LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
"""The lowest level that is printed, by --verbosity."""


class TextFormatter(logging.Formatter):
    """Formats a record as its message alone."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage()


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, thread, consumer, and its other FIELDS."""

    def __init__(self, consumer: str) -> None:
        super().__init__()
        self.consumer = consumer

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "thread": record.threadName,
            "consumer": self.consumer,
        }
        line |= {name: getattr(record, name) for name in FIELDS if getattr(record, name, None) is not None}
        return json.dumps(line, default=str)


@contextmanager
def printed_log(stream: Any, verbosity: int, formatter: logging.Formatter) -> Iterator[None]:
    """For the length of the block, print the log of ``hc_signals`` to the stream, unless the project has a handler.

    ``verbosity`` is 0 to 3, as for Django's commands. Afterwards the logger is as before: the process may go on.
    """
    logger = logging.getLogger("hc_signals")
    if logger.handlers:
        yield
        return
    handler, level = logging.StreamHandler(stream), logger.level
    handler.setFormatter(formatter)
    handler.addFilter(lambda record: record.name != "hc_signals.receivers")
    logger.addHandler(handler)
    logger.setLevel(LEVELS[min(verbosity, 3)])
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
