"""What a consumer has not been given yet: how many changes, and since when; counted up to a limit."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connections, transaction

from hc_signals.log.changelog import OPEN_AT_SEEN, ChangeLog
from hc_signals.log.rows import SHARD_NUMBER
from hc_signals.postgres.moments import aware

COUNT_LIMIT = 100_000
"""No more changes than this are counted: a look at a backlog of millions should not be felt."""

_COUNT = """
SELECT count(*), min(captured_at) FROM (
    SELECT captured_at FROM {source} WHERE {which} {shard} ORDER BY id LIMIT %(limit)s
) undelivered
"""
# As a CASE, of which the planner thinks that half of the rows meet it. Of the comparison it thinks that hardly any do,
# and would read and sort the whole log for the first few.
_SHARD = f"AND CASE WHEN {SHARD_NUMBER} = %(shard)s THEN true ELSE false END"
_LOG = "public.hc_signals_change"
_REST_OF_WINDOW = """
    id > %(last_id)s AND id <= %(ceiling)s
    AND (xid >= pg_snapshot_xmax(%(seen)s::pg_snapshot)
         OR xid = ANY (ARRAY(SELECT pg_snapshot_xip(%(seen)s::pg_snapshot))))
    AND pg_visible_in_snapshot(xid, %(target)s::pg_snapshot)
"""
# What is not in `seen`: of transactions born later, in order, by the index of the ids; and of those that were open.
_BORN_LATER = "id > %(floor_id)s AND xid >= %(floor_xid)s::xid8"
# One after the other: of a list the planner thinks that it names half of the log, and reads all of it.
_OPEN_THEN = f"""({OPEN_AT_SEEN}) open (x), LATERAL (
    SELECT * FROM public.hc_signals_change WHERE xid BETWEEN open.x AND open.x {{shard}}
    ORDER BY xid, id LIMIT %(limit)s
) of_one
"""


@dataclass(frozen=True)
class Backlog:
    """Undelivered changes."""

    count: int
    """At most one more than ``limit``."""
    since: datetime | None
    """When the oldest of those counted was captured; None if there are none."""
    limit: int = COUNT_LIMIT
    """How far it was counted."""

    def __str__(self) -> str:
        return f"more than {self.limit}" if self.count > self.limit else str(self.count)


def backlog(logs: Iterable[ChangeLog], limit: int | None = None) -> Backlog:
    """Return what is committed and not delivered in these shards of a consumer, counted up to ``limit`` changes.

    Args:
        limit: default: COUNT_LIMIT.
    """
    limit = COUNT_LIMIT if limit is None else limit
    count, since = 0, None
    for log in logs:
        for source, which, params in _parts(log):
            if count <= limit:
                found, oldest = _count(log, source, which, {**params, "limit": limit + 1 - count})
                count += found
                since = min(filter(None, (since, oldest)), default=None)
    return Backlog(count, since, limit)


def total(backlogs: Iterable[Backlog]) -> Backlog:
    """Return several as one: not counted to the end where one of them is not."""
    found = list(backlogs)
    since = min((each.since for each in found if each.since is not None), default=None)
    count, counted = sum(each.count for each in found), sum(min(each.count, each.limit) for each in found)
    return Backlog(count, since, counted)


def _parts(log: ChangeLog) -> list[tuple[str, str, dict[str, Any]]]:
    parts, position = [], log.standing().position
    seen, floor_id, floor_xid = position.seen, position.floor_id, position.floor_xid
    if position.target is not None:
        window = {"seen": seen, "target": position.target, "last_id": position.last_id, "ceiling": position.ceiling_id}
        parts.append((_LOG, _REST_OF_WINDOW, window))
        closed = log.close_window(position)
        seen, floor_id, floor_xid = closed.seen, closed.floor_id, closed.floor_xid
    parts.append((_OPEN_THEN, "true", {"seen": seen, "floor_xid": floor_xid}))
    parts.append((_LOG, _BORN_LATER, {"floor_id": floor_id, "floor_xid": floor_xid}))
    return parts


def _count(log: ChangeLog, source: str, which: str, params: dict[str, Any]) -> tuple[int, datetime | None]:
    with transaction.atomic(using=log.using), connections[log.using].cursor() as cursor:
        cursor.execute("SET LOCAL jit = off")  # to compile it takes longer than to count
        cursor.execute(
            _COUNT.format(source=source.format(shard=_SHARD), which=which, shard=_SHARD),
            {**params, "shard": log.shard, "shards": log.shards},
        )
        count, oldest = cursor.fetchone()
        return count, aware(oldest)
