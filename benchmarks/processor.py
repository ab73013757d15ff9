"""Processor time of the server's processes, as Linux counts it: unlike durations, it hardly changes with other load."""

from collections.abc import Iterable
from pathlib import Path

from benchmarks.rows import say
from benchmarks.server import Server


def is_countable(figure: str, server: Server) -> bool:
    """True if this process can read the processor time of the server's processes; else say that it cannot."""
    if server.directory is not None and Path("/proc/self/schedstat").exists():
        return True
    say(f"{figure}: the processor time is left out: it needs Linux, and a server of the run's own")
    return False


def used(pids: Iterable[int]) -> float:
    """Return the seconds of processor time that the processes of these ids have used together."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9
