"""The log as hc_listen prints it: lines of text or JSON objects, each once, and without a value of a record."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

FIELDS = (
    *("consumer", "shard", "receiver", "signal", "model", "record_id", "change_type", "change_id", "delivery_id"),
    *("attempt", "attempts", "next_attempt_at", "error", "error_type", "count", "command", "task", "tries", "sqlstate"),
)
"""Attributes of a log record that become keys of the JSON, if the record has them."""
TRACEBACKS = "hc_signals.tracebacks"
"""Logger of the tracebacks of failed calls, without messages: at the level DEBUG, and with ``-v 2`` as well."""
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
def printed_log(
    stream: Any, verbosity: int, formatter: logging.Formatter, *, is_chosen: bool = False
) -> Iterator[None]:
    """For the length of the block, print the log of ``hc_signals`` to one console: the project's, or the stream.

    Afterwards the loggers are as before: the process may go on.

    Args:
        stream: gets the log if the project prints it to no console.
        verbosity: 0 to 3, as for Django's commands. Other than 1, it precedes the levels of the project's LOGGING.
        is_chosen: the stream gets the log in any case, because the user has chosen the format.
    """
    logger, traces = logging.getLogger("hc_signals"), logging.getLogger(TRACEBACKS)
    consoles, level = list(_consoles(logger)), LEVELS[min(verbosity, 3)]
    levels = logger.level, traces.level
    own = logging.StreamHandler(stream) if is_chosen or not consoles else None
    silenced = consoles if own else consoles[1:]
    if own:
        own.setFormatter(formatter)
        own.addFilter(lambda record: record.levelno >= level or record.name == TRACEBACKS)
        logger.addHandler(own)
    for handler in silenced:
        handler.addFilter(_is_foreign)
    if verbosity != 1 or (own and not logger.level):
        logger.setLevel(level)
    if verbosity == 2:
        traces.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for handler in silenced:
            handler.removeFilter(_is_foreign)
        if own:
            logger.removeHandler(own)
        logger.setLevel(levels[0])
        traces.setLevel(levels[1])


def _consoles(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Yield the handlers that print records of a logger to a console."""
    found: logging.Logger | None = logger
    while found:
        yield from filter(_is_console, found.handlers)
        found = found.parent if found.propagate else None


def _is_console(handler: logging.Handler) -> bool:
    """Return whether a handler prints an error of ours to stdout or stderr, or to a console of rich."""
    consoles = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    is_console = getattr(handler, "stream", None) in consoles or hasattr(handler, "console")
    error = logging.makeLogRecord({"name": "hc_signals", "levelno": logging.ERROR, "levelname": "ERROR"})
    return is_console and bool(handler.filter(error))


def _is_foreign(record: logging.LogRecord) -> bool:
    """Return whether a record is not of hc_signals."""
    return record.name.partition(".")[0] != "hc_signals"
