"""The measured processes: a real hc_listen and others; and the mailbox that their receivers write to."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import workload

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0
"""Seconds to wait for a process before giving up."""


class Mailbox:
    """Collects letters of receivers: the monotonic time in nanoseconds, and a number."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.letters: list[tuple[int, int]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        while True:
            moment, number = self._socket.recv(100).decode().split()
            self.letters.append((int(moment), int(number)))

    def wait_for(self, count: int) -> list[tuple[int, int]]:
        """Return the letters once there are ``count``, and empty the box.

        Raises:
            TimeoutError: no letter arrived for PATIENCE seconds.
        """
        seen, deadline = 0, time.monotonic() + PATIENCE
        while len(self.letters) < count:
            if len(self.letters) > seen:
                seen, deadline = len(self.letters), time.monotonic() + PATIENCE
            if time.monotonic() > deadline:
                raise TimeoutError(f"{seen} of {count} changes were delivered, then nothing more")
            time.sleep(0.0005)
        letters, self.letters = self.letters, []
        return letters


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """Open a mailbox in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="hc_bench_") as directory:
        yield Mailbox(f"{directory}/box")


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start this Python with the environment of the measuring process and the given variables."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}", **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def end(process: "subprocess.Popen[str]") -> None:
    """End a process started by :func:`start`."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def listening(receiver: str, *arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a real hc_listen with one receiver for the length of the block; it sleeps when the block begins."""
    process = start("-m", "django", "hc_listen", "-v", "0", *arguments, BENCH_RECEIVER=receiver, **environment)
    try:
        wait_until_asleep()
        yield process
    finally:
        end(process)


def wait_until_asleep() -> None:
    """Wait until a worker has nothing to do.

    Raises:
        TimeoutError: it is still busy after PATIENCE seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not workload.is_asleep():
        if time.monotonic() > deadline:
            raise TimeoutError("hc_listen did not fall asleep; run it by hand to see why")
        time.sleep(0.005)


def megabytes_of(process: "subprocess.Popen[str]") -> float:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
