"""`make chaos`: kills, crashes and hostile writers; at the end the ledgers must be equal.

The ledgers of writers and receivers are compared record by record: nothing lost, nothing twice, nothing in another
order. Exit code 1 otherwise. The seed is printed; the same seed gives the same writers and faults,
though not the same interleaving.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.chaos import ledger, misbehaviours, pieces
from tests.chaos.faults import STANDBYS, Faults
from tests.chaos.figures import Figures
from tests.chaos.server import Server
from tests.chaos.workers import Workers
from tests.chaos.writers import OtherSession, Writer
from tests.clock import Clock
from tests.pgbouncer import PgBouncer

WRONG_PATIENCE = 2.0
"""Seconds without progress after which a wrong reader counts as done: it never delivers everything."""


class Run:
    """One chaos run on its own server: two workers of one consumer, and one of a second, whose receiver gets pages."""

    def __init__(self, options: argparse.Namespace, directory: str) -> None:
        self.options, self.chance = options, random.Random(options.seed)
        self.directory = Path(directory)
        self.clock = Clock(delay=1) if options.clock else None
        self.server = Server(self.clock, has_small_disk=options.small_disk)
        self.misbehaviours = self.directory / "misbehaviours"
        self.misbehaviours.mkdir()
        self.workers = Workers(
            Path(directory),
            {
                "CHAOS_BATCH": str(options.batch),
                "CHAOS_ATOMIC": str(options.atomic),
                "CHAOS_THREADS": str(options.concurrency),
            }
            | ({"CHAOS_MISBEHAVIOURS": str(self.misbehaviours)} if options.misbehave else {}),
        )
        self.pooler = PgBouncer(self.server.url, options.pooler) if options.pooler else None
        self.faults = Faults(self.server, self.workers, self.chance, options, self.pooler, self.clock)
        self.figures = Figures(self.faults, self.workers, options.seconds)
        self.stopping, self.storm = threading.Event(), threading.Event()
        self.is_ending = False
        self.writers: list[Writer] = []
        self.consumers = ["changes", "pages"]

    def run(self) -> int:
        """Write and break for the given time, then compare; return the exit code."""
        options = self.options
        self.server.set_up(options.records)
        if options.misbehave:
            idle = f"idle_in_transaction_session_timeout = '{misbehaviours.IDLE_SECONDS}s'"
            self.server.query(f"ALTER DATABASE postgres SET {idle}")
        for consumer, shards, mutation in [("changes", 2, ""), ("changes", 2, ""), ("pages", 1, "")] + [
            (name, 2, name) for name in options.wrong
        ]:
            self.workers.add(self.server.url, consumer, shards, mutation, self.pooler.url if self.pooler else None)
        self.wait_for_workers()
        seeds = [int(self.chance.random() * 10**9) for _ in range(options.writers)]
        self.writers = [Writer(self.server.url, seed, options.records, self.stopping, self.storm) for seed in seeds]
        monitor = threading.Thread(target=self.watch, daemon=True)
        for thread in (*self.writers, OtherSession(self.server.url, self.stopping), monitor):
            thread.start()
        self.figures.start()
        self.break_things()
        self.faults.end()
        if options.wrong:
            self.end_calmly()
        self.stopping.set()
        for thread in self.writers:
            thread.join(timeout=60)
        self.figures.written()
        for (name,) in self.server.query("SELECT gid FROM pg_prepared_xacts"):
            self.server.query(f"COMMIT PREPARED '{name}'")
        self.drain(self.consumers, self.options.patience)
        self.drain(self.options.wrong, WRONG_PATIENCE)
        codes = self.workers.stop()
        return self.judge() or any(codes)

    def wait_for_workers(self) -> None:
        """Wait until every worker is connected: before that there is little to break."""
        names = [worker.name for worker in self.workers.all]
        sql = "SELECT count(DISTINCT application_name) FROM pg_stat_activity WHERE application_name = ANY (%s)"
        deadline = time.monotonic() + 60
        while self.server.query(sql, [names]) != [(len(names),)] and time.monotonic() < deadline:
            time.sleep(0.1)

    def break_things(self) -> None:
        """Cause one fault after another until the time is up, enough is written and every kind had its turn."""
        end = time.monotonic() + self.options.seconds
        while time.monotonic() < end or not self.faults.had_all or self.figures.committed < self.options.changes:
            time.sleep(self.chance.uniform(0.3, self.options.pause))
            if not all(writer.is_alive() for writer in self.writers):
                raise RuntimeError("chaos: a writer has ended: see its exception above")
            kind = self.faults.next()
            print(f"chaos: {self.figures.progress()}, now {kind}", flush=True)

    def end_calmly(self) -> None:
        """Let the wrong readers catch up, so that late commits pass them: one that is always behind loses nothing.

        After the last fault they reconnect in their own time. One that has not moved since has not caught up.
        """
        self.is_ending = True
        deadline = time.monotonic() + self.options.patience
        moved: set[str] = set()
        is_gaining = True
        while (is_gaining or moved < set(self.options.wrong)) and time.monotonic() < deadline:
            committed, delivered = ledger.counts(self.server.query, once=False)
            time.sleep(0.5)
            committed_now, delivered_now = ledger.counts(self.server.query, once=False)
            gained = {name: delivered_now.get(name, 0) - delivered.get(name, 0) for name in self.options.wrong}
            moved |= {name for name, more in gained.items() if more}
            is_gaining = max(gained.values()) > committed_now - committed + 5
        time.sleep(self.options.calm)

    def watch(self) -> None:
        """Count, turn storm into calm when the readers are far behind, and back; restart the workers that ended."""
        calm_until = 0.0
        while True:
            started = time.monotonic()
            behind = self.behind(self.consumers)
            if behind > self.options.backlog or self.is_ending:
                self.storm.clear()
                calm_until = started + self.options.calm
            elif behind > self.options.backlog // 10 and not self.storm.is_set():
                calm_until = started + self.options.calm
            elif started > calm_until:
                self.storm.set()
            self.workers.look_after()
            time.sleep(min(5.0, max(0.3, 20 * (time.monotonic() - started))))  # counting must not cost much

    def behind(self, consumers: list[str]) -> int:
        """Return how many changes of the slowest of these consumers are undelivered."""
        committed, delivered = ledger.counts(self.server.query, self.options.atomic)
        self.figures.committed, self.figures.delivered = committed, delivered
        return max((committed - delivered.get(consumer, 0) for consumer in consumers), default=0)

    def drain(self, consumers: list[str], patience: float) -> None:
        """Wait until all is delivered, or there was no progress for a long time."""
        before, moved = -1, time.monotonic()
        while (behind := self.behind(consumers)) > 0 and time.monotonic() < moved + patience:
            if behind != before:
                before, moved = behind, time.monotonic()
                print(f"chaos: {self.figures.progress()}", flush=True)
            time.sleep(0.2)

    def is_expected(self, name: str, is_right: bool) -> bool:
        """Return whether a consumer's ledger is as expected: right, or wrong for a wrong reader."""
        return is_right == (name in self.consumers)

    def judge(self) -> int:
        """Print the figures; return 1 if a ledger is wrong, or if the ledger of a wrong reader is right."""
        verdicts = ledger.judge(
            self.server.url, self.consumers + self.options.wrong, self.options.history or self.directory
        )
        for consumer in self.consumers:
            for line in verdicts[consumer].witnesses:
                print(f"chaos: {consumer}: {line}", flush=True)
        output = self.workers.output()
        crashed = "Traceback" in output
        if crashed or self.options.verbose:
            print(output, flush=True)
        for name, verdict in verdicts.items():
            print(f"chaos: seed {self.options.seed}, consumer {name}: {verdict}", flush=True)
        gaps = ledger.gaps(self.server.query)
        print(f"chaos: gaps by consumer and cause: {gaps or 'none'}", flush=True)
        receivers = misbehaviours.count(self.misbehaviours)
        print(f"chaos: receivers that misbehaved: {dict(receivers) or 'none'}", flush=True)
        promotions = self.faults.done["promote_standby"]
        for line in self.figures.lines():
            print(f"chaos: {line}", flush=True)
        if self.options.json:
            figures = self.figures.as_dict(self.options, verdicts) | {"gaps": gaps, "receivers": receivers}
            self.options.json.write_text(json.dumps(figures, indent=2) + "\n")
        once = self.options.atomic
        right = all(self.is_expected(name, verdict.is_right(once)) for name, verdict in verdicts.items())
        # The effect of a gap that was reported before the next promotion with loss may be lost with it.
        are_reported = all(0 < gaps.get(name, {}).get("failed_over", 0) <= promotions for name in self.consumers)
        return int(crashed or not right or bool(self.faults.missed) or (promotions > 0 and not are_reported))


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the options; default: those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="seconds of writing and breaking (default: 60)")
    parser.add_argument("--changes", type=int, default=0, help="go on until this many changes are committed")
    parser.add_argument("--pause", type=float, default=4, help="longest pause between two faults (default: 4)")
    parser.add_argument("--silence", type=float, default=4, help="longest silence of a network (default: 4 s)")
    parser.add_argument(
        "--unresponsive",
        type=float,
        help="most seconds until a worker replaces unresponsive connections; 0 leaves this fault out (default: 20; "
        "with --pooler 0: behind a pooler a worker cannot ask the server about its session)",
    )
    parser.add_argument(
        "--takeover", type=float, default=20, help="most seconds until another worker takes over (default: 20)"
    )
    parser.add_argument("--misbehave", action="store_true", help="also call receivers that misbehave in every way")
    parser.add_argument("--clock", action="store_true", help="also set the server's clock back and forward")
    parser.add_argument(
        "--small-disk",
        action="store_true",
        help="also fill the disk of the workers' positions and deliveries; the server is not crashed: the disk would "
        "be gone",
    )
    parser.add_argument(
        "--pieces", type=int, default=0, help="so many runs, each with its own seed, --changes and faults"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("build/chaos"),
        help="of the pieces; those with a report are kept",
    )
    parser.add_argument("--history", type=Path, help="directory that keeps the ledgers, as specs/history.py reads them")
    parser.add_argument("--patience", type=float, default=20, help="seconds without progress after which the run ends")
    parser.add_argument("--records", type=int, default=3000, help="number of records (default: 3000)")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=200, help="changes in a page of a worker (default: 200)")
    parser.add_argument("--concurrency", type=int, default=1, help="threads of each worker (default: 1)")
    parser.add_argument(
        "--atomic",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="as HC_SIGNALS['ATOMIC']; --no-atomic: repeated deliveries are counted and are no failure",
    )
    parser.add_argument(
        "--standby",
        choices=STANDBYS,
        default="",
        help="also promote standbys: with all confirmed changes, or without the last of them",
    )
    parser.add_argument(
        "--pooler", choices=("session", "transaction"), help="PgBouncer in front of the workers, its mode"
    )
    parser.add_argument("--backlog", type=int, default=20_000, help="a storm ends when more is undelivered")
    parser.add_argument("--calm", type=float, default=3, help="seconds of calm after a storm is caught up (default: 3)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--wrong", nargs="*", default=[], help="readers of tests/chaos/mutations.py to be detected")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--verbose", action="store_true", help="show the output of the workers")
    options = parser.parse_args(arguments)
    if options.small_disk and options.standby:
        parser.error("--small-disk leaves out --standby")
    if options.misbehave and not options.atomic:
        parser.error("--misbehave needs --atomic: without it, a receiver's writes are not rolled back")
    if options.unresponsive is None:
        options.unresponsive = 0 if options.pooler else 20
    return options


def main() -> int:
    """Parse the options and run."""
    options = options_of()
    return pieces.run(options) if options.pieces else play(Run, options)


def play(kind: type[Run], options: argparse.Namespace) -> int:
    """Make a run and clean up; return its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # stop servers and workers first
    print(f"chaos: seed {options.seed}; starting a PostgreSQL", flush=True)
    with tempfile.TemporaryDirectory(prefix="hc_signals_chaos_", ignore_cleanup_errors=True) as directory:
        run = kind(options, directory)
        try:
            return run.run()
        finally:
            with suppress(Exception):
                run.workers.kill()
            if run.pooler:
                run.pooler.stop()
            run.server.stop()


if __name__ == "__main__":
    sys.exit(main())
