"""What sessions wait for while they work: samples of ``pg_stat_activity``."""

import time
from collections import Counter
from collections.abc import Callable, Sequence

import psycopg

SAMPLE_SECONDS = 0.005
"""Seconds between two samples."""
FOR_OTHERS = ("LWLock", "Lock", "BufferPin")
"""Types of waits for another session. The other waits are for the disk or for a client."""
NONE = ""
"""Key of the samples without such a wait."""
Waits = Counter[str]
"""Number of samples by what the session waited for, such as ``LWLock:WALInsert``."""


def sample(watcher: psycopg.Connection, pids: Sequence[int], goes_on: Callable[[], bool]) -> Waits:
    """Sample the active ones of these sessions as long as ``goes_on()``.

    Args:
        watcher: a connection in autocommit mode.
        pids: ids of the sessions' server processes.
    """
    waits: Waits = Counter()
    while goes_on():
        for kind, event in watcher.execute(
            "SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE pid = ANY (%s) AND state = 'active'",
            [list(pids)],
        ):
            waits[f"{kind}:{event}" if kind in FOR_OTHERS else NONE] += 1
        time.sleep(SAMPLE_SECONDS)
    return waits


def share(waits: Waits) -> float:
    """Return the share of samples in which a session waited for another one, in per cent."""
    return 100 * (1 - waits[NONE] / waits.total()) if waits else 0.0


def shown(waits: Waits, most: int) -> str:
    """Return the commonest waits and their shares as text."""
    common = sorted((-number, name) for name, number in waits.items() if name != NONE)[:most]
    return ", ".join(f"{name} {-100 * number / waits.total():.2f} %" for number, name in common) or "none"
