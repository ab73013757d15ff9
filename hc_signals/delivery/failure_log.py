"""Logs failed calls: one line each, with everything that a person needs at night, and without a value of a record.

An outage of a service makes every call of a receiver fail. So the first failure is logged at once; those of the same
receiver with the same class of error in the next minute become one line with their number.

The message of an error may quote values, so a line has the error's class and place instead. The message is stored with
the delivery: `manage.py hc_deliveries show --values` prints it. Tracebacks go to the logger ``hc_signals.tracebacks``,
at the level DEBUG and without the message.
"""

import logging
import shlex
import threading
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.db import DEFAULT_DB_ALIAS

from hc_signals.delivery.project_code import in_words, show, trace_of
from hc_signals.delivery.routing import route_of
from hc_signals.log.change import Change
from hc_signals.postgres.moments import shown

logger = logging.getLogger("hc_signals")
tracebacks = logging.getLogger("hc_signals.tracebacks")

SUM_SECONDS = 60.0
"""Seconds after a logged failure in which further ones of the same kind are only counted."""


class FailedCall(NamedTuple):
    """A failed call of a receiver, whose delivery is stored."""

    using: str
    consumer: str
    shard: int
    receiver: str
    signal: str
    model: str
    change: Change
    delivery: int
    attempt: int
    attempts: int
    """Attempts after which the delivery is dead."""
    is_dead: bool
    """There is no further attempt."""
    next_at: datetime | None
    """When the next attempt is due; None for a delivery that waits for an earlier one of its record."""

    @property
    def record(self) -> str:
        """The model and the record, as a line shows them."""
        return f"{self.model} {self.change.record or ''}".strip()

    def command(self, *words: str) -> str:
        """Return the command of hc_deliveries that shows more."""
        database = [] if self.using == DEFAULT_DB_ALIAS else ["--database", self.using]
        return shlex.join(["manage.py", "hc_deliveries", *words, *database])

    def facts(self, error: BaseException) -> dict[str, Any]:
        """Return the attributes of the log record; they are keys of the JSON."""
        return {
            "consumer": self.consumer,
            "shard": self.shard,
            "receiver": self.receiver,
            "signal": self.signal,
            "model": self.model,
            "record_id": self.change.record_id,
            "change_type": route_of(self.change.operation).change_type,
            "change_id": self.change.id,
            "delivery_id": self.delivery,
            "attempt": self.attempt,
            "attempts": self.attempts,
            "next_attempt_at": self.next_at and self.next_at.astimezone(UTC).isoformat(timespec="seconds"),
            "error": in_words(error),
            "error_type": type(error).__name__,
        }


class _Kind:
    """The failures of one kind: how many were not logged since the last line, and the last of them."""

    def __init__(self) -> None:
        self.since = float("-inf")
        self.count = 0
        self.last: tuple[FailedCall, BaseException] | None = None
        self.timer: threading.Timer | None = None


_kinds: dict[tuple[str, str, bool], _Kind] = {}
"""By receiver, class of the error, and whether the delivery is dead."""
_guard = threading.Lock()


def log_failure(call: FailedCall, error: BaseException) -> None:
    """Log a failed call, or count it; give its error to error trackers in any case."""
    facts = call.facts(error)
    show(call.receiver, error, facts)
    key = call.receiver, type(error).__name__, call.is_dead
    with _guard:
        if not _is_first(key, call, error):
            return
    facts["command"] = command = call.command("show", str(call.delivery))
    failed = call.receiver, facts["change_type"], call.record, facts["error"]
    said = (*failed, call.delivery, call.attempt, call.attempts)
    if call.is_dead:
        text = "%s failed on %s of %s: %s. Delivery %s, attempt %s of %s, is dead: `%s`."
        logger.error(text, *said, command, extra=facts)
    else:
        text = "%s failed on %s of %s: %s. Delivery %s, attempt %s of %s, the next one %s: `%s`."
        next_at = f"at {shown(call.next_at)}" if call.next_at else "after an earlier delivery of its record"
        logger.warning(text, *said, next_at, command, extra=facts)
    tracebacks.debug("Traceback of delivery %s, without its message:\n%s", call.delivery, trace_of(error), extra=facts)


def _is_first(key: tuple[str, str, bool], call: FailedCall, error: BaseException) -> bool:
    """Return whether the failure is logged at once; else count it. A timer logs the number."""
    kind, now = _kinds.setdefault(key, _Kind()), time.monotonic()
    if kind.timer is None and now - kind.since >= SUM_SECONDS:
        kind.since = now
        return True
    kind.count += 1
    kind.last = call, error
    if kind.timer is None:
        kind.timer = threading.Timer(max(0.0, kind.since + SUM_SECONDS - now), _log_sum, [key])
        kind.timer.daemon = True
        kind.timer.start()
    return False


def _log_sum(key: tuple[str, str, bool]) -> None:
    with _guard:
        kind, now = _kinds[key], time.monotonic()
        count, last, seconds = kind.count, kind.last, now - kind.since
        kind.count, kind.last, kind.timer, kind.since = 0, None, None, now
    if last is None:
        return
    call, error = last
    command = call.command("list", "--receiver", call.receiver)
    text = "And %s more of %s (%s) in the last %.0f s, the last one is delivery %s, attempt %s of %s: `%s`."
    said = (count, call.receiver, type(error).__name__, seconds, call.delivery, call.attempt, call.attempts, command)
    level = logging.ERROR if call.is_dead else logging.WARNING
    logger.log(level, text, *said, extra={**call.facts(error), "count": count, "command": command})


def log_counted() -> None:
    """Log the failures that were only counted so far, at the end of a process; then forget every kind."""
    with _guard:
        keys = [key for key, kind in _kinds.items() if kind.timer is not None]
        for key in keys:
            if (timer := _kinds[key].timer) is not None:
                timer.cancel()
    for key in keys:
        _log_sum(key)
    with _guard:
        _kinds.clear()
