"""Values: a shard of a consumer's log, how far the consumer is there, and what a claim finds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LogShard:
    """One shard of one consumer: the records of the log whose hash falls to it."""

    using: str
    """Database alias."""
    consumer: str
    shard: int = 0
    """Its number."""
    shards: int = 1
    """How many the consumer has."""

    @classmethod
    def all_of(cls, using: str, consumer: str, shards: int) -> "list[LogShard]":
        """Return all shards of a consumer."""
        return [cls(using, consumer, shard, shards) for shard in range(shards)]

    @property
    def lock_name(self) -> str:
        """The text whose hash is the second key of the shard's advisory lock: see ``postgres/locks.py``."""
        return f"{self.consumer} {self.shard}"


@dataclass(frozen=True)
class Position:
    """How far one consumer is in one shard: the columns of ``hc_signals_position``."""

    seen: str = "1:1:"
    """Snapshot: all changes visible in it are delivered."""
    floor_id: int = 0
    floor_xid: str = "1"
    """Transactions from this id on began after ``seen``, so all their changes have ids above ``floor_id``."""
    target: str | None = None
    """Snapshot of the open window; None: no window is open."""
    ceiling_id: int | None = None
    """The highest id that can be visible in ``target``."""
    next_floor_id: int | None = None
    """``floor_id`` once the window is closed."""
    next_floor_xid: str | None = None
    """``floor_xid`` once the window is closed."""
    last_id: int | None = None
    """The changes of the window up to this id are delivered."""
    lost: int = 0
    """Number of uncaptured statements already reported as gaps."""
    gap: Mapping[str, Any] | None = None
    """A gap of every table that is not reported yet: its ``cause``, ``since`` and ``until``."""

    @property
    def begins_late(self) -> bool:
        """Whether a transaction that has an id may have been open at ``seen``, so that its changes can come late."""
        _, xmax, in_progress = self.seen.split(":")
        return bool(in_progress) or xmax != self.floor_xid


@dataclass(frozen=True)
class Standing:
    """What ``hc_signals_standing()`` returns for a shard."""

    position: Position
    is_new: bool
    """The consumer has no position in this shard yet."""
    layout: int | None
    """How many shards the consumer has now; None before its first position."""
    newest_id: int
    """The highest id drawn so far. It is read before the target snapshot is taken: see :mod:`hc_signals.log.window`."""
    lost: int
    """Uncaptured statements since the log was created; one whose transaction is open does not count yet."""
    is_idle: bool
    """The stored position is stale: append a new one even if nothing was delivered."""
    any_kept: bool
    """The consumer has failed deliveries that wait, in any shard."""
    any_due: bool
    """At least one of them is due."""
    has_moved: bool = False
    """Another server has replaced the one that the log was written on: see :mod:`hc_signals.log.restoring`."""
    now: tuple[Any, ...] | None = None
    """The row of ``hc_signals_target()``, if the claim has read it in the same round trip."""
