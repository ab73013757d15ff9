"""The state of this process: whether each worker and helper thread makes progress, and whether NOTIFY wakes it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from hc_signals.delivery.pulse import Pulse
from hc_signals.postgres.trouble import Trouble
from hc_signals.worker.bell_connection import BellState
from hc_signals.worker.doorbell import Doorbell
from hc_signals.worker.threads import Helper, helpers, workers

STUCK_SECONDS = 10.0
"""Seconds after which a worker's loop is stuck, outside of receivers; in sleep it turns twice a second."""
CHORE_SECONDS = 300.0
"""The same for long chores: making room in the log, changing the number of shards."""


@dataclass(frozen=True)
class Liveness:
    """The state of the process at one time."""

    reasons: tuple[str, ...]
    """Why ``/healthz`` is red; none if it is green."""
    bell: BellState
    workers: tuple[dict[str, object], ...]
    """For ``/healthz``: number, seconds since the last turn, running receiver and its seconds, of each worker."""
    helpers: tuple[dict[str, object], ...] = ()
    """For ``/healthz``: name, seconds since the last turn and failing tasks, of each helper thread."""
    troubles: tuple[Trouble, ...] = ()
    """The tasks of all threads that may fail."""

    @property
    def is_alive(self) -> bool:
        """Whether ``/healthz`` is green."""
        return not self.reasons


def liveness(bell: Doorbell | None) -> Liveness:
    """Return the state of this process, without asking the database; before there is a doorbell, it is None."""
    found, beside, now = workers(), helpers(), time.monotonic()
    state = BellState("not listening yet", None, 0) if bell is None else bell.state()
    reasons = [reason for work in found for reason in _reasons(work, now)]
    reasons += [reason for helper in beside for reason in _reasons_of_helper(helper, now)]
    reasons += [state.trouble] if state.trouble else []
    reasons += [] if found else ["no worker has begun"]
    troubles = [*(work.trouble for work in found), *([state.errors] if state.errors else [])]
    troubles += [trouble for helper in beside for trouble in helper.troubles]
    facts, facts_of_helpers = (_facts(each, now) for each in found), (_facts_of_helper(each, now) for each in beside)
    return Liveness(tuple(reasons), state, tuple(facts), tuple(facts_of_helpers), tuple(troubles))


def _reasons(work: Pulse, now: float) -> Iterator[str]:
    if work.trouble.text:
        yield f"worker {work.number}: {work.trouble.text}"
    # Each attribute is read once, because the worker changes it while this runs. A receiver may take any time.
    chore, is_free = work.chore, work.receiver is None
    if chore is not None:
        if now - work.chore_at > CHORE_SECONDS:
            yield f"worker {work.number}: busy with {chore} for {now - work.chore_at:.0f} s"
    elif is_free and now - work.turned_at > STUCK_SECONDS:
        yield f"worker {work.number}: stuck for {now - work.turned_at:.0f} s"


def _reasons_of_helper(helper: Helper, now: float) -> Iterator[str]:
    """Return why a helper makes no progress. A failing chore is no reason: a restart would not repair it."""
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
