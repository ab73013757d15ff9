"""Reads the log as the difference of two snapshots and appends positions; the only reader of the log.

``seen``: everything visible in this snapshot is done. ``target``: taken when a window opens. The window is what is
visible in ``target`` and not in ``seen``, paged by id. Ids alone would lose rows of transactions that commit late; an
xmin watermark would invert the order of a record's changes and stall behind strangers.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, NamedTuple

from django.db import connections, transaction

from hc_signals.events import Change
from hc_signals.log.position import Position, Standing
from hc_signals.log.rows import cut_page
from hc_signals.postgres.held_lock import HeldLock
from hc_signals.postgres.locks import CLAIMS

CONFIRM_SECONDS = 0.2
"""After so long a worker makes sure that its session, and with it its claim, has not ended: see ``confirm``."""
PRUNE_SHARE = 0.01
"""Of the appended positions: how many take old ones away."""


_POSITION = [field.name for field in fields(Position)]
"""Columns of ``hc_signals_position`` as well."""

OPEN_AT_SEEN = """
    SELECT pg_snapshot_xip(%(seen)s::pg_snapshot)
    UNION ALL
    SELECT n::text::xid8 FROM generate_series(
        pg_snapshot_xmax(%(seen)s::pg_snapshot)::text::bigint, %(floor_xid)s::bigint - 1) n
"""
"""The transactions that were open at ``seen``: those in its list and also any from its xmax up to the next id that was
to be given out, because xmax is only one above the highest id that had *finished*."""

# The lowest id of the transactions that were open at `seen` and are finished in `target`. Only their ids can lie at or
# below the floor.
_LATE = f"""
SELECT min(late.id) FROM ({OPEN_AT_SEEN}) open (x), LATERAL (
    SELECT id FROM public.hc_signals_change WHERE xid BETWEEN open.x AND open.x ORDER BY xid, id LIMIT 1
) late WHERE pg_visible_in_snapshot(open.x, %(target)s::pg_snapshot)
"""

_PAGE = """
SELECT * FROM public.hc_signals_page(%(seen)s::pg_snapshot, %(target)s::pg_snapshot, %(after)s, %(ceiling)s, %(shard)s,
                                     %(shards)s, %(limit)s)
"""


class _Look(NamedTuple):
    """What ``hc_signals_look()`` has found."""

    standing: Standing
    target: str | None
    """Of the window that was opened and of whose changes the first page was read; None where none was."""
    limit: int
    """Of that page."""
    rows: list[tuple[Any, ...]]


class ChangeLog:
    """The log of one database, as one consumer sees one shard of it. All calls belong inside one transaction.

    Args:
        using: database alias.
        consumer: its name.
        shard: number of the shard.
        shards: how many there are.
        claims: holds the claim where no transaction spans a page; None: pages are delivered in transactions only.
    """

    def __init__(
        self, using: str, consumer: str, shard: int = 0, shards: int = 1, claims: HeldLock | None = None
    ) -> None:
        self.using, self.consumer, self.shard, self.shards = using, consumer, shard, shards
        self._claims = claims
        self.opened: str | None = None
        """Target of the last window that was opened through this object."""
        self.finished = 0
        """How many windows were both opened and finished through this object."""
        self._look: _Look | None = None
        """Of this page, until it is asked for."""
        self._first_page: _Look | None = None
        self._confirmed_at = 0.0

    @property
    def _name(self) -> str:
        return f"{self.consumer} {self.shard}"

    def _row(self, sql: str, params: Any = None) -> Any:
        with connections[self.using].cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchone()

    def _claim_and_look(self, limit: int) -> bool:
        self._look = None
        with connections[self.using].cursor() as cursor:
            cursor.execute(
                "SELECT * FROM public.hc_signals_look(%s, %s, %s, %s)",
                [self.consumer, self.shard, self.shards, limit],
            )
            rows = cursor.fetchall()
        if rows:
            head = rows[0][0]
            target = head["now"][0] if head["has_page"] else None
            self._look = _Look(
                _standing(head["standing"], tuple(head["now"])), target, limit, [row[1:] for row in rows[1:]]
            )
        return bool(rows)

    def claim(self, wait: bool = False) -> bool:
        """Claim the shard until the transaction ends: a dead worker's claim dies with its connection.

        Args:
            wait: until whoever has it is done with its page.
        """
        self._look = None
        key = [CLAIMS, self._name]
        if wait:
            self._row("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", key)
            return True
        return bool(self._row("SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))", key)[0])

    @contextmanager
    def claimed(self, limit: int, *, atomic: bool) -> Iterator[bool]:
        """Claim the shard for one page, if it is free; yield whether it was.

        Args:
            limit: of changes that the page may have: the first one of a window is read at once.
            atomic: in a transaction that spans the page. Else the claim is held on a connection of its own, where
                receivers cannot lose it and a pooler cannot leave it behind.
        """
        if atomic:
            with transaction.atomic(using=self.using):
                yield self._claim_and_look(limit)
            return
        assert self._claims is not None  # noqa: S101
        is_free = self._claims.take("pg_try_advisory_xact_lock(%s, hashtext(%s))", [CLAIMS, self._name])
        try:
            yield is_free
        finally:
            self._claims.release()

    def confirm(self) -> None:
        """Make sure that the claim is still ours: before more is told to receivers whose effects nobody takes back.

        A process that stood still, or was cut off, goes on where another has taken over.

        Raises:
            DatabaseError, InterfaceError: the claim, or the connection by which the position is stored, is lost.
        """
        if time.monotonic() > self._confirmed_at + CONFIRM_SECONDS:
            self._row("SELECT 1")
            if self._claims is not None and self._claims.is_held:
                self._claims.confirm()
            self._confirmed_at = time.monotonic()

    def standing(self) -> Standing:
        """Return how things stand, the very beginning for a consumer that has no position. After the claim."""
        self._first_page, self._look = self._look, None
        if self._first_page:
            standing = self._first_page.standing
        else:
            standing = _standing(self._row("SELECT public.hc_signals_standing(%s, %s)", [self.consumer, self.shard])[0])
        self._confirmed_at = time.monotonic()
        return standing

    def forget_layout(self, shards: int) -> None:
        """Remove the positions of a layout that was left: they would hold up the rotation of the log."""
        with connections[self.using].cursor() as cursor:
            cursor.execute(
                "DELETE FROM public.hc_signals_position WHERE consumer = %s AND shards = %s", [self.consumer, shards]
            )

    def open_window(self, standing: Standing) -> Position:
        """Take the target snapshot. Must come before this transaction writes: its own xid would be missing from it."""
        # The order is the proof: a transaction born after `next_floor_xid` was read draws its ids after the standing
        # was read, and one visible in the target drew its ids before `ceiling` is read.
        position = standing.position
        target, next_floor_xid, ceiling = standing.now or self._row("SELECT * FROM public.hc_signals_target()")
        first = position.floor_id
        if self._may_have_been_open(position):
            late = {"seen": position.seen, "floor_xid": position.floor_xid, "target": target}
            oldest = self._row(_LATE, late)[0]
            first = first if oldest is None else min(first, oldest - 1)
        return replace(
            position,
            target=target,
            ceiling_id=ceiling,
            next_floor_id=standing.last_id - 1,
            next_floor_xid=next_floor_xid,
            last_id=first,
        )

    @staticmethod
    def _may_have_been_open(position: Position) -> bool:
        """Tell whether any transaction with an id was open at ``seen``; if not, nothing can come late."""
        _, xmax, in_progress = position.seen.split(":")
        return bool(in_progress) or xmax != position.floor_xid

    def page(self, position: Position, limit: int) -> tuple[list[Change], bool]:
        """Return up to ``limit`` changes of the open window, in order, and whether it may have more.

        Fewer if their images are large: together up to PAGE_BYTES, however many that are, at least one.
        """
        assert position.last_id is not None and position.ceiling_id is not None  # noqa: S101
        found = self._first_page
        if found and (found.target, found.limit) == (position.target, limit) and position.last_id == position.floor_id:
            return cut_page(found.rows, limit)
        with connections[self.using].cursor() as cursor:
            cursor.execute(*self.page_statement(position, limit))
            return cut_page(cursor.fetchall(), limit)

    def page_statement(self, position: Position, limit: int) -> tuple[str, dict[str, Any]]:
        """Return the statement by which :meth:`page` reads, with its parameters; its rows are for :func:`cut_page`."""
        window = {"seen": position.seen, "target": position.target, "ceiling": position.ceiling_id}
        return _PAGE, {**window, "after": position.last_id, "shard": self.shard, "shards": self.shards, "limit": limit}

    def close_window(self, position: Position) -> Position:
        """Everything in the window is done: the target becomes what is seen."""
        assert position.target and position.next_floor_id is not None and position.next_floor_xid  # noqa: S101
        return Position(
            seen=position.target,
            floor_id=max(0, position.next_floor_id),
            floor_xid=position.next_floor_xid,
            lost=position.lost,
            gap=position.gap,
        )

    def append(self, position: Position) -> None:
        """Append the position; older ones are pruned now and then, far from the end that is read.

        By chance and not by number: ids are shared, so one of two consumers could miss every thousandth for ever.
        """
        row = self._row(
            f"INSERT INTO public.hc_signals_position (consumer, shard, shards, {', '.join(_POSITION)}) "
            "VALUES (%s, %s, %s, %s::pg_snapshot, %s, %s::xid8, %s::pg_snapshot, %s, %s, %s::xid8, %s, %s, %s) "
            "RETURNING id",
            [
                self.consumer,
                self.shard,
                self.shards,
                position.seen,
                position.floor_id,
                position.floor_xid,
                position.target,
                position.ceiling_id,
                position.next_floor_id,
                position.next_floor_xid,
                position.last_id,
                position.lost,
                None if position.gap is None else json.dumps(position.gap),
            ],
        )
        if random.random() < PRUNE_SHARE:  # noqa: S311  (not for secrets)
            with connections[self.using].cursor() as cursor:
                cursor.execute(
                    "DELETE FROM public.hc_signals_position WHERE consumer = %s AND shard = %s AND id < %s",
                    [self.consumer, self.shard, row[0] - 1000],
                )


def _standing(found: Mapping[str, Any], now: tuple[Any, ...] | None = None) -> Standing:
    """Return what ``hc_signals_standing()`` has found."""
    position = found["position"]
    return Standing(
        position=Position(**{name: position[name] for name in _POSITION}) if position else Position(),
        is_new=position is None,
        layout=found["layout"],
        last_id=found["newest_id"],
        lost=found["lost"],
        is_idle=found["is_idle"],
        any_kept=found["any_kept"],
        any_due=found["any_due"],
        has_moved=bool(found["has_moved"]),
        now=now,
    )
