"""`make follows`: chaos runs whose steps are recorded, and checked against the models in specs/.

Each run has a seed of its own, and every third one has ``ATOMIC = False``. The runs go on until enough steps are
accepted; those of a run that proves nothing do not count. The exit code is 1 if a step is refused, a ledger is wrong, a
wrong reader is accepted, or FRUITLESS runs in a row prove nothing.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import psycopg

from specs.follows.check import check
from tests.chaos import run
from tests.chaos.recorder import RecordedConnection, Recorder, record_end
from tests.chaos.writers import Writer

FRUITLESS = 5
"""Runs in a row that prove nothing, after which the rest would not either."""
CHAOS = "--seconds 30 --pause 3 --silence 2 --unresponsive 0 --calm 3 --backlog 400"
CHAOS += " --batch 50 --records 300 --writers 4 --concurrency 2 --patience 120"
"""Options of each run: small pages and much sleep, so most of the time makes steps."""
_LOCK = """
BEGIN; SET LOCAL lock_timeout = '50ms'; LOCK TABLE ONLY public.hc_signals_change IN SHARE MODE; SELECT pg_sleep(0.02);
ROLLBACK
"""


class RecordedRun(run.Run):
    """A chaos run that writes the steps of workers and writers into a directory."""

    def __init__(self, options: argparse.Namespace, directory: str) -> None:
        super().__init__(options, directory)
        self.record: Path = options.record
        self.record.mkdir(parents=True, exist_ok=True)
        self.workers.environment["CHAOS_RECORD"] = str(self.record)
        RecordedConnection.recorder = Recorder(self.record / "writers.jsonl")
        Writer.connect = RecordedConnection.connect
        threading.Thread(target=self.lock_the_log, daemon=True).start()

    def lock_the_log(self) -> None:
        """Lock the log now and then, so that writers fail to capture, and gaps are reported."""
        chance = random.Random(self.options.seed)
        while not self.stopping.wait(chance.uniform(1, 4)):
            with suppress(psycopg.Error), psycopg.connect(self.server.url, autocommit=True) as connection:
                connection.execute(_LOCK)

    def is_expected(self, name: str, is_right: bool) -> bool:
        """Return whether a ledger is as expected. The checker refuses a wrong reader before it has done harm."""
        return is_right or name not in self.consumers

    def judge(self) -> int:
        """Record the end as well."""
        RecordedConnection.recorder.close()
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            record_end(connection, self.record)
        return super().judge()


def _record(directory: Path, seed: int, options: list[str]) -> int:
    command = [sys.executable, "-m", "tests.chaos.follow", "--record", str(directory), "--seed", str(seed), *options]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Parse the options and run; unknown ones are those of the chaos run."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=1, help="go on until these are accepted (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run (default: 1)")
    parser.add_argument("--wrong", nargs="*", default=[], help="readers of tests/chaos/mutations.py to be refused")
    parser.add_argument("--keep", type=Path, help="directory that keeps the records (default: they are deleted)")
    parser.add_argument("--record", type=Path, help="only make one run, and write its record into this directory")
    options, chaos = parser.parse_known_args()
    if options.record:
        wrong = ["--wrong", *options.wrong] if options.wrong else []
        chosen = run.options_of([*CHAOS.split(), "--seed", str(options.seed), *chaos, *wrong])
        chosen.record = options.record
        return run.play(RecordedRun, chosen)
    with tempfile.TemporaryDirectory(prefix="hc_signals_follows_") as temporary:
        return _follow(options, chaos, options.keep or Path(temporary))


def _follow(options: argparse.Namespace, chaos: list[str], directory: Path) -> int:
    steps, changes, runs, seed, fruitless = 0, 0, 0, options.seed, 0
    while steps < options.steps:
        record = directory / f"run-{seed}"
        shutil.rmtree(record, ignore_errors=True)
        atomic = ["--no-atomic"] if seed % 3 == 0 else []
        wrong = ["--wrong", *options.wrong] if options.wrong else []
        code = _record(record, seed, [*chaos, *atomic, *wrong])
        report = check(record)
        print(report, flush=True)
        fruitless = fruitless + 1 if report.missing else 0
        if code or report.refusals.keys() != set(options.wrong) or fruitless == FRUITLESS:
            return 1
        seed += 1
        if not report.missing:
            steps, changes, runs = steps + report.steps, changes + report.changes, runs + 1
        print(f"follows: {steps:,} steps and {changes:,} delivered changes of {runs} runs accepted", flush=True)
        if not options.keep:
            shutil.rmtree(record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
