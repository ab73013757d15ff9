"""Reads the connected receivers from Django's signals. No other module reads private parts of ``Signal``."""

import time
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple
from weakref import ReferenceType

from django.dispatch import Signal

from hc_signals.exceptions import ConfigurationError

EVERY_SENDER = id(None)
"""The ``sender_id`` of a receiver that is connected without a sender."""


class Connection(NamedTuple):
    """One receiver, connected to one signal."""

    receiver: Callable[..., Any]
    """As the project connected it. A strong reference, so it is not garbage-collected."""
    uid: Any
    """The ``dispatch_uid``; if there is none, Django's ids of the receiver."""
    sender_id: int
    """Django keeps only the id() of a sender."""
    is_async: bool


def connections_of(signal: Signal, senders: Container[int] | None = None) -> Iterator[Connection]:
    """Yield the connections whose receiver and sender still exist, in order; only those with such a ``sender_id``."""
    for entry in list(signal.receivers):
        # A project may have hundreds of receivers, and few for one sender.
        if (senders is None or entry[0][1] in senders) and (connection := _connection(entry)):
            yield connection


def _connection(entry: Any) -> Connection | None:
    # Since Django 6.0 a weak reference to the sender, or None, lies between the receiver and is_async.
    (uid, sender_id), reference, *senders, is_async = entry
    receiver = reference() if isinstance(reference, ReferenceType) else reference
    if receiver is None or any(each is not None and each() is None for each in senders):
        return None
    return Connection(receiver, uid, sender_id, is_async)


ATTEMPTS = 100
PAUSE = 0.01
"""Seconds between two attempts, while another thread connects or disconnects receivers."""


def connected(signal: Signal, sender: type) -> list[tuple[Connection, Callable[..., Any]]]:
    """Return the receivers of a signal for ``sender``, synchronous ones first, as Django does.

    Each comes with the callable to call: Sentry wraps a receiver, to trace the call, whenever Django returns it.

    Raises:
        ConfigurationError: ``Signal._live_receivers`` returns other receivers than the connected ones.
    """
    senders = (EVERY_SENDER, id(sender))
    for attempt in range(ATTEMPTS):
        if attempt > 1:  # the first attempt may have removed the entries of dead receivers
            time.sleep(PAUSE)
        entries = list(signal.receivers)
        found = [each for entry in entries if entry[0][1] in senders and (each := _connection(entry))]
        if not found:
            return []
        # Django has no public call that returns receivers. Signal.send_robust() would commit a failed one's writes.
        sync, asynchronous = signal._live_receivers(sender)
        callables = [*sync, *asynchronous]
        if signal.receivers == entries and len(found) == len(callables):
            return list(zip(sorted(found, key=lambda each: each.is_async), callables, strict=True))
    raise ConfigurationError(
        f"Signal._live_receivers returns {len(callables)} receivers for {sender.__qualname__}, expected the "
        f"{len(found)} connected ones. Something in this process replaces it, or Django has changed it: compare "
        "hc_signals.delivery.connections with Django's release."
    )
