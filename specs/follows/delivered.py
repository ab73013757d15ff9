"""What claims and transactions of workers did, and what each consumer was delivered."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from specs.follows.record import Log, Refused, Step
from specs.follows.writers import Writers

Key = tuple[str, int]
"""A consumer and the number of a shard."""
FIRST: Step = {
    "seen": "1:1:",
    "floor_id": 0,
    "floor_xid": 1,
    "target": None,
    "ceiling_id": None,
    "next_floor_id": None,
    "next_floor_xid": None,
    "last_id": None,
    "lost": 0,
}
"""The position of a consumer that has none."""


@dataclass
class Claim:
    """A claimed shard within a transaction."""

    key: Key
    shards: int
    at: int
    standing: Step
    is_new: bool
    layout: int | None
    newest_id: int
    lost: int
    position: Step
    """As it is now, with the window that was opened."""
    is_opened: bool = False
    ids: list[int] | None = None
    """The page."""
    has_more: bool = True
    gaps: int = 0
    stored: Step | None = None


@dataclass
class Transaction:
    """A worker's transaction that has claimed shards."""

    process: str
    claims: dict[Key, Claim] = field(default_factory=dict)
    forgotten: int | None = None
    """The layout whose positions it has deleted."""
    left: Step | None = None
    """The common position of that layout."""
    target: Step | None = None
    """The first window that it has opened."""
    sent_at: int | None = None
    outcome: str = ""
    """committed, undone; empty: not known."""
    is_outdated: bool = False
    """It has read a position that another transaction replaced during the read: the server has taken its claim away."""


def normal(position: Step | None) -> Step:
    """Return a position with numbers where PostgreSQL's JSON or Python's has texts."""
    if position is None:
        return FIRST
    found = {name: position[name] for name in FIRST}
    for name in ("floor_xid", "next_floor_xid"):
        found[name] = found[name] if found[name] is None else int(found[name])
    return found


def closed(position: Step) -> Step:
    """``close_window()`` of reader.pml."""
    return {
        **FIRST,
        "seen": position["target"],
        "floor_id": max(0, position["next_floor_id"]),
        "floor_xid": position["next_floor_xid"],
        "lost": position["lost"],
    }


class Consumer:
    """What one consumer has been delivered."""

    def __init__(self, log: Log, writers: Writers, once: bool) -> None:
        self.log, self.once = log, once
        self.delivered: dict[int, int] = {}
        """By id, how many times."""
        self.sent: Counter[int] = Counter()
        """Delivered by transactions whose COMMIT was sent and has no outcome yet."""
        self.last_of: dict[int, int] = {}
        """By record: the last change that was delivered."""
        self.highest = 0
        self._awaited = [(at, number) for at, xid in writers.commits for number in log.of_xid[xid]]
        """Committed changes, by the time at which this was known."""
        self._first = 0

    def deliver(self, ids: Iterable[int]) -> None:
        """``deliver()`` of reader.pml, ``commit_effect()`` of handover.pml."""
        for number in ids:
            record = self.log.record[number]
            if number in self.delivered and self.once:
                raise Refused("handover: nothing_twice: commit_effect", f"change {number} was delivered before")
            if self.last_of.get(record, 0) > number and number not in self.delivered:
                later = self.last_of[record]
                raise Refused("reader: order_per_record: deliver", f"change {number} comes after {later} of its record")
            self.delivered[number] = self.delivered.get(number, 0) + 1
            self.last_of[record] = max(self.last_of.get(record, 0), number)

    def undelivered(self, before: int, shards: int, elsewhere: Iterable[int]) -> int | None:
        """Return a change that was committed before this time, and that no page with a sent COMMIT has."""
        awaited = self._awaited
        while self._first < len(awaited) and awaited[self._first][1] in self.delivered:
            self._first += 1
        for index in range(self._first, len(awaited)):
            at, number = awaited[index]
            if at >= before:
                return None
            if number in self.delivered or self.sent[number] or self.log.shard(number, shards) in elsewhere:
                continue
            return number
        return None
