"""Hands one event to its receivers, one by one."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from django.dispatch import Signal

from hc_signals.delivery.isolation import Isolation, IsolationLost
from hc_signals.observing import here

logger = logging.getLogger("hc_signals")

_in_advance: set[str] = set()
"""Receivers that have once broken a transaction of this process before they had a savepoint: they are given one in
advance."""


@dataclass(frozen=True)
class Failure:
    """A receiver that raised, and what."""

    receiver: str
    error: Exception


def receiver_path(receiver: Callable[..., Any]) -> str:
    """Return the dotted path by which a receiver is known in the log and on the command line."""
    name = getattr(receiver, "__qualname__", type(receiver).__qualname__)
    return f"{getattr(receiver, '__module__', '?')}.{name}"


Receivers = list[tuple[Callable[..., Any], bool]]
"""Each with whether it is async."""


def receivers_of(signal: Signal, sender: type) -> Receivers:
    """Return who listens to ``sender``, in order of connection."""
    # Signal.send_robust would catch an exception but keep the receiver's half-done writes, so the receivers are called
    # one by one from here; Django has no public call that names them.
    sync, asynchronous = signal._live_receivers(sender)
    return [(receiver, False) for receiver in sync] + [(receiver, True) for receiver in asynchronous]


def receivers_of_only(signal: Signal, sender: type) -> Receivers:
    """Like :func:`receivers_of`, without those connected to every sender."""
    general = {id(receiver) for receiver, _ in receivers_of(signal, _Nobody)}
    return [pair for pair in receivers_of(signal, sender) if id(pair[0]) not in general]


class _Nobody:
    """A sender that no one connects to: its receivers are those connected to all senders."""


def send(
    signal: Signal, receivers: Receivers, using: str, isolation: Isolation | None = None, **named: Any
) -> list[Failure]:
    """Call the receivers one by one; return those that failed, with all that they wrote taken back.

    Args:
        isolation: of the transaction, where it sends more than this.

    Raises:
        IsolationLost: all that the transaction has done is lost; it must begin anew.
    """
    failures, work, isolated = [], here(), isolation or Isolation(using)
    for receiver, is_async in receivers:
        failed: BaseException | None = None
        work.begin_call(receiver, signal, named)
        try:
            with isolated.call(in_advance=bool(_in_advance) and receiver_path(receiver) in _in_advance):
                call = async_to_sync(receiver) if is_async else receiver
                call(signal=signal, using=using, **named)
        except IsolationLost:
            path = receiver_path(receiver)
            _in_advance.add(path)
            logger.warning(
                "%s broke its transaction before it had a savepoint: its page is delivered again, and its savepoint is "
                "made in advance from now on.",
                path,
            )
            raise
        except Exception as error:  # user code may raise anything; nobody else may suffer from it
            failed = error
            failures.append(Failure(receiver_path(receiver), error))
        finally:
            work.end_call(receiver, failed)
    return failures
