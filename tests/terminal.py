"""Terminals: commands that run in a directory, each in its own shell, with their output so far."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path


class Terminal:
    """A running command. Its output goes to a file, because a full pipe would block it."""

    def __init__(self, command: str, directory: Path, environment: Mapping[str, str], record: Path) -> None:
        self.command, self.record = command, record
        with record.open("w") as output:
            self.process = subprocess.Popen(
                ["bash", "-e", "-c", command],
                cwd=directory,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """The output so far, of both streams."""
        return self.record.read_text(encoding="utf-8")

    def succeed(self, seconds: float = 120) -> str:
        """Wait until the command exits with 0; return the output."""
        assert self.process.wait(seconds) == 0, f"{self.command}\n{self.output}"
        return self.output

    def wait_until(self, condition: Callable[[str], bool], seconds: float = 60) -> None:
        """Wait until the output meets the condition."""
        deadline = time.monotonic() + seconds
        while not condition(self.output):
            assert self.process.poll() is None, f"{self.command} ended\n{self.output}"
            assert time.monotonic() < deadline, f"{self.command}\n{self.output}"
            time.sleep(0.05)

    def stop(self, number: int, seconds: float = 60) -> int:
        """Send a signal to all processes of the terminal, as Ctrl-C does; wait for the end, return the exit code."""
        os.killpg(self.process.pid, number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Kill the command, if it is running."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
