"""Wrong readers: the chaos run and the state machine must detect each of them."""

from dataclasses import replace
from typing import Any

from django.db import connections

from hc_signals.log import window
from hc_signals.log.change import CHANGE_COLUMNS, SHARD, cut_page
from hc_signals.log.claims import Claim
from hc_signals.log.position import LogShard, Position


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
