"""Receivers of the measured workers; they send their letters to a datagram socket."""

import os
import socket
import time
from typing import Any

from benchmarks.records.models import CAPTURED, BareCaptured, Effect
from hc_signals.signals import record_changed, records_changed


def connect(name: str) -> None:
    """Connect the receiver of that name to the captured table; ``batches`` to those of the writers at the same time."""
    known = {"nothing": nothing, "write": write, "clock": clock, "slow": slow, "bulk": bulk, "batches": nothing}
    signal = records_changed if name == "bulk" else record_changed
    for model in CAPTURED if name == "batches" else (BareCaptured,):
        signal.connect(known[name], sender=model, weak=False, dispatch_uid="benchmark")


def disconnect() -> None:
    """Disconnect the connected receivers."""
    for signal in (record_changed, records_changed):
        signal.disconnect(sender=BareCaptured, dispatch_uid="benchmark")


def nothing(instance: Any, event: Any, **kwargs: Any) -> None:
    """Do nothing."""


def bulk(events: Any, **kwargs: Any) -> None:
    """Do nothing, once per page."""


def write(instance: Any, event: Any, **kwargs: Any) -> None:
    """Write one row by the ORM."""
    Effect.objects.create(event_id=event.event_id, name=instance.name)


def clock(instance: Any, event: Any, **kwargs: Any) -> None:
    """Send the time of arrival, and the number that the writer put into the record."""
    _send(f"{time.monotonic_ns()} {instance.employees:.0f}")


def slow(instance: Any, event: Any, **kwargs: Any) -> None:
    """Take 5 ms, as a call of a quick service does."""
    time.sleep(0.005)
    _send(f"{time.monotonic_ns()} 0")


_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def _send(text: str) -> None:
    _socket.sendto(text.encode(), os.environ["BENCH_SOCKET"])
