"""The figures of one run, for people and as JSON."""

import argparse
import statistics
import time
from dataclasses import asdict
from typing import Any

from tests.chaos.faults import Faults
from tests.chaos.ledger import Verdict
from tests.chaos.workers import Workers

_MEANING = {
    "killed": "kill -9 of a worker in the middle of a page, to the next commit on its shard",
    "unresponsive": "a worker's connections stop answering, to its next session",
    "frozen": "the server notices a frozen worker, to the next commit on its shard",
}


class Figures:
    """Counts and times of a run."""

    def __init__(self, faults: Faults, workers: Workers, seconds: float) -> None:
        self.faults, self.workers, self.seconds = faults, workers, seconds
        self.committed = 0
        self.delivered: dict[str, int] = {}
        self._started = time.monotonic()
        self._written: float | None = None

    def start(self) -> None:
        """Note that the writers begin."""
        self._started = time.monotonic()

    def written(self) -> None:
        """Note that the writers have ended."""
        self._written = time.monotonic()

    def progress(self) -> str:
        """Return the present counts."""
        passed = time.monotonic() - self._started
        behind = ", ".join(f"{name} {self.committed - count}" for name, count in sorted(self.delivered.items()))
        return (
            f"{max(0, self.seconds - passed):4.0f} s left; {self.committed} committed, {self._rate():.0f} a second; "
            f"undelivered: {behind or 'all'}; {self.faults.done.total()} faults"
        )

    def as_dict(self, options: argparse.Namespace, verdicts: dict[str, Verdict]) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "command": {name: str(value) for name, value in vars(options).items()},
            "consumers": {name: asdict(verdict) for name, verdict in verdicts.items()},
            "committed": self.committed,
            "seconds_of_writing": round(self._seconds_of_writing(), 1),
            "committed_per_second": round(self._rate()),
            "faults": dict(self.faults.done),
            "takeover_seconds": {
                kind: {"count": len(times), "p50": statistics.median(times), "max": max(times)}
                for kind, times in self.faults.takeovers.items()
                if times
            },
            "takeovers_missed": self.faults.missed,
            "worker_exits": self.workers.exits,
            "peak_rss_mib": self._peak(),
        }

    def lines(self) -> list[str]:
        """Return everything, for people."""
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.done.items()))
        lines = [f"{self.committed} changes committed, {self._rate():.0f} a second; faults: {faults or 'none'}"]
        for kind, times in self.faults.takeovers.items():
            if times:
                p50, longest = statistics.median(times), max(times)
                lines.append(f"takeover ({_MEANING[kind]}): {len(times)}, p50 {p50:.3f} s, max {longest:.3f} s")
        if self.faults.missed:
            lines.append(f"takeover: {self.faults.missed} not in time")
        lines.append(f"workers: peak memory {self._peak()} MiB, {self.workers.exits} ended by themselves")
        return lines

    def _rate(self) -> float:
        return self.committed / self._seconds_of_writing()

    def _seconds_of_writing(self) -> float:
        return max(0.1, (self._written or time.monotonic()) - self._started)

    def _peak(self) -> int:
        return max((worker.peak_rss for worker in self.workers.all), default=0) // 1024
