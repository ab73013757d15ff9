"""Reads the log as the difference of two snapshots and appends positions; the only reader of the log.

``seen``: everything visible in this snapshot is done. ``target``: taken when a window opens. The window is what is
visible in ``target`` and not in ``seen``, paged by id. Ids alone would lose rows of transactions that commit late; an
xmin watermark would invert the order of a record's changes and stall behind strangers.
"""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction

from hc_signals.events import Change
from hc_signals.locks import CLAIMS
from hc_signals.log.position import Position, Standing
from hc_signals.log.rows import CHANGE_COLUMNS, IMAGE_BYTES, cut_page

CONFIRM_SECONDS = 0.2
"""After so long a worker makes sure that its session, and with it its claim, has not ended: see ``confirm``."""
PRUNE_SHARE = 0.01
"""Of the appended positions: how many take old ones away."""


_TRY_CLAIM = "SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))"
_POSITION_COLUMNS = "seen, floor_id, floor_xid, target, ceiling_id, next_floor_id, next_floor_xid, last_id, lost, gap"
# In one statement after the claim, so that it sees what the last holder of the claim has committed.
_STANDING = """
SELECT (s.newest).seen::text, (s.newest).floor_id, (s.newest).floor_xid::text, (s.newest).target::text,
       (s.newest).ceiling_id, (s.newest).next_floor_id, (s.newest).next_floor_xid::text, (s.newest).last_id,
       (s.newest).lost, (s.newest).gap, (s.newest).id IS NULL,
       s.layout, s.newest_id, s.lost, s.is_idle, s.any_kept, s.any_due
FROM public.hc_signals_standing(%(consumer)s, %(shard)s) s
"""

# age() counts from the transaction id that will be given out next: read without taking one. The snapshot is older than
# what is read while the statement runs, so last_value is a ceiling for everything visible in it.
_TARGET = """
SELECT pg_current_snapshot()::text,
       (xmax + ((age('3'::xid)::bigint + 3 - xmax) % 4294967296 + 4294967296) % 4294967296)::text,
       (SELECT last_value FROM public.hc_signals_change_id_seq)
FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax) now
"""

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

_PAGE = f"""
SELECT {IMAGE_BYTES}, id, {CHANGE_COLUMNS}
FROM public.hc_signals_page({{window}}, %(shard)s, %(shards)s, %(limit)s)
"""
_OF_WINDOW = "%(seen)s::pg_snapshot, %(target)s::pg_snapshot, %(after)s, %(ceiling)s"
# The target and the first page of its window at once: what is visible in the statement's own snapshot.
_TARGET_AND_PAGE = f"""
SELECT now.*, page.* FROM ({{target}}) now (target, next_floor_xid, ceiling_id) LEFT JOIN LATERAL (
    {_PAGE.format(window="%(seen)s::pg_snapshot, target::pg_snapshot, %(after)s, ceiling_id")}
) page ON true ORDER BY page.id
"""


class ChangeLog:
    """The log of one database, as one consumer sees one shard of it. All calls belong inside one transaction."""

    def __init__(self, using: str, consumer: str, shard: int = 0, shards: int = 1) -> None:
        self.using, self.consumer, self.shard, self.shards = using, consumer, shard, shards
        self.opened: str | None = None
        """Target of the last window that was opened through this object."""
        self.finished = 0
        """How many windows were both opened and finished through this object."""
        self._looked: tuple[tuple[Any, ...], list[tuple[Any, ...]]] | None = None
        self._expected: Position | None = None
        """The position that was appended last, if it left no window open: mostly the next look finds it."""
        self._limit = 0
        self._found: tuple[str, int, list[tuple[Any, ...]]] | None = None
        """Rows that were read with a target, up to which limit."""
        self._stood: Position | None = None
        self._holder: Any = None
        self._confirmed_at = 0.0

    @property
    def _name(self) -> str:
        return f"{self.consumer} {self.shard}"

    def _row(self, sql: str, params: Any = None) -> Any:
        with connections[self.using].cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchone()

    def _claim_and_look(self) -> bool:
        """Claim the shard and take the first looks at it, in one round trip with the beginning of the transaction.

        Each statement has a snapshot of its own, taken after the one before it has ended: as if they were sent one by
        one.
        """
        connection: Any = connections[self.using]
        statements = (
            (_TRY_CLAIM, [CLAIMS, self._name]),
            (_STANDING, {"consumer": self.consumer, "shard": self.shard}),
            self._target_and_page() or (_TARGET, None),
        )
        cursors = [connection.cursor() for _ in statements]
        with connection.wrap_database_errors, connection.connection.pipeline():
            for cursor, (sql, params) in zip(cursors, statements, strict=True):
                cursor.execute(sql, params)
        claimed, standing, now = cursors
        self._looked = standing.fetchone(), now.fetchall()
        return bool(claimed.fetchone()[0])

    def _target_and_page(self) -> tuple[str, dict[str, Any]] | None:
        """Return the statement that opens a window and reads its first page; None where more must be known first."""
        if self._expected is None or self._may_have_been_open(self._expected):
            return None
        sql, params = _TARGET_AND_PAGE.format(target=_TARGET.replace("%", "%%")), self._of_page(self._limit)
        return sql, {**params, "seen": self._expected.seen, "after": self._expected.floor_id}

    def _of_page(self, limit: int) -> dict[str, Any]:
        return {"shard": self.shard, "shards": self.shards, "limit": limit}

    def claim(self, wait: bool = False) -> bool:
        """Claim the shard until the transaction ends: a dead worker's claim dies with its connection.

        Args:
            wait: until whoever has it is done with its page.
        """
        self._looked = None
        key = [CLAIMS, self._name]
        if wait:
            self._row("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", key)
            return True
        return bool(self._row(_TRY_CLAIM, key)[0])

    @contextmanager
    def claimed(self, atomic: bool) -> Iterator[bool]:
        """Claim the shard for one page, if it is free; yield whether it was.

        Args:
            atomic: in a transaction that spans the page; else until the end of the block, or of the connection.
        """
        if atomic:
            with transaction.atomic(using=self.using):
                yield self._claim_and_look()
            return
        is_free = self._claim_session()
        try:
            yield is_free
        finally:
            self._holder = None
            if is_free:
                with suppress(DatabaseError, InterfaceError):  # then the claim has ended with the connection
                    self._row("SELECT pg_advisory_unlock(%s, hashtext(%s))", [CLAIMS, self._name])

    def _claim_session(self) -> bool:
        is_free = bool(self._row("SELECT pg_try_advisory_lock(%s, hashtext(%s))", [CLAIMS, self._name])[0])
        self._holder = connections[self.using].connection
        return is_free

    def confirm(self) -> None:
        """Make sure that the claim is still ours: before more is told to receivers whose effects nobody takes back.

        A process that stood still, or was cut off, goes on where another has taken over. Outside a transaction a
        receiver may have closed the connection: the shard is claimed again, if nobody has moved the position meanwhile.

        Raises:
            DatabaseError, InterfaceError: the claim is lost.
        """
        if self._holder is not None and connections[self.using].connection is not self._holder:
            stood = self._stood
            if not self._claim_session() or self.standing().position != stood:
                raise OperationalError("another worker has delivered since a receiver closed the connection")
        if time.monotonic() > self._confirmed_at + CONFIRM_SECONDS:
            self._row("SELECT 1")
            self._confirmed_at = time.monotonic()

    def standing(self) -> Standing:
        """Return how things stand, the very beginning for a consumer that has no position. After the claim."""
        looked, self._looked = self._looked, None
        row: Any = looked[0] if looked else self._row(_STANDING, {"consumer": self.consumer, "shard": self.shard})
        now = looked[1][0][:3] if looked else None
        self._found = None
        is_new, *told = row[10:]
        self._stood = position = Position() if is_new else Position(*row[:10])
        self._confirmed_at = time.monotonic()
        if now and looked and len(looked[1][0]) > len(now) and position == self._expected:
            # Of an empty page the join leaves one row of nothing.
            self._found = now[0], self._limit, [row[3:] for row in looked[1] if row[3] is not None]
        return replace(Standing(position, is_new, *told), now=now)

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
        target, next_floor_xid, ceiling = standing.now or self._row(_TARGET)
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
        if self._found and self._found[:2] == (position.target, limit) and position.last_id == position.floor_id:
            return cut_page(self._found[2], limit)
        self._limit = limit
        with connections[self.using].cursor() as cursor:
            cursor.execute(*self.page_statement(position, limit))
            return cut_page(cursor.fetchall(), limit)

    def page_statement(self, position: Position, limit: int) -> tuple[str, dict[str, Any]]:
        """Return the statement by which :meth:`page` reads, with its parameters; its rows are for :func:`cut_page`."""
        of_window = {"seen": position.seen, "target": position.target, "after": position.last_id}
        return _PAGE.format(window=_OF_WINDOW), {**of_window, "ceiling": position.ceiling_id, **self._of_page(limit)}

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
        self._expected = position if position.target is None else None
        row = self._row(
            f"INSERT INTO public.hc_signals_position (consumer, shard, shards, {_POSITION_COLUMNS}) "
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
