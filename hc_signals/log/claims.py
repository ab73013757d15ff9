"""Claims a shard, so that one worker at a time delivers it.

A claim is an advisory lock of a transaction: it ends with the connection of a worker that dies. It carries the standing
that was read under the lock. So windows are opened, pages read and positions appended by a claim.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db import transaction

from hc_signals.log import positions, window
from hc_signals.log.change import Change, cut_page
from hc_signals.log.heard import Heard
from hc_signals.log.position import LogShard, Position, Standing
from hc_signals.postgres.held_lock import HeldLock
from hc_signals.postgres.locks import CLAIMS
from hc_signals.postgres.query import execute, row, rows

CONFIRM_SECONDS = 0.2
"""Seconds between two checks of a worker that its session, and with it its claim, is still there."""


FirstPage = tuple[str, int, list[tuple[Any, ...]]]
"""A window's first page, read with the claim: the window's target, the most changes that were asked for, and rows."""


class Claim:
    """A claimed shard.

    Args:
        standing: read after the claim, so it has all that the last owner committed.
        first: the first page, if a window can be opened and nothing comes late.
        held: holds the claim, if that is not the transaction.
    """

    def __init__(
        self, shard: LogShard, standing: Standing, *, first: FirstPage | None = None, held: HeldLock | None = None
    ) -> None:
        self.shard, self.standing = shard, standing
        self._first, self._held = first, held
        self.confirm_at = time.monotonic() + CONFIRM_SECONDS
        """Before that time :meth:`confirm` has nothing to do, by the monotonic clock."""

    def confirm(self) -> None:
        """Check that we still hold the claim, before calling more receivers, whose external effects stay.

        A suspended or disconnected process can go on after another worker has claimed the shard. It raises
        DatabaseError or InterfaceError if the claim, or the connection that stores the position, is lost.
        """
        if time.monotonic() > self.confirm_at:
            execute(self.shard.using, "SELECT 1")
            if self._held is not None:
                self._held.confirm()
            self.confirm_at = time.monotonic() + CONFIRM_SECONDS

    def open_window(self) -> Position:
        """Open a window, before the transaction writes: see :func:`hc_signals.log.window.open_window`."""
        return window.open_window(self.shard.using, self.standing)

    def page(self, position: Position, limit: int) -> tuple[list[Change], bool]:
        """Return the next changes of the open window: see :func:`hc_signals.log.window.read_page`."""
        first = self._first
        if first and first[:2] == (position.target, limit) and position.last_id == position.floor_id:
            return cut_page(first[2], limit)
        return window.read_page(self.shard, position, limit)

    def close_window(self, position: Position) -> Position:
        """Close the window: see :func:`hc_signals.log.window.close_window`."""
        return window.close_window(position)

    def append(self, position: Position, heard: Heard | None = None) -> None:
        """Append the shard's new position, in the transaction of the claim, with the calls of the page.

        So a worker that has lost its claim cannot store a position: the next owner may be past it, or have another
        number of shards.
        """
        run = partial(row, self.shard.using) if self._held is None else self._held.row
        positions.append(self.shard, position, heard, run)


class Claims:
    """Claims shards page by page: ``held`` holds the claim if no transaction spans the page."""

    def __init__(self, held: HeldLock | None = None) -> None:
        self._held = held

    @contextmanager
    def page(self, shard: LogShard, limit: int, *, atomic: bool) -> Iterator[Claim | None]:
        """Claim the shard for a page of at most ``limit`` changes; None if another worker has it.

        Args:
            atomic: in a transaction that spans the page. Otherwise a connection of its own holds the claim: receivers
                cannot lose it there, and a pooler cannot leave it behind.
        """
        if atomic:
            with transaction.atomic(using=shard.using):
                yield claim_with_page(shard, limit)
            return
        assert self._held is not None  # noqa: S101
        if not self._held.take("pg_try_advisory_xact_lock(%s, hashtext(%s))", [CLAIMS, shard.lock_name]):
            yield None
            return
        try:
            yield Claim(shard, positions.read_standing(shard), held=self._held)
            self._held.commit()
        finally:
            self._held.release()


def claim_with_page(shard: LogShard, limit: int) -> Claim | None:
    """Claim a shard for the transaction and read its first page in one round trip; None if another worker has it."""
    params = [shard.consumer, shard.shard, shard.shards, limit]
    found = rows(shard.using, "SELECT * FROM public.hc_signals_claim(%s, %s, %s, %s)", params)
    if not found:
        return None
    head, now = found[0][0], tuple(found[0][0]["now"])
    first = (now[0], limit, [row[1:] for row in found[1:]]) if head["has_page"] else None
    return Claim(shard, positions.standing_of(head["standing"], now), first=first)


def claim_all(shards: Iterable[LogShard]) -> list[Claim]:
    """Claim the shards until the transaction ends; wait for workers that deliver them.

    Callers name the shards in order of their numbers, so two of them cannot wait for each other.
    """
    return [Claim(shard, positions.read_standing(shard)) for shard in lock_all(shards)]


def lock_all(shards: Iterable[LogShard]) -> list[LogShard]:
    """Keep workers from the shards until the transaction ends, as :func:`claim_all` does; return the shards."""
    locked = list(shards)
    for shard in locked:
        execute(shard.using, "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [CLAIMS, shard.lock_name])
    return locked
