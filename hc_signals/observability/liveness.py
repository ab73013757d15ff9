"""Tells whether the workers of this process do their work: each loop turns, and a ring would be heard."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from hc_signals.delivery.pulse import Pulse
from hc_signals.postgres.trouble import Trouble
from hc_signals.worker.bell_connection import BellState
from hc_signals.worker.doorbell import Doorbell
from hc_signals.worker.threads import Helper, helpers, workers

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
    helpers: tuple[dict[str, object], ...] = ()
    """Of each other thread: its name, seconds since its last turn, what fails there now."""
    troubles: tuple[Trouble, ...] = ()
    """Of all threads: what they do that may fail."""

    @property
    def is_alive(self) -> bool:
        """Whether all is well."""
        return not self.reasons


def liveness(bell: Doorbell | None) -> Liveness:
    """Look at this process; never waits for anything, least of all for the database.

    Args:
        bell: what its workers sleep at; None before they have one.
    """
    found, beside, now = workers(), helpers(), time.monotonic()
    state = BellState("not listening yet", None, 0) if bell is None else bell.state()
    reasons = [reason for work in found for reason in _reasons(work, now)]
    reasons += [reason for helper in beside for reason in _reasons_of_helper(helper, now)]
    if state.trouble:
        reasons.append(state.trouble)
    if not found:
        reasons.append("no worker has begun")
    return Liveness(
        tuple(reasons),
        state,
        tuple(_facts(work, now) for work in found),
        tuple(_facts_of_helper(helper, now) for helper in beside),
        (
            *(work.trouble for work in found),
            *([state.errors] if state.errors else []),
            *(trouble for helper in beside for trouble in helper.troubles),
        ),
    )


def _reasons(work: Pulse, now: float) -> Iterator[str]:
    if work.trouble.text:
        yield f"worker {work.number}: {work.trouble.text}"
    # Read once: the worker goes on meanwhile. Its receiver may take as long as it likes.
    chore, is_free = work.chore, work.receiver is None
    if chore is not None:
        if now - work.chore_at > CHORE_SECONDS:
            yield f"worker {work.number}: busy with {chore} for {now - work.chore_at:.0f} s"
    elif is_free and now - work.turned_at > STUCK_SECONDS:
        yield f"worker {work.number}: stuck for {now - work.turned_at:.0f} s"


def _reasons_of_helper(helper: Helper, now: float) -> Iterator[str]:
    """A helper that fails is no reason: its chores are tried again, and a restart would not mend them."""
    late = now - helper.due_at
    if not helper.thread.is_alive():
        yield f"{helper.name}: its thread has died"
    elif late > helper.limit:
        yield f"{helper.name}: stuck for {late:.0f} s"


def _facts_of_helper(helper: Helper, now: float) -> dict[str, object]:
    return {
        "helper": helper.name,
        "turned_seconds_ago": round(now - helper.turned_at, 3),
        "troubles": [f"{trouble.name}: {trouble.text}" for trouble in helper.troubles if trouble.text],
    }


def _facts(work: Pulse, now: float) -> dict[str, object]:
    receiver = work.receiver
    return {
        "worker": work.number,
        "turned_seconds_ago": round(now - work.turned_at, 3),
        "receiver": receiver,
        "receiver_seconds": 0.0 if receiver is None else round(now - work.receiver_at, 3),
        "chore": work.chore,
        "reconnects": work.reconnects,
        "trouble": work.trouble.text,
    }
