"""One run of one system under one fault, judged by specs/history.py; the figures are one JSON object.

One writer plays Heroku Connect: its transactions follow each other. So only the fault makes commits late.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.chaos import ledger
from tests.chaos.peers import systems
from tests.chaos.peers.faults import FAULTS, LATE, Fault
from tests.chaos.peers.system import ROOT, System
from tests.chaos.proxy import Proxy
from tests.chaos.server import Server
from tests.chaos.writers import Writer

LIMIT = 120.0
"""Seconds without recovery, or at the end without progress, after which a worker counts as stuck. Leases have 30 s."""
START_TIMEOUT = 600.0
"""Seconds until the first change must be delivered: the machine may be busy."""
BACKLOG = 150
"""Undelivered changes at which the writer slows down."""
RESTART_SECONDS = 1.0
"""Pause of the supervisor before it restarts a worker that has ended."""
_UNDELIVERED = """
SELECT record, operation, version FROM chaos_truth EXCEPT SELECT record, operation, version FROM chaos_ledger
"""
_COMMITTED = f"SELECT record, {ledger.VERSION} FROM chaos_truth"
_OBSERVED = f"SELECT record, {ledger.VERSION} FROM chaos_ledger ORDER BY id"


class Worker:
    """A process of the system, behind its own network.

    Args:
        system: whose worker it is.
        url: the server.
        output: file for its output.
    """

    def __init__(self, system: System, url: str, output: Path) -> None:
        self.system, self.output = system, output
        self.proxy = Proxy(url)
        self.process: Any = None

    def start(self) -> None:
        """Start the process."""
        environment = self.system.variables(f"postgresql://postgres@127.0.0.1:{self.proxy.port}/postgres")
        with self.output.open("ab") as output:
            command = [str(self.system.python), *self.system.work]
            self.process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=output)

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop the process as a platform does: SIGTERM, and SIGKILL 15 s later."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=15)
            return
        self.kill()


class Cell:
    """The run."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options, self.directory = options, directory
        self.system, self.fault = systems.find(options.system), FAULTS[options.fault]
        self.server = Server()
        self.writer_url = f"{self.server.url}&application_name=chaos%20writer"
        self.lock = threading.RLock()
        """Held while a process is replaced."""
        self.worker, self.frozen, self.crashes, self.exits = self.new_worker(), None, 0, 0
        self.stopping, self.storm, self.written = threading.Event(), threading.Event(), threading.Event()

    def new_worker(self) -> Worker:
        """Return a worker that is not started yet."""
        return Worker(self.system, self.server.url, self.directory / "worker.log")

    def run(self) -> dict[str, Any]:
        """Run, and return the figures."""
        self.server.set_up(self.options.records + LATE, capture=self.system.captures)
        self.system.install_into(self.server.url)
        if self.system.sql:
            self.server.query(self.system.sql)
        self.worker.start()
        writer = Writer(self.writer_url, self.options.seed, self.options.records, self.written, self.storm)
        writer.start()
        self.wait_for_first()
        threading.Thread(target=self.supervise, daemon=True).start()
        recoveries = []
        for _ in range(self.fault.times):
            time.sleep(3)
            recoveries.append(self.cause(self.fault))
            if recoveries[-1] is None:
                break
        while self.committed() < self.options.changes:
            assert writer.is_alive(), "the writer has ended: see its exception above"
            time.sleep(0.5)
        self.written.set()
        writer.join(timeout=60)
        for (name,) in self.server.query("SELECT gid FROM pg_prepared_xacts"):
            self.server.query(f"COMMIT PREPARED '{name}'")
        self.drain()
        stuck = len(self.undelivered())
        if stuck:  # as an operator or a new release would
            with self.lock:
                self.worker.stop()
                self.worker.proxy.recover()
                self.worker.start()
            self.drain()
        self.stopping.set()
        with self.lock:
            self.worker.stop()
        return {
            "system": self.system.name,
            "fault": self.options.fault,
            "seed": self.options.seed,
            **self.judge(),
            "stuck": stuck,
            "recoveries": recoveries,
            "exits": self.exits,
        }

    def wait_for_first(self) -> None:
        """Wait until the worker has delivered something.

        Raises:
            RuntimeError: it does not; with its output.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not self.server.query("SELECT 1 FROM chaos_ledger LIMIT 1"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.system.name} delivers nothing:\n{self.worker.output.read_text()}")
            time.sleep(0.2)

    def supervise(self) -> None:
        """Restart the worker if it ends, as a platform does, and set the pace of the writer."""
        while not self.stopping.is_set():
            with self.lock:
                has_ended = self.worker.process.poll() is not None
            if has_ended and not self.stopping.wait(RESTART_SECONDS):
                with self.lock:
                    if self.worker.process.poll() is not None:
                        self.exits += 1
                        self.worker.start()
            if len(self.undelivered()) > BACKLOG:
                self.storm.clear()
            else:
                self.storm.set()
            self.stopping.wait(0.5)

    def cause(self, fault: Fault) -> float | None:
        """Cause a fault; return the seconds until the changes that it found undelivered are delivered, or None."""
        fault.begin(self)
        since, owed, recovered = time.monotonic(), self.undelivered(), None
        while time.monotonic() < since + fault.hold:
            if recovered is None and not owed & self.undelivered():
                recovered = time.monotonic() - since
            time.sleep(0.2)
        fault.end(self)
        if fault.from_end:
            since, owed, recovered = time.monotonic(), self.undelivered(), None
        while recovered is None and time.monotonic() < since + self.options.limit:
            if not owed & self.undelivered():
                recovered = time.monotonic() - since
            time.sleep(0.2)
        return recovered

    def undelivered(self) -> set[tuple[Any, ...]]:
        """Return the committed changes that are not in the ledger."""
        return set(self.server.query(_UNDELIVERED))

    def committed(self) -> int:
        """Return the number of committed changes."""
        ((count,),) = self.server.query("SELECT count(*) FROM chaos_truth")
        return int(count)

    def drain(self) -> None:
        """Wait until all is delivered, or there was no progress for some time."""
        before, moved = -1, time.monotonic()
        while (behind := len(self.undelivered())) and time.monotonic() < moved + self.options.limit:
            if behind != before:
                before, moved = behind, time.monotonic()
            time.sleep(0.3)

    def judge(self) -> dict[str, Any]:
        """Write the history, and let specs/history.py judge it in a process of its own."""
        committed, observed, report = (self.directory / name for name in ("committed", "observed", "report"))
        rows = self.server.query(_COMMITTED)
        _write(committed, [{"record": record, "version": version} for record, version in rows])
        rows = self.server.query(_OBSERVED)
        _write(observed, [{"consumer": "it", "record": record, "version": version} for record, version in rows])
        command = [sys.executable, "-m", "specs.history", "--committed", str(committed), "--observed", str(observed)]
        command += ["--consumers", "it", "--json", str(report), "--processes", "1", "--quiet"]
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
        if done.returncode == 2:
            raise RuntimeError(done.stderr)
        found = json.loads(report.read_text())
        (counts,) = found["consumers"].values()
        kinds = ("lost", "twice", "inverted", "stale", "unknown")
        return {"committed": found["committed"], **{kind: counts[kind] for kind in kinds}}

    def close(self) -> None:
        """End all processes."""
        self.stopping.set()
        self.written.set()
        for worker in (self.worker, self.frozen):
            if worker is not None and worker.process is not None:
                worker.kill()
                worker.proxy.close()
        self.server.stop()


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def main() -> int:
    """Run one cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=systems.NAMES, required=True)
    parser.add_argument("--fault", choices=FAULTS, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--changes", type=int, default=2000)
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("--log", type=Path, help="file for the output of the workers")
    options = parser.parse_args()
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # ends worker and server too
    with tempfile.TemporaryDirectory(prefix="hc_signals_peers_", ignore_cleanup_errors=True) as directory:
        cell = Cell(options, Path(directory))
        try:
            figures = cell.run()
        finally:
            cell.close()
            if options.log and cell.worker.output.exists():
                options.log.write_text(cell.worker.output.read_text(errors="replace"))
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
