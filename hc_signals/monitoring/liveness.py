"""Tells whether the workers of this process do their work: each loop turns, and a ring would be heard."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from hc_signals.delivery.dispatch import receiver_path
from hc_signals.listening.doorbell import Doorbell
from hc_signals.listening.line import BellState
from hc_signals.observing import Work, workers

STUCK_SECONDS = 10.0
"""A loop that has not turned for longer, and is not inside a receiver, is stuck: asleep it turns twice a second."""
CHORE_SECONDS = 300.0
"""The same for what is known to take longer: making room in the log, changing the number of shards."""


@dataclass(frozen=True)
class Liveness:
    """The state of the process."""

    reasons: tuple[str, ...]
    """Why it is not alive; empty if it is."""
    bell: BellState
    workers: tuple[dict[str, object], ...]
    """Of each worker: its number, seconds since its loop turned, the receiver it is in and for how many seconds."""

    @property
    def is_alive(self) -> bool:
        """Whether all is well."""
        return not self.reasons


def liveness(bell: Doorbell | None) -> Liveness:
    """Look at this process; never waits for anything, least of all for the database.

    Args:
        bell: what its workers sleep at; None before they have one.
    """
    found, now = workers(), time.monotonic()
    state = BellState("not listening yet", None, 0) if bell is None else bell.state()
    reasons = [reason for work in found for reason in _troubles(work, now)]
    if state.trouble:
        reasons.append(state.trouble)
    if not found:
        reasons.append("no worker has begun")
    return Liveness(tuple(reasons), state, tuple(_facts(work, now) for work in found))


def _troubles(work: Work, now: float) -> Iterator[str]:
    if work.trouble:
        yield f"worker {work.number}: no connection to the database ({work.trouble})"
    # Read once: the worker goes on meanwhile. Its receiver may take as long as it likes.
    chore, is_free = work.chore, work.receiver is None
    if chore is not None:
        if now - work.chore_at > CHORE_SECONDS:
            yield f"worker {work.number}: busy with {chore} for {now - work.chore_at:.0f} s"
    elif is_free and now - work.turned_at > STUCK_SECONDS:
        yield f"worker {work.number}: stuck for {now - work.turned_at:.0f} s"


def _facts(work: Work, now: float) -> dict[str, object]:
    receiver = work.receiver
    return {
        "worker": work.number,
        "turned_seconds_ago": round(now - work.turned_at, 3),
        "receiver": None if receiver is None else receiver_path(receiver),
        "receiver_seconds": 0.0 if receiver is None else round(now - work.receiver_at, 3),
        "chore": work.chore,
        "reconnects": work.reconnects,
    }
