"""Hands one event to its receivers, one by one."""

import logging
from asyncio import CancelledError
from collections import Counter
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from django.db.transaction import TransactionManagementError
from django.dispatch import Signal

from hc_signals.delivery.fatal_calls import Call, Marks
from hc_signals.delivery.identity import Receivers
from hc_signals.delivery.isolation import ConnectionLost, Isolation, IsolationLost
from hc_signals.observing import here

logger = logging.getLogger("hc_signals")

_in_advance: set[str] = set()
"""Receivers that have once broken a transaction of this process before they had a savepoint: they are given one in
advance."""

BREAKS = 3
"""So often a call may end its transaction, or lose the connection, until it has failed: the network may do so too."""
_breaks: Counter[tuple[str, int, int]] = Counter()
"""By receiver, change and attempt: those of a page that is delivered again are the same."""


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
    attempt: int = 1,
    isolation: Isolation | None = None,
    marks: Marks | None = None,
    **named: Any,
) -> list[Failure]:
    """Call the receivers one by one; return those that failed, with all that they wrote taken back.

    Args:
        change: id of the change that is told, of the first one of several.
        attempt: to tell it to this receiver.
        isolation: of the transaction, where it sends more than this.
        marks: has each call marked before it is made: a process has died, perhaps in one of them.

    Raises:
        IsolationLost: all that the transaction has done is lost; it must begin anew. The receiver then gets its
            savepoint in advance; if that does not help, after BREAKS times the call fails without being made.
    """
    failures, work, isolated = [], here(), isolation or Isolation(using)
    for each in receivers:
        receiver = each.name
        if _breaks and _breaks[receiver, change, attempt] >= BREAKS:
            failures.append(_given_up(receiver))
            continue
        if marks and (refusal := marks.begin(Call(receiver, change, attempt))):
            failures.append(Failure(receiver, refusal))
            continue
        failed: BaseException | None = None
        isolated.in_advance = bool(_in_advance) and receiver in _in_advance
        work.begin_call(receiver, signal, named)
        try:
            with isolated:
                call = async_to_sync(each.call) if each.is_async else each.call
                call(signal=signal, using=using, **named)
        except IsolationLost as error:
            failed = error
            _note_break(receiver, change, attempt, error)
            raise
        # User code may raise anything, and nobody else may suffer from it; not even from what is to end a program.
        except (Exception, SystemExit, GeneratorExit, CancelledError) as error:
            failed = error
            failures.append(Failure(receiver, error))
        finally:
            work.end_call(receiver, failed)
    return failures


def _note_break(receiver: str, change: int, attempt: int, lost: IsolationLost) -> None:
    if receiver in _in_advance or isinstance(lost, ConnectionLost):
        _breaks[receiver, change, attempt] += 1
    else:
        _in_advance.add(receiver)
    logger.warning(
        "%s has broken the transaction of its page, at change %s: the page is delivered again.", receiver, change
    )


def _given_up(receiver: str) -> Failure:
    error = f"The receiver has ended its transaction, or lost the connection, {BREAKS} times: it was not called again."
    return Failure(receiver, TransactionManagementError(error))
