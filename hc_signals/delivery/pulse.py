"""The pulse of a thread that delivers: what it does now, for /healthz; and what it did, for metrics and traces.

The worker passes its pulse down to whatever reports: shard, page, dispatcher, doorbell. A thread that delivers without
being a worker, such as a replay, has a pulse of its own that nothing reads.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from hc_signals.log.change import Change
from hc_signals.postgres.trouble import Trouble


class Named(Protocol):
    """A receiver: only its name matters here."""

    @property
    def name(self) -> str: ...


@dataclass
class Tally:
    """The figures of one page. Observers get it after the page's transaction has committed."""

    consumer: str
    shard: int
    delivered: list[Change] = field(default_factory=list)
    """The changes, in order. Filled when all are delivered."""
    begun_at: list[float] = field(default_factory=list)
    """The Unix time at which the delivery of the first change began, and of each ``step``-th one after it."""
    step: int = 1
    calls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By the receiver's name: the seconds of each call."""
    failures: Counter[str] = field(default_factory=Counter)
    """By the receiver's name: how many of these calls raised."""
    unheard: set[str] = field(default_factory=set)
    """Tables whose changes have no receiver."""
    gaps: list[str] = field(default_factory=list)
    """Causes of the gaps that were reported for every table."""


class Observer:
    """Hears what the workers do, in their threads. Each method does nothing by default and must not raise.

    A receiver is given by its name.
    """

    def page_begins(self, tally: Tally) -> None:
        """A worker begins a page; there may be nothing to deliver."""

    def page_ends(self, tally: Tally, error: BaseException | None) -> None:
        """The page is committed. With an error it is not, and all in the tally will be delivered again."""

    def call_begins(self, receiver: str, signal: Any, named: dict[str, Any]) -> None:
        """A receiver is about to be called with these arguments."""

    def call_ends(self, receiver: str, error: BaseException | None) -> None:
        """The receiver has returned, or raised."""


class Pulse:
    """What one thread does now. Only that thread writes it; other threads may read it at any time."""

    observers_of_calls: tuple[Observer, ...] = ()
    """Those with a method for calls: a receiver call is too short to call an empty method for it."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        """Of the worker in its process."""
        self.trouble = Trouble(f"Worker {number}")
        """Why the worker cannot deliver now, and how many tries have failed so far."""
        self.turned_at = time.monotonic()
        """When the loop last turned, also while it sleeps; or when a receiver last returned."""
        self.receiver: str | None = None
        """The name of the receiver that runs now, since ``receiver_at``."""
        self.receiver_at = 0.0
        self.chore: str | None = None
        """Work that may take long and is no delivery, since ``chore_at``."""
        self.chore_at = 0.0
        self.reconnects = 0
        """How many times the worker lost its connection, or could not get one."""
        self.rounds = 0
        """How many times the worker delivered a page of every shard with something to deliver."""
        self.tally: Tally | None = None
        """The figures of the present page; None while no observer wants them."""

    def turn(self) -> None:
        """Note that the loop turns: it is not stuck."""
        self.turned_at = time.monotonic()

    def end_round(self) -> None:
        """Note that a round is delivered: the database has answered."""
        self.rounds += 1
        self.turn()

    @contextmanager
    def busy_with(self, chore: str) -> Iterator[None]:
        """Allow the loop to stand still for longer during the block."""
        self.chore, self.chore_at = chore, time.monotonic()
        try:
            yield
        finally:
            self.chore = None
            self.turn()

    def end_calls(
        self,
        receivers: Sequence[Named],
        seconds: Sequence[float],
        failed: Sequence[tuple[str, BaseException]],
        now: float,
    ) -> None:
        """Note that no receiver runs any more, how long each made call has taken, and which ones failed."""
        # Set `receiver` last: a thread that reads it relies on `turned_at`.
        self.turned_at = now
        self.receiver = None
        if (tally := self.tally) is not None:
            for receiver, each in zip(receivers, seconds, strict=False):
                tally.calls[receiver.name].append(each)
            tally.failures.update(name for name, _ in failed)

    @contextmanager
    def page(self, consumer: str, shard: int) -> Iterator[None]:
        """Give the observers the figures of one page, which the block delivers and commits."""
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


_observers: tuple[Observer, ...] = ()
"""Replaced as a whole, so that a thread that iterates over it is not disturbed."""


def observe(observer: Observer) -> None:
    """Call the observer from now on."""
    _replace((*_observers, observer))


def unobserve(observer: Observer) -> None:
    """Stop calling the observer."""
    _replace(tuple(each for each in _observers if each is not observer))


def _replace(observers: tuple[Observer, ...]) -> None:
    global _observers  # noqa: PLW0603
    _observers = observers
    Pulse.observers_of_calls = tuple(each for each in observers if type(each).call_begins is not Observer.call_begins)
