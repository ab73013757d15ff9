"""Wrong readers and sleepers: variants of the models in specs/, which the chaos run must detect, or its record."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

from django.db import connections, transaction

from hc_signals.delivery.shard import Shard
from hc_signals.log import claims, positions, window
from hc_signals.log.change import CHANGE_COLUMNS, SHARD, cut_page
from hc_signals.log.claims import Claim
from hc_signals.log.position import LogShard, Position, Standing
from hc_signals.postgres.query import row
from hc_signals.worker.bell_connection import BellConnection
from hc_signals.worker.doorbell import Doorbell


def id_cursor() -> None:
    """Read ``id > last``: loses changes that commit late."""
    _read_by_cursor(
        f"SELECT 0, id, {CHANGE_COLUMNS} FROM public.hc_signals_change WHERE id > %(after)s {{shard}} ORDER BY id"
    )


def xmin_watermark() -> None:
    """Read changes below the oldest open transaction, by (xid, id): inverts, and waits for other transactions."""
    _read_by_cursor(
        f"SELECT 0, id, {CHANGE_COLUMNS} FROM public.hc_signals_change "
        "WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) "
        "AND (xid, id) > (coalesce((SELECT xid FROM public.hc_signals_change WHERE id = %(after)s), '0'), %(after)s) "
        "{shard} ORDER BY xid, id"
    )


def floor_from_xmax() -> None:
    """Take the snapshot's xmax for the next xid: loses open transactions above the last finished one."""
    open_window = Claim.open_window

    def open_at_xmax(self: Claim) -> Position:
        position = open_window(self)
        return replace(position, next_floor_xid=str(position.target).split(":")[1])

    Claim.open_window = open_at_xmax  # type: ignore[method-assign]


def late_ones_ignored() -> None:
    """Begin each window at the floor: loses changes below it that commit late."""
    Position.begins_late = property(lambda self: False)  # type: ignore[method-assign,assignment]


def newest_after_target() -> None:
    """Read the highest id for the next floor after the target: loses ids that are drawn between the two."""
    open_window = Claim.open_window

    def open_late(self: Claim) -> Position:
        position = open_window(self)
        time.sleep(0.001)
        return replace(position, next_floor_id=_newest_id(self.shard.using) - 1)

    Claim.open_window = open_late  # type: ignore[method-assign]


def ceiling_before_target() -> None:
    """Take the highest id before the target as the ceiling: loses ids that are drawn between the two."""
    open_window = Claim.open_window

    def open_early(self: Claim) -> Position:
        return replace(open_window(self), ceiling_id=self.standing.newest_id)

    Claim.open_window = open_early  # type: ignore[method-assign]


def fresh_target() -> None:
    """Read each page of a window with a new target."""
    begin = Claim.__init__

    def begin_afresh(self: Claim, shard: LogShard, standing: Standing, **named: Any) -> None:
        begin(self, shard, standing, **named)
        if standing.position.target is not None:
            target, _, ceiling = row(shard.using, "SELECT * FROM public.hc_signals_target()")
            position = replace(standing.position, target=target, ceiling_id=ceiling)
            self.standing = replace(standing, position=position)

    Claim.__init__ = begin_afresh  # type: ignore[method-assign]


def no_claim() -> None:
    """Deliver without a claim: two workers deliver the same changes."""
    claims.claim_with_page = lambda shard, limit: Claim(shard, positions.read_standing(shard))


def standing_before_claim() -> None:
    """Read the position before the shard is claimed: repeats what the last owner has delivered."""
    claim_with_page = claims.claim_with_page

    def claim_late(shard: LogShard, limit: int) -> Claim | None:
        standing = positions.read_standing(shard)
        time.sleep(0.002)
        return claim_with_page(shard, limit) and Claim(shard, standing)

    claims.claim_with_page = claim_late


def position_first() -> None:
    """Commit the position before the changes are delivered: loses them if the worker dies."""
    deliver = Shard._deliver

    def deliver_late(self: Shard, claim: Claim, batch: Any, position: Position, *args: Any) -> int:
        behind = replace(position, last_id=batch.changes[-1].id) if batch.changes else position
        claim.append(behind if batch.has_more else claim.close_window(position))
        connections[self.log.using]._commit()
        return deliver(self, claim, batch, position, *args)

    Shard._deliver = deliver_late  # type: ignore[method-assign]


def effects_first() -> None:
    """Commit what receivers wrote before the position: repeats it if the worker dies."""
    append = Claim.append

    def append_late(self: Claim, position: Position, heard: Any = None) -> None:
        if self.standing.layout is None:  # the first position
            append(self, position, heard)
        else:
            transaction.on_commit(lambda: append(self, position), using=self.shard.using)

    Claim.append = append_late  # type: ignore[method-assign]


def position_outside_claim() -> None:
    """Store the position in another session than that of the claim; a difference only if ``ATOMIC`` is False."""

    def append_outside(self: Claim, position: Position, heard: Any = None) -> None:
        positions.append(self.shard, position, heard, partial(row, self.shard.using))

    Claim.append = append_outside  # type: ignore[method-assign]


def layout_not_checked() -> None:
    """Deliver although the consumer has another number of shards now."""
    Shard._refusal = lambda self, standing: None  # type: ignore[method-assign,assignment]


def count_without_locks() -> None:
    """Count lost statements whose transaction is open: the receiver reads the table too early."""
    standing_of = positions.standing_of

    def standing_at_once(*args: Any) -> Standing:
        (lost,) = row("default", "SELECT last_value - (NOT is_called)::int FROM public.hc_signals_lost_seq")
        return replace(standing_of(*args), lost=lost)

    positions.standing_of = standing_at_once


def no_second_read() -> None:
    """Sleep without a read after the bell's lock was taken: a change that was committed before wakes no worker."""
    sleep = Doorbell.sleep

    def sleep_at_once(self: Doorbell, is_waiting: Any, *args: Any) -> None:
        reads = iter([False])
        sleep(self, lambda: next(reads, None) is None and is_waiting(), *args)

    Doorbell.sleep = sleep_at_once  # type: ignore[method-assign]


def clear_after_read() -> None:
    """Drop the notifications that have arrived before the wait."""
    become_listener = Doorbell._become_listener

    def clear(self: Doorbell, rings: int) -> bool:
        listens = become_listener(self, rings)
        if listens and self._connection.raw is not None:
            self._connection.raw.execute("SELECT")
            list(self._connection.raw.notifies(timeout=0))
        return listens

    Doorbell._become_listener = clear  # type: ignore[method-assign]


def lock_not_watched() -> None:
    """Sleep beside the process that holds the lock, and never try the lock again."""

    def listen(self: Doorbell, seconds: float) -> None:
        connection: BellConnection = self._connection
        if connection.receive(seconds) | connection.ping_if_due():
            self._wake_all()

    Doorbell._listen = listen  # type: ignore[method-assign]


def _newest_id(using: str) -> int:
    return int(row(using, "SELECT last_value FROM public.hc_signals_change_id_seq")[0])


def _read_by_cursor(sql: str) -> None:
    """Follow one change after another instead of the difference of two snapshots."""
    open_window, close = Claim.open_window, Claim.close_window
    highest: dict[LogShard, int] = {}

    def open_at_cursor(self: Claim) -> Position:
        return replace(open_window(self), last_id=self.standing.position.floor_id)

    def read_page(shard: LogShard, position: Position, limit: int) -> Any:
        params = {"after": position.last_id, "limit": limit, "shard": shard.shard, "shards": shard.shards}
        with connections[shard.using].cursor() as cursor:
            cursor.execute(sql.format(shard=SHARD) + " LIMIT %(limit)s", params)
            changes, has_more = cut_page(cursor.fetchall(), limit)
        highest[shard] = changes[-1].id if changes else position.last_id or 0
        return changes, has_more

    def page(self: Claim, position: Position, limit: int) -> Any:
        return read_page(self.shard, position, limit)

    def close_window(self: Claim, position: Position) -> Position:
        return replace(close(self, position), floor_id=highest[self.shard])

    window.read_page = read_page
    Claim.open_window = open_at_cursor  # type: ignore[method-assign]
    Claim.page = page  # type: ignore[method-assign]
    Claim.close_window = close_window  # type: ignore[method-assign]
