"""Terminals: commands that run in a directory as in a shell of their own, and what they have printed so far."""

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path


class Terminal:
    """One running command; its output goes to a file, so that no pipe fills up."""

    def __init__(self, command: str, directory: Path, environment: Mapping[str, str], record: Path) -> None:
        self.command, self.record = command, record
        with record.open("w") as output:
            self.process = subprocess.Popen(
                ["bash", "-e", "-c", command], cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        """What it has printed so far, to both streams."""
        return self.record.read_text(encoding="utf-8")

    def succeed(self, seconds: float = 120) -> str:
        """Wait for the end, which must be a good one; return the output."""
        assert self.process.wait(seconds) == 0, f"{self.command}\n{self.output}"
        return self.output

    def wait_until(self, condition: Callable[[str], bool], seconds: float = 20) -> None:
        """Wait until the output meets the condition."""
        deadline = time.monotonic() + seconds
        while not condition(self.output):
            assert self.process.poll() is None, f"{self.command} ended\n{self.output}"
            assert time.monotonic() < deadline, f"{self.command}\n{self.output}"
            time.sleep(0.05)

    def stop(self, number: int, seconds: float = 10) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
