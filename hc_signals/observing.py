"""What the worker threads of this process are at: a pulse for whoever watches them, and facts for metrics and traces.

Below everything else, so that the loop, the page and the dispatcher can say what happens without knowing who listens.
With nobody listening it costs two looks at the clock per receiver call.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hc_signals.log.change import Change
from hc_signals.postgres.trouble import Trouble


@dataclass
class Tally:
    """What came of one page. Given to the observers once its transaction has committed."""

    consumer: str
    shard: int
    delivered: list[tuple[Change, float]] = field(default_factory=list)
    """Each change, and by this machine's clock when its delivery began."""
    calls: list[tuple[str, float, bool]] = field(default_factory=list)
    """Of each receiver call: the receiver's name, how many seconds it took, whether it raised."""
    unheard: set[str] = field(default_factory=set)
    """Tables whose changes have no receiver."""
    gaps: list[str] = field(default_factory=list)
    """Causes of the gaps of every table that were told."""


class Observer:
    """Is told what the workers do, in their threads; each method does nothing by default and must not raise.

    A receiver is given by its name.
    """

    def page_begins(self, tally: Tally) -> None:
        """A look at a shard begins; there may be nothing to deliver."""

    def page_ends(self, tally: Tally, error: BaseException | None) -> None:
        """The page is committed; or with an error it is not, and all in the tally will come again."""

    def call_begins(self, receiver: str, signal: Any, named: dict[str, Any]) -> None:
        """A receiver is about to be called with these arguments."""

    def call_ends(self, receiver: str, error: BaseException | None) -> None:
        """The receiver has returned, or raised."""


class Work:
    """What one thread is at. Written by that thread only; others may read it at any time."""

    def __init__(self) -> None:
        self.number: int | None = None
        """Of the worker in its process."""
        self.trouble = Trouble("A worker")
        """Why it cannot deliver now, and what has failed so far."""
        self.turned_at = time.monotonic()
        """When its loop last turned, also in its sleep; or a receiver returned."""
        self.receiver: str | None = None
        """The name of the receiver that runs now, since ``receiver_at``."""
        self.receiver_at = 0.0
        self.chore: str | None = None
        """What it does now that may take long and is no delivery, since ``chore_at``."""
        self.chore_at = 0.0
        self.reconnects = 0
        """How often it has lost its connection, or could not get one."""
        self.rounds = 0
        """How often it has delivered a page of every shard in which something waited."""
        self.tally: Tally | None = None

    def turn(self) -> None:
        """The loop turns: it is not stuck."""
        self.turned_at = time.monotonic()

    def ends_round(self) -> None:
        """The database has answered: a round is delivered."""
        self.rounds += 1
        self.turn()

    @contextmanager
    def busy_with(self, chore: str) -> Iterator[None]:
        """For the length of the block the loop may stand still for longer than a moment."""
        self.chore, self.chore_at = chore, time.monotonic()
        try:
            yield
        finally:
            self.chore = None
            self.turn()

    def begin_call(self, receiver: str, signal: Any, named: dict[str, Any]) -> None:
        """A receiver is about to be called."""
        # `receiver` last: who reads it must find its time there.
        self.receiver_at = time.monotonic()
        self.receiver = receiver
        for observer in _observers:
            observer.call_begins(receiver, signal, named)

    def end_call(self, receiver: str, error: BaseException | None) -> None:
        """The receiver has returned, or raised."""
        self.receiver = None
        self.turned_at = time.monotonic()
        if self.tally is not None:
            self.tally.calls.append((receiver, self.turned_at - self.receiver_at, error is not None))
        for observer in _observers:
            observer.call_ends(receiver, error)

    @contextmanager
    def page(self, consumer: str, shard: int) -> Iterator[None]:
        """The block delivers one page and commits it. A tally is kept only where somebody wants it."""
        if not _observers:
            yield
            return
        observers, self.tally = _observers, Tally(consumer, shard)
        tally, error = self.tally, None
        for observer in observers:
            observer.page_begins(tally)
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.tally = None
            for observer in reversed(observers):
                observer.page_ends(tally, error)


class Helper:
    """What a thread beside the workers is at: chores, watchdog, survey. Written by that thread only.

    Args:
        name: as /healthz and the metrics show it.
        limit: seconds that one of its turns may take; later it is stuck.
    """

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit = name, limit
        self.thread = threading.current_thread()
        self.troubles: list[Trouble] = []
        """What it does, each with why it fails now, if it does, and what has failed so far."""
        self.turned_at = time.monotonic()
        """When its last turn began or ended."""
        self.due_at = self.turned_at
        """When its next turn begins; not later than now while one is under way."""

    def turn(self, pause: float = 0.0) -> None:
        """A turn begins; or, with the seconds until the next one, has ended."""
        self.turned_at = time.monotonic()
        self.due_at = self.turned_at + pause

    def trouble(self, name: str, longest: float = 10.0) -> Trouble:
        """Return a new :class:`Trouble` that is shown as this helper's."""
        trouble = Trouble(name, longest)
        self.troubles.append(trouble)
        return trouble


_observers: tuple[Observer, ...] = ()
_workers: dict[int, Work] = {}
_helpers: dict[str, Helper] = {}


class _Local(threading.local):
    def __init__(self) -> None:
        self.work = Work()


_local = _Local()


def here() -> Work:
    """Return the work of the calling thread."""
    return _local.work


@contextmanager
def as_worker(number: int) -> Iterator[Work]:
    """The calling thread is this worker for the length of the block: :func:`workers` shows it."""
    work = _local.work = Work()
    work.number = number
    work.trouble.name = f"Worker {number}"
    _workers[number] = work
    try:
        yield work
    finally:
        del _workers[number]


def workers() -> list[Work]:
    """Return the work of all worker threads of this process."""
    return sorted(_workers.copy().values(), key=lambda work: work.number or 0)


@contextmanager
def as_helper(name: str, limit: float) -> Iterator[Helper]:
    """The calling thread is this helper for the length of the block: :func:`helpers` shows it.

    It shows one that an exception has ended as well: /healthz must tell of it.
    """
    helper = _helpers[name] = Helper(name, limit)
    yield helper
    del _helpers[name]


def helpers() -> list[Helper]:
    """Return the helper threads of this process, also those that have died; not those that have come to their end."""
    return sorted(_helpers.copy().values(), key=lambda helper: helper.name)


def observe(observer: Observer) -> None:
    """Tell the observer from now on."""
    global _observers  # noqa: PLW0603  (replaced as a whole: whoever iterates over it is not disturbed)
    _observers = (*_observers, observer)


def unobserve(observer: Observer) -> None:
    """Tell the observer no longer."""
    global _observers  # noqa: PLW0603
    _observers = tuple(each for each in _observers if each is not observer)
