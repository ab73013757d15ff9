"""`make chaos`: kills, crashes and hostile writers; at the end two ledgers must be equal.

What the writers committed and what the receiver wrote is compared record by record: nothing lost, nothing twice,
nothing in another order. Exit code 1 otherwise. The seed is printed; the same seed gives the same writers and faults,
though not the same interleaving.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from hc_signals.testing import embedded
from tests.chaos.writers import RECORDS, Stranger, Writer

ROOT = Path(__file__).parent.parent.parent
DRAIN_TIMEOUT = 120.0

_TABLES = f"""
CREATE TABLE chaos_counter (record text PRIMARY KEY, version integer NOT NULL DEFAULT 0, alive boolean DEFAULT false);
INSERT INTO chaos_counter (record) SELECT lpad(n::text, 18, '0') FROM generate_series(0, {RECORDS - 1}) n;
CREATE TABLE chaos_truth (record text, version integer, operation text);
CREATE TABLE chaos_ledger (id bigserial PRIMARY KEY, record text, version integer, operation text, event_id text);
CREATE TABLE chaos_stranger (id serial);
-- A late commit needs time between its ids and its end; Heroku Connect's own triggers only slow the run down.
ALTER TABLE salesforce.account DISABLE TRIGGER hc_account_status_trigger;
ALTER TABLE salesforce.account DISABLE TRIGGER hc_account_logtrigger;
"""


class Run:
    """One chaos run on a server of its own."""

    def __init__(self, options: argparse.Namespace, directory: str) -> None:
        self.options, self.chance = options, random.Random(options.seed)
        self.faults: Counter[str] = Counter()
        self.shards = 2
        print("chaos: starting an embedded PostgreSQL", flush=True)
        self.server = embedded.start(directory)
        self.url = self.server.url
        self.workers: list[subprocess.Popen[bytes]] = []
        self.stopping = threading.Event()
        self.environment = {
            **os.environ,
            "DATABASE_URL": self.url,
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}",
        }

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement, however often the server goes away meanwhile."""
        while True:
            with suppress(psycopg.OperationalError), psycopg.connect(self.url, autocommit=True) as connection:
                cursor = connection.execute(sql)
                return cursor.fetchall() if cursor.description else []
            time.sleep(0.1)

    def manage(self, *arguments: str) -> None:
        """Run a management command of the example."""
        command = [sys.executable, str(ROOT / "example" / "manage.py"), *arguments]
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def set_up(self) -> None:
        """Make tables and triggers; two-phase commit is switched on by the first crash."""
        self.query("ALTER SYSTEM SET max_prepared_transactions = 20")
        self.server.crash()
        self.manage("migrate")
        self.manage("hc_simulate", "--create-only")
        self.manage("hc_triggers", "install")
        self.query(_TABLES)

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start one more hc_listen, with the number of shards of now."""
        self.environment["CHAOS_SHARDS"] = str(self.shards)
        command = [sys.executable, str(ROOT / "example" / "manage.py"), "hc_listen", "-v", "0"]
        output = sys.stderr if self.options.verbose else subprocess.DEVNULL
        return subprocess.Popen(command, env=self.environment, stderr=output, stdout=output)

    def run(self) -> int:
        """Write and break for the given time, then compare; return the exit code."""
        self.set_up()
        self.workers = [self.start_worker() for _ in range(2)]
        seeds = [self.chance.random() for _ in range(self.options.writers)]
        threads = [Writer(self.url, int(seed * 10**9), self.stopping) for seed in seeds]
        for thread in (*threads, Stranger(self.url, self.stopping)):
            thread.start()
        self.break_things()
        self.stopping.set()
        for thread in threads:
            thread.join(timeout=60)
        for (name,) in self.query("SELECT gid FROM pg_prepared_xacts"):
            self.query(f"COMMIT PREPARED '{name}'")
        self.drain()
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        codes = [worker.wait(timeout=30) for worker in self.workers]
        return self.compare() or any(codes)

    def break_things(self) -> None:
        """Break one thing after another until the time is up, saying so."""
        end = time.monotonic() + self.options.seconds
        kinds = [self.kill_worker, self.terminate_backend, self.crash_server, self.change_shards]
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self.chance.uniform(0.3, self.options.pause)))
            kind = self.chance.choice(kinds)
            kind()
            self.faults[kind.__name__] += 1
            self.tell(left)

    def tell(self, left: float) -> None:
        """Print one line of progress."""
        ((truth,),) = self.query("SELECT count(*) + count(*) FILTER (WHERE operation = 'REKEY') FROM chaos_truth")
        ((ledger,),) = self.query("SELECT count(*) FROM chaos_ledger")
        faults = dict(self.faults)
        print(f"chaos: {left:5.0f} s left, {truth} committed, {ledger} delivered, faults {faults}", flush=True)

    def kill_worker(self) -> None:
        """SIGKILL one worker and start another."""
        index = self.chance.randrange(len(self.workers))
        self.workers[index].kill()
        self.workers[index].wait()
        self.workers[index] = self.start_worker()

    def terminate_backend(self) -> None:
        """Cut a connection at the server's end, a worker's or a writer's."""
        self.query(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) victim"
        )

    def change_shards(self) -> None:
        """Roll out another number of shards: one worker after the other gets it."""
        self.shards = self.chance.choice([n for n in (1, 2, 3, 5) if n != self.shards])
        for index, worker in enumerate(self.workers):
            worker.send_signal(self.chance.choice([signal.SIGTERM, signal.SIGKILL]))
            worker.wait()
            self.workers[index] = self.start_worker()

    def crash_server(self) -> None:
        """Stop the server in immediate mode, and start it again."""
        self.server.crash()

    def drain(self) -> None:
        """Wait until all is delivered, or nothing has moved for a long time."""
        deadline, before = time.monotonic() + DRAIN_TIMEOUT, -1
        while time.monotonic() < deadline:
            ((missing, ledger),) = self.query(
                "SELECT (SELECT count(*) + count(*) FILTER (WHERE operation = 'REKEY') FROM chaos_truth) - count(*), "
                "count(*) FROM chaos_ledger"
            )
            if missing <= 0:
                return
            if ledger != before:
                deadline, before = time.monotonic() + self.options.patience, ledger
            time.sleep(0.2)

    def explain(self, record: str, operation: str, version: int) -> None:
        """Say what the log knows of a lost change."""
        rows = self.query(
            "SELECT id, xid::text, operation, coalesce(new, old)->>'numberofemployees' FROM hc_signals_change "
            f"WHERE record_id = '{record}' AND coalesce(new, old)->>'numberofemployees' = '{version}' ORDER BY id"
        )
        print(f"chaos: lost: {operation} of {record} to version {version}; the log has {rows}", flush=True)

    def compare(self) -> int:
        """Print the figures; 1 if the ledgers differ."""
        truth: dict[str, list[tuple[str, int]]] = defaultdict(list)
        last: dict[str, int] = {}
        for record, version, operation in self.query("SELECT * FROM chaos_truth ORDER BY record, version"):
            before = last.get(record, 0)
            if operation == "REKEY":
                truth[record] += [("DELETE", before), ("CREATE", version)]
            else:
                truth[record].append((operation, before if operation == "DELETE" else version))
            last[record] = version
        ledger: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for record, version, operation in self.query("SELECT record, version, operation FROM chaos_ledger ORDER BY id"):
            ledger[record].append((operation, version))
        lost = doubled = inverted = 0
        for record in truth.keys() | ledger.keys():
            wanted, got = Counter(truth[record]), Counter(ledger[record])
            lost += (wanted - got).total()
            for operation, version in (wanted - got).elements():
                self.explain(record, operation, version)
            doubled += (got - wanted).total()
            if wanted == got:
                inverted += sum(a != b for a, b in zip(truth[record], ledger[record], strict=True))
        total = sum(map(len, truth.values()))
        ((kept,),) = self.query("SELECT count(*) FROM hc_signals_delivery")
        print(
            f"chaos: seed {self.options.seed}: {total} changes, {lost} lost, {doubled} twice, {inverted} out of order, "
            f"{kept} deliveries left, faults {dict(self.faults)}",
            flush=True,
        )
        return int(bool(lost or doubled or inverted or kept or not total))


def main() -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="seconds of writing and breaking (default: 60)")
    parser.add_argument("--pause", type=float, default=4, help="longest pause between two faults (default: 4)")
    parser.add_argument("--patience", type=float, default=20, help="seconds without progress after which all is told")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--verbose", action="store_true", help="show what the workers say")
    options = parser.parse_args()
    print(f"chaos: seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hc_signals_chaos_") as directory:
        run = Run(options, directory)
        try:
            return run.run()
        finally:
            for worker in run.workers:
                worker.kill()
            run.server.stop()


if __name__ == "__main__":
    sys.exit(main())
