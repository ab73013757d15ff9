"""The threads of this process: its workers and its helpers (chores, watchdog, survey), as /healthz shows them."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from hc_signals.delivery.pulse import Pulse
from hc_signals.postgres.trouble import Trouble

STUCK_SECONDS = 300.0
"""Most seconds that one turn of a helper may take; after that /healthz is red."""

_workers: dict[int, Pulse] = {}
_helpers: dict[str, "Helper"] = {}


class Helper:
    """What a helper thread does now. Only that thread writes it; other threads may read it at any time."""

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit = name, limit
        """``limit``: most seconds of one turn; after that the helper is stuck."""
        self.thread = threading.current_thread()
        self.troubles: list[Trouble] = []
        """The helper's tasks: why each one fails now, if it does, and how many tries have failed so far."""
        self.turned_at = time.monotonic()
        """When the last turn began or ended."""
        self.due_at = self.turned_at
        """When the next turn begins; during a turn, not later than now."""

    def turn(self, pause: float = 0.0) -> None:
        """Note that a turn begins; or, with the seconds until the next one, that it has ended."""
        self.turned_at = time.monotonic()
        self.due_at = self.turned_at + pause

    def trouble(self, name: str, longest: float = 10.0) -> Trouble:
        """Return a new :class:`Trouble` that is shown as this helper's."""
        trouble = Trouble(name, longest)
        self.troubles.append(trouble)
        return trouble


@contextmanager
def as_worker(number: int) -> Iterator[Pulse]:
    """Show the calling thread as a worker of this process during the block."""
    pulse = _workers[number] = Pulse(number)
    try:
        yield pulse
    finally:
        del _workers[number]


def workers() -> list[Pulse]:
    """Return the pulses of all worker threads of this process."""
    return sorted(_workers.copy().values(), key=lambda pulse: pulse.number)


@contextmanager
def as_helper(name: str, limit: float) -> Iterator[Helper]:
    """Show the calling thread as a helper of this process during the block.

    A thread that an exception has ended stays in :func:`helpers`, so that /healthz can report it.
    """
    helper = _helpers[name] = Helper(name, limit)
    yield helper
    del _helpers[name]


def helpers() -> list[Helper]:
    """Return the helpers of this process, also those whose thread has died; not those that have ended."""
    return sorted(_helpers.copy().values(), key=lambda helper: helper.name)


def keep_turning(
    name: str,
    turn: Callable[[Helper], float],
    stopping: threading.Event,
    *,
    troubles: Iterable[Trouble] = (),
    limit: float = STUCK_SECONDS,
    longest: float = 60.0,
) -> None:
    """Call ``turn`` in the calling thread until ``stopping`` is set; no exception ends the loop.

    Args:
        turn: does what is due and returns the seconds until the next turn.
        troubles: of the tasks that ``turn`` does; they are shown as the helper's.
        limit: most seconds of one turn; after that /healthz is red.
        longest: most seconds until the next turn after one that raised.
    """
    with as_helper(name, limit) as helper:
        trouble = helper.trouble(f"The {name}", longest)
        helper.troubles += troubles
        while not stopping.is_set():
            helper.turn()
            try:
                pause = turn(helper)
            except BaseException as error:  # also SystemExit: without its helper the process would go on half alive
                pause = trouble.happens(error)
            else:
                trouble.ends()
            helper.turn(pause)
            stopping.wait(pause)
