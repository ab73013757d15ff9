"""How far a consumer has come in a shard, and what a look at it tells."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Position:
    """How far one consumer has come in one shard."""

    seen: str = "1:1:"
    floor_id: int = 0
    floor_xid: str = "1"
    """Transactions from here on were born after ``seen``, so all their ids are above ``floor_id``."""
    target: str | None = None
    ceiling_id: int | None = None
    next_floor_id: int | None = None
    next_floor_xid: str | None = None
    last_id: int | None = None
    lost: int = 0
    """Statements that could not be captured, as far as told."""
    gap: Mapping[str, Any] | None = None
    """A gap of every table that is still to be told: its ``cause``, ``since`` and ``until``."""


@dataclass(frozen=True)
class Standing:
    """What a look at a claimed shard tells."""

    position: Position
    is_new: bool
    """The consumer has no position in this shard yet."""
    layout: int | None
    """Over how many shards the consumer's records are split now; None before its first position."""
    last_id: int
    """The highest id drawn so far. Read before the target snapshot is taken: see ``open_window``."""
    lost: int
    """Statements that could not be captured since the log was made; one that is still open is not counted yet."""
    is_idle: bool
    """The position is so old that the next one is to be stored even if there is nothing to do."""
    any_kept: bool
    """The consumer has deliveries that wait, of whichever shard."""
    any_due: bool
    """The time of one of them has come."""
    has_moved: bool = False
    """The server is another one than the log was written on: see :mod:`hc_signals.log.restoring`."""
    now: tuple[Any, ...] | None = None
    """The snapshot of right after, if it was taken in the same round trip: see ``open_window``."""
