"""Hands one event to its receivers, one by one."""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from asgiref.sync import async_to_sync
from django.db import OperationalError
from django.db.transaction import TransactionManagementError
from django.dispatch import Signal

from hc_signals.delivery.fatal_calls import Call, Marks
from hc_signals.delivery.identity import Receivers
from hc_signals.delivery.isolation import ConnectionLost, Isolation, IsolationLost, Keep, Owed
from hc_signals.delivery.project_code import ends_program, nothing_forked
from hc_signals.delivery.pulse import Pulse

logger = logging.getLogger("hc_signals")

_in_advance: set[str] = set()
"""Receivers that have once broken a transaction of this process before they had a savepoint: they are given one in
advance."""

BREAKS = 3
"""How many times the connection may be lost during a call before the call has failed: the network may be to blame."""
_breaks: Counter[tuple[str, int, int]] = Counter()
"""By receiver, change and attempt: those of a page that is delivered again are the same."""

Delivered = TypeVar("Delivered")


class Caution(threading.local):
    """What the deliveries of one thread have to be careful with: a call has broken the transaction of its page."""

    changes = 0
    """How many more changes are delivered with :attr:`~hc_signals.delivery.isolation.Isolation.is_careful`."""

    def begin(self, changes: int) -> None:
        """Be careful from now on.

        Args:
            changes: of the page that was lost, at most.
        """
        self.changes = changes

    def end(self) -> None:
        """Be careful no longer: another worker begins in this thread."""
        self.changes = 0

    def delivered(self, changes: int) -> None:
        """Count changes that are committed."""
        self.changes = max(0, self.changes - max(1, changes))


caution = Caution()


def until_isolated(deliver: Callable[[], Delivered], changes: int, after_loss: Callable[[], None]) -> Delivered:
    """Run what delivers one page, and carefully again when its transaction was lost by :class:`IsolationLost`.

    This comes to an end: a call that is known to have ended the transaction is not made again, see :func:`send`; and
    with care every other call is known, or fails alone.

    Args:
        deliver: delivers one page.
        changes: the most that it may have.
        after_loss: is called before the next attempt.

    Raises:
        OperationalError: the connection was lost; with a new one, it comes to an end just so.
    """
    while True:
        try:
            return deliver()
        except IsolationLost as lost:
            _note_break(lost)
            caution.begin(changes)
            after_loss()
            if isinstance(lost, ConnectionLost):
                raise OperationalError("the connection was lost while a receiver had it") from lost


@dataclass(frozen=True)
class Failure:
    """A receiver that raised, and what."""

    receiver: str
    error: BaseException


def send(
    signal: Signal,
    receivers: Receivers,
    using: str,
    *,
    change: int,
    isolation: Isolation,
    pulse: Pulse,
    keep: Keep,
    attempt: int = 1,
    record: Any = None,
    marks: Marks | None = None,
    **named: Any,
) -> list[Failure]:
    """Call the receivers one by one; return those that failed, with all that they wrote taken back.

    Args:
        change: id of the change that is told, of the first one of several.
        isolation: of the transaction.
        pulse: of the calling thread.
        keep: is given a receiver of which it turns out after its call that it has failed, and the error.
        attempt: to tell it to this receiver.
        record: table and record that the change is about.
        marks: has each call marked before it is made: a process has died, perhaps in one of them.

    Raises:
        IsolationLost: all that the transaction has done is lost; it must begin anew: see :func:`until_isolated`.
    """
    failures = []
    for each in receivers:
        receiver = each.name
        owed = Owed(receiver, change, attempt, record, keep)
        if refusal := _refusal(owed, marks):
            failures.append(Failure(receiver, refusal))
            continue
        failed: BaseException | None = None
        isolation.in_advance = receiver in _in_advance
        pulse.begin_call(receiver, signal, named)
        try:
            with isolation.call(owed), nothing_forked():
                call = async_to_sync(each.call) if each.is_async else each.call
                call(signal=signal, using=using, **named)
        except IsolationLost as error:
            failed = error
            raise
        # User code may raise anything, and nobody else may suffer from it; not even from what is to end a program.
        except BaseException as error:
            failed = error
            if ends_program(error):
                raise
            failures.append(Failure(receiver, error))
        finally:
            pulse.end_call(receiver, failed)
        if isolation.late:
            isolation.keep_late()
    return failures


def _refusal(owed: Owed, marks: Marks | None) -> Exception | None:
    """Return why the call must not be made; None, as a rule."""
    if not (_breaks or marks):
        return None
    if _breaks[owed.receiver, owed.change, owed.attempt] >= BREAKS:
        return TransactionManagementError(
            "The receiver has ended the transaction of its page, or lost the connection: it was not called again. "
            "A receiver must not commit, roll back or close the connection itself."
        )
    return marks.begin(Call(owed.receiver, owed.change, owed.attempt)) if marks else None


def _note_break(lost: IsolationLost) -> None:
    if lost.owed is None:
        logger.warning("A receiver has broken the transaction of its page: the page is delivered again, call by call.")
        return
    receiver, change = lost.owed.receiver, lost.owed.change
    if lost.is_certain:
        _breaks[receiver, change, lost.owed.attempt] = BREAKS
    elif receiver in _in_advance or isinstance(lost, ConnectionLost):
        _breaks[receiver, change, lost.owed.attempt] += 1
    else:
        _in_advance.add(receiver)
    logger.warning(
        "%s has broken the transaction of its page, at change %s: the page is delivered again.", receiver, change
    )
