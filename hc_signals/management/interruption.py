"""Ctrl-C and SIGTERM: the first asks a command to end in good order, the second ends it at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interruption:
    """Whether a signal has come, and which."""

    def __init__(self) -> None:
        self.number = 0

    def __bool__(self) -> bool:
        return self.number != 0

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number

    def _note(self, number: int, frame: Any) -> None:
        if self:
            os._exit(128 + number)  # asked twice: now, whatever a receiver is at; the server takes back what is open
        self.number = number


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Watch for both signals; afterwards they mean what they meant before."""
    interruption = Interruption()
    before = {number: signal.signal(number, interruption._note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
