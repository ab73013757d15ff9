"""Careful delivery after a page was lost, and what this process has learned of receivers that break transactions."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from django.db import OperationalError
from django.db.transaction import TransactionManagementError

from hc_signals.delivery.calls import Call, CallKey, ConnectionLost, IsolationLost

logger = logging.getLogger("hc_signals")

BREAKS = 3
"""How many times the connection may be lost during a call before the call has failed: the network may be to blame."""

# Memory of the process, not of one worker: another worker of it may be the next to claim the shard.
_breaks: Counter[CallKey] = Counter()
"""How many times each call has broken its page. The same call of a page that is delivered again has the same key."""
_in_advance: set[str] = set()
"""Receivers that have broken a transaction before their call had a savepoint. From then on it gets one in advance."""

Delivered = TypeVar("Delivered")


class Caution:
    """Whether a worker, or a replay, delivers carefully: a call has broken the transaction of its page."""

    def __init__(self) -> None:
        self._changes = 0
        """How many more changes are delivered carefully."""

    @property
    def is_careful(self) -> bool:
        """Whether the next page is delivered carefully: see :mod:`hc_signals.delivery.isolation`."""
        return self._changes > 0

    def note_committed(self, changes: int) -> None:
        """Count the changes of a page that is committed."""
        self._changes = max(0, self._changes - max(1, changes))

    def until_isolated(
        self, deliver: Callable[[], Delivered], changes: int, after_loss: Callable[[], None] = lambda: None
    ) -> Delivered:
        """Deliver one page; after :class:`IsolationLost`, deliver it again carefully.

        This ends: careful delivery finds the call that broke the page, and such a call is not made again.

        Args:
            changes: the most that the page may have.
            after_loss: is called before the next attempt.

        Raises:
            OperationalError: the connection was lost. Call again with a new one.
        """
        while True:
            try:
                return deliver()
            except IsolationLost as lost:
                _note_break(lost)
                self._changes = changes
                after_loss()
                if isinstance(lost, ConnectionLost):
                    raise OperationalError("the connection was lost while a receiver had it") from lost


def needs_savepoint(receiver: str) -> bool:
    """Return whether the receiver's calls get their savepoint in advance."""
    return receiver in _in_advance


def has_learned() -> bool:
    """Return whether any call of this process has broken its page."""
    return bool(_breaks or _in_advance)


def refusal(call: Call) -> TransactionManagementError | None:
    """Return why the call must not be made: it has broken its page too many times. None as a rule."""
    if not _breaks or _breaks[call.key] < BREAKS:
        return None
    return TransactionManagementError(
        "The receiver has ended the transaction of its page, or lost the connection: it was not called again. "
        "A receiver must not commit, roll back or close the connection itself."
    )


def _note_break(lost: IsolationLost) -> None:
    call = lost.call
    if call is None:
        logger.warning("A receiver broke the transaction of its page; redelivering the page, call by call.")
        return
    if lost.is_certain:
        _breaks[call.key] = BREAKS
    elif needs_savepoint(call.receiver) or isinstance(lost, ConnectionLost):
        _breaks[call.key] += 1
    else:
        _in_advance.add(call.receiver)
    text = "Receiver %s broke the transaction of its page at change %s; redelivering the page."
    extra = {"receiver": call.receiver, "change_id": call.change, "attempt": call.attempt}
    logger.warning(text, call.receiver, call.change, extra=extra)
