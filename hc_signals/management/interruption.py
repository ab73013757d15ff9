"""Signals in our commands: Ctrl-C or SIGTERM ends one in good order, a second one at once; Ctrl-Z suspends it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Interruption:
    """True once Ctrl-C or SIGTERM has arrived; then it sets the event ``stopping``, if there is one."""

    SLICE = 0.1
    """Most seconds that :meth:`sleep` takes to notice a signal."""

    def __init__(self, stopping: threading.Event | None = None) -> None:
        self._stopping = stopping or threading.Event()
        self._number = 0

    def __bool__(self) -> bool:
        return self._number != 0

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self._number

    def sleep(self, seconds: float) -> None:
        """Sleep until the time is over or a signal arrives."""
        deadline = time.monotonic() + seconds
        while not self and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(self.SLICE, left))

    def _note(self, number: int, frame: Any) -> None:
        if self:
            os._exit(128 + number)  # a receiver may be running: the server rolls back its transaction
        self._number = number
        self._stopping.set()


@contextmanager
def interruptible(stopping: threading.Event | None = None) -> Iterator[Interruption]:
    """Catch both signals for the length of the block, then restore the handlers; the first one sets ``stopping``."""
    interruption = Interruption(stopping)
    before = {number: signal.signal(number, interruption._note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Suspension:
    """Ctrl-Z suspends a command only where it calls :meth:`turn`, after it has let go of what others need."""

    def __init__(self, let_go: Callable[[], None]) -> None:
        self._let_go = let_go
        self._is_asked = False

    def turn(self) -> None:
        """Let go and sleep until ``fg`` or ``bg``, if Ctrl-Z was pressed."""
        if self._is_asked:
            self._is_asked = False
            self._let_go()
            os.kill(os.getpid(), signal.SIGSTOP)

    def _note(self, number: int, frame: Any) -> None:
        self._is_asked = True


@contextmanager
def suspendable(let_go: Callable[[], None]) -> Iterator[Suspension]:
    """Catch Ctrl-Z for the length of the block, then restore the handler."""
    suspension = Suspension(let_go)
    before = signal.signal(signal.SIGTSTP, suspension._note)
    try:
        yield suspension
    finally:
        signal.signal(signal.SIGTSTP, before)


THREADS_TIMEOUT = 3.0
"""Most seconds that a process goes on for threads of the project, after its main thread has ended."""


def end_with_main_thread() -> None:
    """End the process with exit code 0 soon after its main thread.

    Python would wait for ever for a thread that a receiver has started and that never ends.
    """
    threading.Thread(target=_end_with_main_thread, name="hc_listen-end", daemon=True).start()


def _end_with_main_thread() -> None:
    threading.main_thread().join()
    time.sleep(THREADS_TIMEOUT)
    names = ", ".join(each.name for each in threading.enumerate() if each.is_alive() and not each.daemon)
    sys.stderr.write(f"hc_listen: ended, although threads of the project still run: {names}.\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
