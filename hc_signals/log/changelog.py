"""Reads the log as the difference of two snapshots and appends positions; the only reader of the log.

``seen``: everything visible in this snapshot is done. ``target``: taken when a window opens. The window is what is
visible in ``target`` and not in ``seen``, paged by id. Ids alone would lose rows of transactions that commit late; an
xmin watermark would invert the order of a record's changes and stall behind strangers.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction

from hc_signals.events import Change
from hc_signals.locks import CLAIMS, UNTOLD

PAGE_BYTES = 8_000_000
"""Images of one page together: what the worker has in memory at a time is several times that."""

IDLE_IDS = 1000
IDLE_SECONDS = 600.0
"""After so many ids, or after this time, a shard without changes stores its position all the same. Left where it is, it
would hold up the rotation of the log, and each look would pass over all that the others have done."""
CONFIRM_SECONDS = 0.2
"""After so long a worker makes sure that its session, and with it its claim, has not ended: see ``confirm``."""
PRUNE_SHARE = 0.01
"""Of the appended positions: how many take old ones away."""


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
    now: tuple[Any, ...] | None = None
    """The snapshot of right after, if it was taken in the same round trip: see ``open_window``."""


_TRY_CLAIM = "SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))"
_POSITION_COLUMNS = "seen, floor_id, floor_xid, target, ceiling_id, next_floor_id, next_floor_xid, last_id, lost, gap"
CHANGE_COLUMNS = (
    "xid::text, captured_at AT TIME ZONE 'UTC', table_name, operation, origin, record_key, record_id, changed, note, "
    "(SELECT epoch FROM public.hc_signals_control)"
)
"""Of the log and of kept deliveries: what a :class:`Change` is made of, after its id."""

# Statements whose changes are not in the log. One beyond those told counts when its transaction has ended, which holds
# this lock until then (see hc_signals_lose()): whoever heard of it now and read the table again would not see it.
_LOST = f"""
CASE WHEN NOT l.is_called THEN 0
     WHEN l.last_value > coalesce(p.lost, 0) AND EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory'
        AND classid = {UNTOLD[0]} AND objid = {UNTOLD[1]} AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode = 'ShareLock' AND granted
     ) THEN coalesce(p.lost, 0)
     ELSE l.last_value END
"""
_IDLE = f"""
    coalesce(p.floor_xid = '1'::xid8 OR s.last_value - p.floor_id > 1 AND p.created_at < clock_timestamp()
        - make_interval(secs => CASE WHEN s.last_value - p.floor_id > {IDLE_IDS} THEN 1 ELSE {IDLE_SECONDS} END), false)
"""

KEPT = """
EXISTS (SELECT FROM public.hc_signals_delivery WHERE consumer = %(consumer)s AND state IN ('retry', 'parked')),
EXISTS (SELECT FROM public.hc_signals_delivery
        WHERE consumer = %(consumer)s AND state = 'retry' AND next_attempt_at <= clock_timestamp())
"""
"""Whether the consumer has any delivery that waits, and any whose time has come: both seldom."""

# In one statement after the claim, so that it sees what the last holder of the claim has committed.
_STANDING = f"""
SELECT p.seen::text, p.floor_id, p.floor_xid::text, p.target::text, p.ceiling_id, p.next_floor_id,
       p.next_floor_xid::text, p.last_id, p.lost, p.gap, p.id IS NULL,
       (SELECT shards FROM public.hc_signals_position WHERE consumer = %(consumer)s ORDER BY id DESC LIMIT 1),
       s.last_value, {_LOST}, {_IDLE}, {KEPT}
FROM public.hc_signals_change_id_seq s CROSS JOIN public.hc_signals_lost_seq l LEFT JOIN LATERAL (
    SELECT * FROM public.hc_signals_position WHERE consumer = %(consumer)s AND shard = %(shard)s
    ORDER BY id DESC LIMIT 1
) p ON true
"""

# age() counts from the transaction id that will be given out next: read without taking one. The snapshot is older than
# what is read while the statement runs, so last_value is a ceiling for everything visible in it.
_TARGET = """
SELECT pg_current_snapshot()::text,
       (xmax + ((age('3'::xid)::bigint + 3 - xmax) % 4294967296 + 4294967296) % 4294967296)::text,
       (SELECT last_value FROM public.hc_signals_change_id_seq)
FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax) now
"""

# The shards in which a page would find something, or whose position is old: two probes of the index each. ORDER BY
# holds the planner to the index: it expects that xid >= xmax is true for many rows, so it would read all for the one
# that is not there. BETWEEN for an equality, for the same reason: with one, ORDER BY id alone would do, and a walk of
# the ids would look cheap where many changes are of one transaction.
WAITING = f"""
SELECT n.shard
FROM generate_series(0, %(shards)s - 1) AS n (shard) CROSS JOIN public.hc_signals_change_id_seq s LEFT JOIN LATERAL (
    SELECT * FROM public.hc_signals_position WHERE consumer = %(consumer)s AND shard = n.shard
    ORDER BY id DESC LIMIT 1
) p ON true
WHERE p.id IS NULL OR p.target IS NOT NULL OR {_IDLE}
   OR n.shard = 0 AND (p.gap IS NOT NULL OR p.lost < (SELECT {_LOST} FROM public.hc_signals_lost_seq l))
   OR (SELECT true FROM public.hc_signals_change WHERE xid >= pg_snapshot_xmax(p.seen) {{shard}}
       ORDER BY xid, id LIMIT 1)
   OR EXISTS (SELECT FROM pg_snapshot_xip(p.seen) open (x), LATERAL (
       SELECT FROM public.hc_signals_change WHERE xid BETWEEN open.x AND open.x {{shard}}
       ORDER BY xid, id LIMIT 1) late)
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

# The size of a compressed image is not known without unpacking it.
IMAGE_BYTES = """
       CASE WHEN pg_column_compression(old) IS NULL THEN coalesce(pg_column_size(old), 0)
            ELSE octet_length(old::text) END
     + CASE WHEN pg_column_compression(new) IS NULL THEN coalesce(pg_column_size(new), 0)
            ELSE octet_length(new::text) END
"""
_NEXT_ID = "SELECT (SELECT id FROM public.hc_signals_change WHERE id > %s ORDER BY id LIMIT 1)"
_PAGE = f"""
SELECT {IMAGE_BYTES}, id, {CHANGE_COLUMNS}
FROM public.hc_signals_change
WHERE id > %(after)s AND id <= %(ceiling)s
  AND (xid >= pg_snapshot_xmax(%(seen)s::pg_snapshot)
       OR xid = ANY (ARRAY(SELECT pg_snapshot_xip(%(seen)s::pg_snapshot))))
  AND pg_visible_in_snapshot(xid, %(target)s::pg_snapshot)
  {{shard}}
ORDER BY id LIMIT %(limit)s
"""
# The target and the first page of its window at once: what the statement sees is what is visible in its snapshot.
_TARGET_AND_PAGE = """
SELECT now.*, page.* FROM ({target}) now LEFT JOIN LATERAL ({page}) page ON true ORDER BY page.id
"""
SHARD_NUMBER = (
    "(hashtextextended(table_name || ' ' || coalesce(record_id, record_key, ''), 0) & 9223372036854775807) "
    "%% %(shards)s"
)
SHARD = f"AND {SHARD_NUMBER} = %(shard)s"
"""Condition on a table with ``table_name``, ``record_id``, ``record_key``: the record belongs to the shard.

By the sfid where there is one: a record that is deleted and comes back has another key, and still its order counts.
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
        at = replace(self._expected, last_id=self._expected.floor_id, target="")
        sql, params = self._range(at, at.floor_id, at.floor_id + self._first_span(self._limit), self._limit)
        page = sql.replace("%(target)s::pg_snapshot", "pg_current_snapshot()")
        return _TARGET_AND_PAGE.format(target=_TARGET.replace("%", "%%"), page=page), params

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
            page = self.page_of(self._found[2], position, limit)
            if page is not None:
                return page
        self._limit = limit
        rows: list[tuple[Any, ...]] = []
        after, first_span = position.last_id, self._first_span(limit)
        span = first_span
        # In ranges: with statistics from before a large load the planner expects next to nothing beyond `after`, and
        # would read and sort the whole backlog for each page.
        while len(rows) < limit and after < position.ceiling_id:
            upto = min(after + span, position.ceiling_id)
            with connections[self.using].cursor() as cursor:
                cursor.execute(*self._range(position, after, upto, limit - len(rows)))
                found = cursor.fetchall()
            rows += found
            after, span = upto, 8 * span
            if not found and after < position.ceiling_id:
                # Ids of buckets that were emptied: a hole may be millions wide, and what lies behind it dense.
                behind = self._row(_NEXT_ID, [after])[0] or position.ceiling_id + 1
                after, span = behind - 1, first_span if behind - after > span else span
        return cut_page(rows, limit)

    def _first_span(self, limit: int) -> int:
        return 2 * limit * self.shards

    def _range(self, position: Position, after: int, upto: int, limit: int) -> tuple[str, dict[str, Any]]:
        of_window = {"seen": position.seen, "target": position.target, "shard": self.shard, "shards": self.shards}
        sql = _PAGE.format(shard=SHARD if self.shards > 1 else "")
        return sql, {**of_window, "after": after, "ceiling": upto, "limit": limit}

    def first_range(self, position: Position, limit: int) -> tuple[str, dict[str, Any]]:
        """Return the statement, with its parameters, by which :meth:`page` begins; mostly it is all that it needs."""
        assert position.last_id is not None and position.ceiling_id is not None  # noqa: S101
        upto = min(position.last_id + self._first_span(limit), position.ceiling_id)
        return self._range(position, position.last_id, upto, limit)

    def page_of(self, rows: list[tuple[Any, ...]], position: Position, limit: int) -> tuple[list[Change], bool] | None:
        """Return the page that the rows of :meth:`first_range` are, None if they are only a part of it."""
        assert position.last_id is not None and position.ceiling_id is not None  # noqa: S101
        is_whole = len(rows) == limit or position.last_id + self._first_span(limit) >= position.ceiling_id
        return cut_page(rows, limit) if is_whole else None

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


def cut_page(rows: list[tuple[Any, ...]], limit: int) -> tuple[list[Change], bool]:
    """Return the changes of rows that begin with IMAGE_BYTES, up to PAGE_BYTES, and whether there may be more."""
    size = 0
    for count, row in enumerate(rows):
        size += row[0]
        if count and size > PAGE_BYTES:
            return [Change._make(row[1:]) for row in rows[:count]], True
    return [Change._make(row[1:]) for row in rows], len(rows) == limit
