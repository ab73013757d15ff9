"""Plays the doorbell: doorbell.pml."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from specs.follows.reader import Reader
from specs.follows.record import Refused, Span, Spans, Step
from specs.follows.report import Refusal, Report
from specs.follows.writers import Writers


@dataclass
class Sleeper:
    """A thread in Doorbell.sleep(): from its second read on it may wait."""

    has_read: bool = False
    read_from: int = 0
    is_rung: bool = False
    """It has received a notification, or found the lock free: it must wake all sleepers."""


class Bell:
    """Plays doorbell.pml: the thread and the server of one process."""

    def __init__(self, process: str, consumer: str, shards: int, writers: Writers, report: Report) -> None:
        self.process, self.consumer, self.shards, self.writers, self.report = process, consumer, shards, writers, report
        self.connected_at: int | None = None
        self.state = "refused"
        """The last pg_try_advisory_lock(): held by us, by another process, or refused."""
        self.asleep_since: int | None = None
        self.held_since: int | None = None
        self.releasing: tuple[int, int] | None = None
        """Since when the lock was held that was given back, and when."""
        self.holds: list[Span] = []
        """When the lock was held for certain: the server has confirmed that it was given back."""
        self.sleepers: dict[int, Sleeper] = {}
        self.rung_at = 0
        self.proof: tuple[int, int] | None = None
        """The last round trip over the connection: what was notified before it has arrived after it."""
        self._must_try = False

    def play(self, step: Step, reader: Reader) -> None:
        """Play one step."""
        name, thread = step["step"], step["thread"]
        sleeper = self.sleepers.get(thread)
        allowed = ("bell.wake", "bell.ping", "bell.closed", "bell.try")
        if sleeper and sleeper.is_rung and name not in allowed:
            raise Refused("doorbell: bell_never_missed: wake_all", "a notification arrived, and no sleeper is woken")
        getattr(self, name.replace("bell.", "play_"))(step, sleeper, reader)

    def play_connected(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """LISTEN is in effect."""
        self.connected_at, self.proof, self.rung_at = step["t"], None, step["t"]

    def play_closed(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """``give_up()``: the lock ends with the connection, some time before."""
        self.connected_at = self.asleep_since = self.held_since = self.releasing = self.proof = None
        self._must_try = False
        if sleeper:
            sleeper.is_rung = False

    def play_try(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """``take()``: only an answered release is over."""
        if self.connected_at is None or self.releasing:
            raise Refused("doorbell: bell_never_missed: take", "the lock is tried before its release was answered")
        self.state, self._must_try = step["state"], False
        self.proof = (step["t0"], step["t"])
        if self.state == "held":
            if span := self.writers.bell.around(step["t0"], step["t"]):
                raise Refused(
                    "doorbell: bell_never_missed: take",
                    f"the lock is held, and {span.what} shares it: it will not notify",
                )
            self.held_since = step["t"]
        if sleeper is None or not sleeper.has_read:  # falls asleep
            self.report.seen["locks that writers shared"] += self.state == "refused"
            self.asleep_since = None if self.state == "refused" else step["t"]
        elif self.state != "other":
            sleeper.is_rung = True

    def play_sleep(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """Doorbell.sleep() begins."""
        self.sleepers[step["thread"]] = Sleeper()

    def play_read(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """``is_waiting()``: the second read, and those of the poll."""
        if sleeper is None:
            return
        is_second, consumer = not sleeper.has_read, reader.consumer(self.consumer)
        sleeper.has_read, sleeper.read_from = not step["waiting"], step["t0"]
        until = step["t"] if step["waiting"] else step["t0"]
        change = consumer.undelivered(until, self.shards, step["elsewhere"])
        if step["waiting"]:  # for a change, and not for a retry, say
            self.report.seen["races at falling asleep"] += is_second and change is not None
        elif change is not None:
            raise Refused("doorbell: bell_never_missed: is_waiting", f"change {change} is unread, and nothing is found")

    def play_wait(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """A sleeper waits: after the lock was taken, and a read found nothing."""
        if sleeper is None or not sleeper.has_read:
            raise Refused("doorbell: bell_never_missed: second_read", "a sleeper waits without a read after the lock")
        if not step["listens"]:
            return
        if self.asleep_since is None:
            raise Refused("doorbell: bell_never_missed: sleeps", "a thread listens after the sleepers were woken")
        if sleeper.read_from < self.asleep_since:
            raise Refused("doorbell: bell_never_missed: second_read", "the last read began before the lock was taken")
        if self._must_try:
            raise Refused(
                "doorbell: bell_never_missed: lock_not_watched",
                "another process holds the lock, and the sleeper waits again without trying it",
            )
        self._must_try = self.state == "other"

    def play_receive(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """A notification, if ``rung``; each one that was sent before a round trip has arrived after it."""
        if self.connected_at is None:
            return  # the ping of a new connection: the log is read before the sleep
        if step["rung"]:
            self.rung_at = step["t"]
            if sleeper:
                sleeper.is_rung = True
            return
        if self.proof and self.proof[1] <= step["t0"]:
            ring = self.writers.last_ring(self.proof[0])
            if ring > self.rung_at:
                raise Refused(
                    "doorbell: bell_never_missed: clear_after_read",
                    "a writer's notification has arrived, and the sleeper has not received it",
                )

    def play_ping(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """A round trip over the connection."""
        self.proof = (step["t0"], step["t"])
        if step["rung"]:
            self.rung_at = step["t"]
            if sleeper:
                sleeper.is_rung = True

    def play_wake(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """``wake_all()``."""
        self.asleep_since, self._must_try = None, False
        if sleeper:
            sleeper.is_rung = False
        self.report.seen["wakes"] += 1

    def play_up(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """Doorbell.sleep() has ended; the last sleeper gives the lock back."""
        self.sleepers.pop(step["thread"], None)
        if not self.sleepers and self.held_since is not None:
            raise Refused("doorbell: bell_never_missed: end_sleep", "no thread sleeps, and the lock is not given back")

    def play_release(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """``releasing[p] = ...``"""
        if self.held_since is not None:
            self.releasing = (self.held_since, step["t"])
        self.asleep_since = self.held_since = None

    def play_released(self, step: Step, sleeper: Sleeper | None, reader: Reader) -> None:
        """The server has given the lock back: it was held until then."""
        self.proof = (step["t0"], step["t"])
        if self.releasing:
            self.holds.append(Span(*self.releasing, self.process))
        self.releasing = None


def check_lock(bells: Iterable[Bell], writers: Writers, report: Report) -> None:
    """One process at a time holds the bell's lock, and no writer begins to share it then."""

    def refuse(rule: str, process: str, fact: str) -> None:
        rule = f"doorbell: bell_never_missed: {rule}"
        report.refusals.setdefault("all", Refusal("all", rule, f"{rule}: {fact}", process, 0))

    holds = sorted(span for bell in bells for span in bell.holds)
    for before, after in pairwise(holds):
        if after.begin < before.end:
            refuse("holder", after.what, f"{before.what} holds the lock at the same time")
    spans = Spans(holds)
    for begin, end, what in writers.shared:
        if span := spans.around(begin, end):
            refuse("hc_signals_ring", "writers", f"{what} shares the lock while {span.what} holds it")
