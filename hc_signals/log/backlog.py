"""Counts the undelivered changes of a consumer, up to a limit, and finds the oldest of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction

from hc_signals.log.change import SHARD_NUMBER
from hc_signals.log.position import LogShard
from hc_signals.log.positions import read_standing
from hc_signals.log.window import OPEN_AT_SEEN, close_window
from hc_signals.postgres.moments import aware
from hc_signals.postgres.query import execute, row

COUNT_LIMIT = 100_000
"""Most changes that are counted, so that a backlog of millions costs little."""

# CASE makes the planner estimate 50 % selectivity. With the bare comparison it estimates almost none and sorts the
# whole log.
_IN_SHARD = f"CASE WHEN {SHARD_NUMBER} = %(shard)s THEN true ELSE false END"
_COUNT = "SELECT count(*), min(captured_at) FROM ({undelivered}) undelivered"
_REST_OF_WINDOW = f"""
SELECT captured_at FROM public.hc_signals_change
WHERE id > %(last_id)s AND id <= %(ceiling)s
  AND (xid >= pg_snapshot_xmax(%(seen)s::pg_snapshot)
       OR xid = ANY (ARRAY(SELECT pg_snapshot_xip(%(seen)s::pg_snapshot))))
  AND pg_visible_in_snapshot(xid, %(target)s::pg_snapshot) AND {_IN_SHARD}
ORDER BY id LIMIT %(limit)s
"""
# Probe one xid at a time: given a list, the planner expects half the log and scans all of it.
_OPEN_AT_SEEN = f"""
SELECT captured_at FROM ({OPEN_AT_SEEN}) open (x), LATERAL (
    SELECT id, captured_at FROM public.hc_signals_change WHERE xid BETWEEN open.x AND open.x AND {_IN_SHARD}
    ORDER BY xid, id LIMIT %(limit)s
) of_one
ORDER BY id LIMIT %(limit)s
"""
_BEGUN_LATER = f"""
SELECT captured_at FROM public.hc_signals_change
WHERE id > %(floor_id)s AND xid >= %(floor_xid)s::xid8 AND {_IN_SHARD}
ORDER BY id LIMIT %(limit)s
"""


@dataclass(frozen=True)
class Backlog:
    """Undelivered changes."""

    count: int
    """At most one more than ``limit``."""
    since: datetime | None
    """When the oldest counted change was captured; None if there is none."""
    limit: int = COUNT_LIMIT
    """Where the count ended."""

    def __str__(self) -> str:
        return f"more than {self.limit}" if self.count > self.limit else str(self.count)


def backlog(shards: Iterable[LogShard], limit: int | None = None) -> Backlog:
    """Return the undelivered changes of these shards, counted up to one more than ``limit``, by default COUNT_LIMIT."""
    limit = COUNT_LIMIT if limit is None else limit
    count, since = 0, None
    for shard in shards:
        for undelivered, params in _parts(shard):
            if count <= limit:
                found, oldest = _count(shard, undelivered, {**params, "limit": limit + 1 - count})
                count += found
                since = min(filter(None, (since, oldest)), default=None)
    return Backlog(count, since, limit)


def total(backlogs: Iterable[Backlog]) -> Backlog:
    """Return the sum of backlogs; it is cut short if any of them is."""
    found = list(backlogs)
    since = min((each.since for each in found if each.since is not None), default=None)
    count, counted = sum(each.count for each in found), sum(min(each.count, each.limit) for each in found)
    return Backlog(count, since, counted)


def _parts(shard: LogShard) -> list[tuple[str, dict[str, Any]]]:
    """Return the queries of undelivered changes: the open window's rest, and all that is not in ``seen`` behind it."""
    parts: list[tuple[str, dict[str, Any]]] = []
    position = read_standing(shard).position
    if position.target is not None:
        window: dict[str, Any] = {"seen": position.seen, "target": position.target}
        parts.append((_REST_OF_WINDOW, {**window, "last_id": position.last_id, "ceiling": position.ceiling_id}))
        position = close_window(position)
    floor: dict[str, Any] = {"floor_id": position.floor_id, "floor_xid": position.floor_xid}
    parts.append((_OPEN_AT_SEEN, {"seen": position.seen, **floor}))
    parts.append((_BEGUN_LATER, floor))
    return parts


def _count(shard: LogShard, undelivered: str, params: dict[str, Any]) -> tuple[int, datetime | None]:
    with transaction.atomic(using=shard.using):
        execute(shard.using, "SET LOCAL jit = off")  # compiling takes longer than counting
        params = {**params, "shard": shard.shard, "shards": shard.shards}
        count, oldest = row(shard.using, _COUNT.format(undelivered=undelivered), params)
        return count, aware(oldest)
