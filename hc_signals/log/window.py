"""Reads the log as the difference of two snapshots: opens a window, reads its pages, closes it.

``seen``: all changes visible in this snapshot are delivered. ``target``: the snapshot taken when a window opens. The
window is all that is visible in ``target`` and not in ``seen``, in pages by id. Ids alone would lose changes of
transactions that commit late. An xmin watermark would invert the order of a record's changes, and an unrelated open
transaction would delay it.
"""

from dataclasses import replace
from typing import Any

from hc_signals.log.change import Change, cut_page
from hc_signals.log.position import LogShard, Position, Standing
from hc_signals.postgres.query import row, rows

OPEN_AT_SEEN = """
    SELECT pg_snapshot_xip(%(seen)s::pg_snapshot)
    UNION ALL
    SELECT n::text::xid8 FROM generate_series(
        pg_snapshot_xmax(%(seen)s::pg_snapshot)::text::bigint, %(floor_xid)s::bigint - 1) n
"""
"""The transactions that were open at ``seen``: those in its list, and those from its xmax up to ``floor_xid``. The
xmax is one above the highest id that had *finished*; later ids may have been given out already."""

# Only transactions that were open at `seen` can have changes at or below the floor.
_LATE = f"""
SELECT min(late.id) FROM ({OPEN_AT_SEEN}) open (x), LATERAL (
    SELECT id FROM public.hc_signals_change WHERE xid BETWEEN open.x AND open.x ORDER BY xid, id LIMIT 1
) late WHERE pg_visible_in_snapshot(open.x, %(target)s::pg_snapshot)
"""
_PAGE = """
SELECT * FROM public.hc_signals_page(%(seen)s::pg_snapshot, %(target)s::pg_snapshot, %(after)s, %(ceiling)s, %(shard)s,
                                     %(shards)s, %(limit)s)
"""


def open_window(using: str, standing: Standing) -> Position:
    """Return the position with a new target snapshot.

    Open the window before the transaction writes. Otherwise the target calls the transaction's own id open, and the
    next window reads it late.
    """
    # The order is the proof. A transaction that began after `next_floor_xid` was read draws ids above `newest_id`,
    # which was read before. A transaction visible in the target drew its ids before `ceiling` is read.
    position = standing.position
    target, next_floor_xid, ceiling = standing.now or row(using, "SELECT * FROM public.hc_signals_target()")
    first = position.floor_id
    if position.begins_late:
        late = {"seen": position.seen, "floor_xid": position.floor_xid, "target": target}
        oldest = row(using, _LATE, late)[0]
        first = first if oldest is None else min(first, oldest - 1)
    return replace(
        position,
        target=target,
        ceiling_id=ceiling,
        next_floor_id=standing.newest_id - 1,
        next_floor_xid=next_floor_xid,
        last_id=first,
    )


def read_page(shard: LogShard, position: Position, limit: int) -> tuple[list[Change], bool]:
    """Return the next changes of the open window, in order, and whether it may have more.

    Args:
        limit: most changes. Large images make the page shorter, up to PAGE_BYTES together, but never empty.
    """
    return cut_page(rows(shard.using, *page_statement(shard, position, limit)), limit)


def page_statement(shard: LogShard, position: Position, limit: int) -> tuple[str, dict[str, Any]]:
    """Return the statement of :func:`read_page` and its parameters; its rows are for :func:`cut_page`."""
    assert position.last_id is not None and position.ceiling_id is not None  # noqa: S101
    window = {"seen": position.seen, "target": position.target, "ceiling": position.ceiling_id}
    return _PAGE, {**window, "after": position.last_id, "shard": shard.shard, "shards": shard.shards, "limit": limit}


def close_window(position: Position) -> Position:
    """Return the position after the whole window was delivered: the target becomes ``seen``."""
    assert position.target and position.next_floor_id is not None and position.next_floor_xid  # noqa: S101
    return Position(
        seen=position.target,
        floor_id=max(0, position.next_floor_id),
        floor_xid=position.next_floor_xid,
        lost=position.lost,
        gap=position.gap,
    )
