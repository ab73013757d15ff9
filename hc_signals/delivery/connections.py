"""What Django's dispatcher knows of connected receivers: the one module that reads private parts of ``Signal``."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from weakref import ReferenceType

from django.dispatch import Signal

from hc_signals.exceptions import ConfigurationError

EVERY_SENDER = id(None)
"""The ``sender_id`` of a receiver that is connected without a sender."""


class Connection(NamedTuple):
    """One receiver, connected to one signal."""

    receiver: Callable[..., Any]
    """As the project connected it. Holds it: it cannot be garbage-collected meanwhile."""
    uid: Any
    """The ``dispatch_uid``; without one, Django's ids of the receiver."""
    sender_id: int
    """Django keeps only the id() of a sender."""
    is_async: bool


def connections_of(signal: Signal) -> Iterator[Connection]:
    """Yield the connections whose receiver and sender still exist, in order of connection."""
    # Since Django 6.0 a weak reference to the sender, or None, lies between the receiver and is_async.
    for (uid, sender_id), reference, *senders, is_async in list(signal.receivers):
        receiver = reference() if isinstance(reference, ReferenceType) else reference
        if receiver is not None and all(each is None or each() is not None for each in senders):
            yield Connection(receiver, uid, sender_id, is_async)


ATTEMPTS = 100
PAUSE = 0.01
"""Seconds between two attempts, while another thread connects or disconnects receivers."""


def connected(signal: Signal, sender: type) -> list[tuple[Connection, Callable[..., Any]]]:
    """Return who is called when the signal is sent for ``sender``: synchronous receivers first, as Django does.

    Each with what is to be called: Sentry and its like wrap a receiver whenever Django looks it up, to trace the call.

    Raises:
        ConfigurationError: something has replaced ``Signal._live_receivers`` and returns other receivers than those
            that are connected.
    """
    for _ in range(ATTEMPTS):
        before = _called_for(signal, sender)
        # Django has no public call that names receivers; Signal.send_robust() would keep a failed receiver's writes.
        sync, asynchronous = signal._live_receivers(sender)
        callables = [*sync, *asynchronous]
        after = _called_for(signal, sender)
        if len(before) == len(callables) and list(map(_key, before)) == list(map(_key, after)):
            return list(zip(before, callables, strict=True))
        time.sleep(PAUSE)
    raise ConfigurationError(
        f"Signal._live_receivers returns {len(callables)} receivers for {sender.__qualname__}, expected the "
        f"{len(after)} that are connected. Something in this process replaces it, or Django has changed it: compare "
        "hc_signals.delivery.connections with Django's release."
    )


def _called_for(signal: Signal, sender: type) -> list[Connection]:
    found = [each for each in connections_of(signal) if each.sender_id in (EVERY_SENDER, id(sender))]
    return sorted(found, key=lambda each: each.is_async)


def _key(connection: Connection) -> tuple[Any, int]:
    return connection.uid, connection.sender_id
