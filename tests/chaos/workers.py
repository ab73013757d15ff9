"""The worker processes of one run, each behind its own network; a process that ends by itself is started again."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.chaos.proxy import Proxy

ROOT = Path(__file__).parent.parent.parent


class Worker:
    """One ``hc_listen``, and the processes that replace it.

    Args:
        name: its ``application_name``.
        url: the server.
        environment: ``CHAOS_CONSUMER``, ``CHAOS_SHARDS`` and so on.
        output: file for its output.
    """

    def __init__(self, name: str, url: str, environment: dict[str, str], output: Path) -> None:
        self.name, self.environment, self.output = name, environment, output
        self.proxy = Proxy(url)
        self.process: Any = None
        self.peak_rss = 0

    @property
    def is_wrong(self) -> bool:
        """True for a wrong reader, which the run must detect; it gets no faults."""
        return bool(self.environment["CHAOS_MUTATION"])

    @property
    def consumer(self) -> str:
        """The consumer for which it delivers."""
        return self.environment["CHAOS_CONSUMER"]

    def start(self) -> None:
        """Start the process; it reaches the server through its proxy."""
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}",
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{self.proxy.port}/postgres",
            "CHAOS_WORKER": self.name,
            **self.environment,
        }
        command = [sys.executable, str(ROOT / "example" / "manage.py"), "hc_listen", "-v", "0"]
        command += ["--concurrency", self.environment["CHAOS_THREADS"]]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(command, env=environment, stderr=output, stdout=output)

    def end(self, kind: signal.Signals) -> int:
        """Send a signal that ends the process; return its exit code."""
        self.process.send_signal(kind)
        try:
            return int(self.process.wait(timeout=60))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return -1

    def measure(self) -> None:
        """Note the highest resident memory in KiB, if the system shows it."""
        status = Path(f"/proc/{self.process.pid}/status")
        for line in status.read_text().splitlines() if status.exists() else ():
            if line.startswith("VmHWM:"):
                self.peak_rss = max(self.peak_rss, int(line.split()[1]))


class Workers:
    """All worker processes of a run.

    Args:
        directory: for their output.
        environment: of each process.
    """

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory, self.environment = directory, environment
        self.all: list[Worker] = []
        self.lock = threading.RLock()
        """Held while a process is replaced."""
        self.stopping = False
        self.exits = 0
        """Processes that ended by themselves and were started again."""

    def add(self, url: str, consumer: str, shards: int, mutation: str = "", pooler: str | None = None) -> None:
        """Start one more worker.

        Args:
            url: the server.
            pooler: URL by which the worker reaches the server; default: that of the server.
        """
        name = f"chaos worker {len(self.all)}"
        environment = {
            **self.environment,
            "CHAOS_CONSUMER": consumer,
            "CHAOS_SHARDS": str(shards),
            "CHAOS_MUTATION": mutation,
            "CHAOS_SERVICE": url,
        }
        self.all.append(Worker(name, pooler or url, environment, self.directory / f"{name}.log"))
        self.all[-1].start()

    def look_after(self) -> None:
        """Restart the processes that ended by themselves, as a platform does; measure the others."""
        with self.lock:
            for worker in self.all:
                if worker.process.poll() is None:
                    worker.measure()
                elif not self.stopping:
                    self.exits += 1
                    worker.start()

    def stop(self) -> list[int]:
        """Stop all as a platform does; return their exit codes."""
        with self.lock:
            self.stopping = True
            return [worker.end(signal.SIGTERM) for worker in self.all]

    def kill(self) -> None:
        """Kill all processes."""
        for worker in self.all:
            worker.process.kill()
            worker.process.wait()
            worker.proxy.close()

    def output(self) -> str:
        """Return the output of all processes."""
        return "".join(path.read_text() for path in sorted(self.directory.glob("*.log")))
