"""`make failover`: promote a standby in several ways; count lost, repeated and reported changes, in a table.

A real hc_listen delivers to two ledgers: one in the database, and one outside of it, as another service would have it.
The ledger outside also keeps the changes that the new primary has lost.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos import ledger
from tests.chaos.server import Server
from tests.chaos.workers import ROOT

RECORDS = [f"{number:018d}" for number in range(20)]
CHANGES = 80
"""Changes in each phase of a scenario, in transactions of four."""
TIMEOUT = 60.0
_COMMITTED = """
SELECT id || '-' || (extract(epoch FROM captured_at) * 1000000)::bigint FROM public.hc_signals_change WHERE id > %s
"""
"""The event ids."""
_CHANGE = "SELECT chaos_change(%s, array_fill(0.5::float8, ARRAY[%s]))"


@dataclass(frozen=True)
class Scenario:
    """One way in which a standby is promoted."""

    name: str
    loses: bool
    """The standby lacks the last changes; the worker has delivered them."""
    runs: bool
    """hc_listen runs during the promotion; else it is stopped before, and started when the new primary has changes."""
    old_answers: bool = False
    """The old primary is not stopped, and keeps its sessions."""


SCENARIOS = (
    Scenario("killed, nothing lost, worker runs", loses=False, runs=True),
    Scenario("killed, nothing lost, worker down", loses=False, runs=False),
    Scenario("killed with loss, worker runs", loses=True, runs=True),
    Scenario("killed with loss, worker down", loses=True, runs=False),
    Scenario("old primary still answers", loses=True, runs=True, old_answers=True),
)


@dataclass(frozen=True)
class Counts:
    """The figures of one scenario, by the changes that are committed on the new primary."""

    committed: int
    lost: int
    """Committed, and not delivered."""
    twice: int
    """Effects in the database that exist more than once, or of a change that does not exist."""
    inverted: int
    """Effects in the database in another order than the changes of their record."""
    twice_outside: int
    """Changes that were delivered to the ledger outside more than once."""
    gaps: int
    """gap_detected with the cause failed_over, for one model."""
    phantoms: int
    """Delivered to the ledger outside, and missing on the new primary."""
    reused: int
    """Replay ids that two different changes had."""
    passed_over: int
    """Committed changes that a receiver skips if it remembers the highest replay id of each record."""

    def is_right(self, scenario: Scenario) -> bool:
        """Return True if the promises are kept, and changes were lost where the scenario says so."""
        wrong = self.lost or self.twice or self.inverted or self.reused or self.passed_over
        return not wrong and self.gaps == 1 and bool(self.phantoms) == scenario.loses


class Failover:
    """Plays scenarios, one after the other: the new primary of one is the old primary of the next."""

    def __init__(self, directory: Path) -> None:
        self.server, self.directory = Server(), directory
        self.server.set_up(len(RECORDS))
        self.outside = directory / "outside"
        self.worker: Any = None

    def play(self, scenario: Scenario) -> Counts:
        """Play one scenario and count."""
        self.outside.write_text("")
        self.server.query("TRUNCATE chaos_truth, chaos_ledger")
        ((last_id,),) = self.server.query("SELECT coalesce(max(id), 0) FROM public.hc_signals_change")
        self.start_worker()
        self.change(self.server.url)
        self.wait_until_delivered()
        standby = self.server.follow(synchronous=False)
        if scenario.loses:
            standby.cut_off()
        self.change(self.server.url)  # if these are to be lost, they are delivered before
        if scenario.loses:
            self.wait_until_delivered()
        if not scenario.runs:
            self.stop_worker()
        if not scenario.loses:
            standby.catch_up()
        old = self.server.fail_over(keep_old=scenario.old_answers)
        self.change(self.server.url)
        if scenario.old_answers:  # the worker has its sessions there, so it delivers the changes there
            self.change(old.url)
            self.wait_until_delivered(old.execute)
        old.stop()
        if not scenario.runs:
            self.start_worker()
        self.change(self.server.url)
        self.wait_until_delivered()
        self.stop_worker()
        return self.count(last_id)

    def start_worker(self) -> None:
        """Start hc_listen."""
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}",
            "DATABASE_URL": self.server.url,
            "CHAOS_WORKER": "failover",
            "CHAOS_CONSUMER": "failover",
            "CHAOS_SHARDS": "1",
            "CHAOS_BATCH": "30",
            "CHAOS_ATOMIC": "True",
            "CHAOS_OUTSIDE": str(self.outside),
        }
        with (self.directory / "worker.log").open("ab") as output:
            command = [sys.executable, str(ROOT / "example" / "manage.py"), "hc_listen"]
            self.worker = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def stop_worker(self) -> None:
        """Stop hc_listen as a platform does."""
        self.worker.send_signal(signal.SIGTERM)
        self.worker.wait(timeout=60)

    def change(self, url: str) -> None:
        """Make some changes."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET xmlbinary = 'hex'")
            for number in range(0, CHANGES, 4):
                first = number % len(RECORDS)
                connection.execute(_CHANGE, [RECORDS[first : first + 4], 4])

    def delivered(self) -> list[dict[str, Any]]:
        """Return the changes in the ledger outside, in order."""
        return [line for line in self._lines() if "gap" not in line]

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.outside.read_text().splitlines()]

    def wait_until_delivered(self, query: Any = None) -> None:
        """Wait until all committed changes are in the ledger in the database.

        Args:
            query: asks the server; default: the present primary.
        """

        def is_delivered() -> bool:
            committed, delivered = ledger.counts(query or self.server.query, once=False)
            return committed == delivered.get("failover", 0)

        self.wait(is_delivered)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition.

        Raises:
            RuntimeError: the worker has ended, or the wait takes too long; with the worker's output.
        """
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            if time.monotonic() > deadline or self.worker.poll() is not None:
                raise RuntimeError(f"not delivered:\n{(self.directory / 'worker.log').read_text()}")
            time.sleep(0.05)

    def count(self, last_id: int) -> Counts:
        """Compare the ledgers with the changes that are committed on the present primary.

        Args:
            last_id: changes with larger ids belong to the scenario.
        """
        verdict = ledger.judge(self.server.url, ["failover"], self.directory)["failover"]
        committed = {event_id for (event_id,) in self.server.query(_COMMITTED, [last_id])}
        delivered = self.delivered()
        events_of: defaultdict[str, set[str]] = defaultdict(set)
        highest: dict[str, str] = {}
        kept = set()
        for line in delivered:
            events_of[line["replay_id"]].add(line["event_id"])
            if line["replay_id"] > highest.get(line["record"], ""):
                highest[line["record"]] = line["replay_id"]
                kept.add(line["event_id"])
        events = {line["event_id"] for line in delivered}
        return Counts(
            committed=len(committed),
            lost=verdict.lost + len(committed - events),
            twice=verdict.twice + verdict.unknown,
            inverted=verdict.inverted,
            twice_outside=len(delivered) - len(events),
            gaps=sum(line.get("gap") == "failed_over" for line in self._lines()),
            phantoms=len(events - committed),
            reused=sum(len(names) > 1 for names in events_of.values()),
            passed_over=len(committed - kept),
        )

    def stop(self) -> None:
        """Stop worker and servers."""
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()
        self.server.stop()


def table(results: Mapping[Scenario, Counts]) -> str:
    """Return the counts as the table of docs/guarantees.md."""
    heads = [field.name.replace("_", " ") for field in fields(Counts)]
    lines = [f"| promotion | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for scenario, counts in results.items():
        lines.append(f"| {scenario.name} | {' | '.join(str(value) for value in asdict(counts).values())} |")
    return "\n".join(lines)


def main() -> int:
    """Play all scenarios; 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+", help="scenarios by their number, from 1; default: all")
    parser.add_argument("--json", type=Path, help="file for the counts")
    options = parser.parse_args()
    chosen = [SCENARIOS[number - 1] for number in options.only] if options.only else SCENARIOS
    with tempfile.TemporaryDirectory(prefix="hc_signals_failover_") as directory:
        failover = Failover(Path(directory))
        try:
            results = {scenario: failover.play(scenario) for scenario in chosen}
        finally:
            failover.stop()
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps({scenario.name: asdict(counts) for scenario, counts in results.items()}))
    return int(not all(counts.is_right(scenario) for scenario, counts in results.items()))


if __name__ == "__main__":
    sys.exit(main())
