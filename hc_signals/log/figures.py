"""Figures of the log for hc_status, the metrics and the admin, and queries for the pages of the admin."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from hc_signals.log.limit import newest_bucket
from hc_signals.log.rotation import filled
from hc_signals.postgres.moments import aware_row
from hc_signals.postgres.query import row, rows

_STORED_AT = "SELECT consumer, shard, created_at FROM public.hc_signals_newest_position"
_UNREPORTED = """
SELECT CASE WHEN l.is_called THEN l.last_value ELSE 0 END - coalesce(
    (SELECT min(lost) FROM public.hc_signals_newest_position WHERE shard = 0), 0)
FROM public.hc_signals_lost_seq l
"""
# OFFSET 0 makes the server read the newest rows first; else the planner may scan the whole log for gaps.
_GAPS = """
SELECT table_name, coalesce(note ->> 'cause', lower(operation)), count(*), max(captured_at) FROM (
    SELECT table_name, operation, note, captured_at FROM public.hc_signals_change ORDER BY id DESC LIMIT %s OFFSET 0
) newest WHERE operation IN ('GAP', 'TRUNCATE') AND captured_at > %s GROUP BY 1, 2 ORDER BY 4 DESC
"""
# Each consumer has its own row of such a gap.
_GAPS_OF_ALL = """
SELECT NULL, cause, max(number), max(newest) FROM (
    SELECT consumer, gap ->> 'cause' AS cause, count(DISTINCT coalesce(gap ->> 'until', id::text)) AS number,
           max(created_at) AS newest
    FROM public.hc_signals_position WHERE gap IS NOT NULL AND created_at > %s GROUP BY 1, 2
) each GROUP BY cause ORDER BY 4 DESC
"""
_OLDEST = "SELECT captured_at FROM public.hc_signals_change_{bucket} ORDER BY id LIMIT 1"
# The log has no index of times, and ids are in the order of capture but for the odd neighbours: halve the ids.
_ID_AT = """
WITH RECURSIVE half (low, high) AS (
    SELECT min(id), max(id) + 1 FROM public.hc_signals_change
    UNION ALL
    SELECT CASE WHEN p.captured_at < %(moment)s THEN p.id + 1 ELSE low END,
           CASE WHEN p.captured_at < %(moment)s THEN high ELSE (low + high) / 2 END
    FROM half LEFT JOIN LATERAL (
        SELECT id, captured_at FROM public.hc_signals_change WHERE id >= (low + high) / 2 ORDER BY id LIMIT 1
    ) p ON true
    WHERE low < high
)
SELECT high FROM half WHERE low >= high LIMIT 1
"""
_TIMES = """
SELECT (SELECT captured_at FROM public.hc_signals_change WHERE id >= %(lowest)s ORDER BY id LIMIT 1),
       (SELECT captured_at FROM public.hc_signals_change WHERE id <= %(highest)s ORDER BY id DESC LIMIT 1)
"""
# The values of one page of changes may take megabytes: the server cuts them.
_SUMMARY = """
SELECT c.id, name, left(c.old->>name, 41),
    left(coalesce(c.new->>name, public.hc_signals_value(c.layout, c.image, name)), 41), cardinality(c.changed) - 3
FROM public.hc_signals_change c, unnest(c.changed[1:3]) name WHERE c.id = ANY(%s)
"""

Summary = tuple[str, str | None, str | None, int]
"""A changed column, the first 41 characters of its old and new value, and how many columns more than three changed."""


class Gaps(NamedTuple):
    """The gaps of one cause: of one table, among the newest changes, or of every table."""

    table: str | None
    """None: the gap is one of every table, so the log has no row of it."""
    cause: str
    number: int
    newest: datetime


class Buckets(NamedTuple):
    """What the buckets of the log hold."""

    filled: int
    """Number of buckets that are not empty."""
    oldest: datetime | None
    """When the oldest change of the log was captured; None if the log is empty."""
    newest_bytes: int
    """Size of the bucket that the triggers write to now."""
    max_bytes: int | None
    """Above this size the triggers do not write to it; None if no worker has set it."""


def stored_at(using: str) -> Mapping[str, Mapping[int, datetime]]:
    """Return when the newest position of each shard was stored, by consumer and shard."""
    found: dict[str, dict[int, datetime]] = defaultdict(dict)
    for consumer, shard, created_at in _rows(using, _STORED_AT):
        found[consumer][shard] = created_at
    return found


def unreported_losses(using: str) -> int:
    """Return how many statements were not captured and are not reported as a gap yet."""
    ((lost,),) = rows(using, _UNREPORTED)
    return int(lost)


def recent_gaps(using: str, limit: int, since: datetime) -> list[Gaps]:
    """Return the gaps after ``since``: those of every table, then those of one among the newest ``limit`` changes.

    By table and cause, the newest first.
    """
    return [Gaps(*found) for found in _rows(using, _GAPS_OF_ALL, [since]) + _rows(using, _GAPS, [limit, since])]


def buckets(using: str) -> Buckets:
    """Return what the buckets hold."""
    full = filled(using)
    oldest = _rows(using, _OLDEST.format(bucket=full[0]))[0][0] if full else None
    most, size = newest_bucket(using)
    return Buckets(len(full), oldest, size, most)


def id_at(using: str, moment: datetime) -> int | None:
    """Return the lowest id that was captured at the moment or later.

    It is one above the highest id if no change is that young, and None if the log is empty.
    """
    found = row(using, _ID_AT, {"moment": moment})
    return int(found[0]) if found else None


def captured_between(using: str, lowest: int, highest: int) -> tuple[datetime | None, datetime | None]:
    """Return when the oldest and the newest change were captured whose ids are within these bounds."""
    oldest, newest = aware_row(row(using, _TIMES, {"lowest": lowest, "highest": highest}))
    return oldest, newest


def summaries(using: str, ids: Sequence[int]) -> Mapping[int, list[Summary]]:
    """Return the first three changed columns of each of these changes."""
    found: dict[int, list[Summary]] = defaultdict(list)
    if ids:
        for key, column, old, new, more in rows(using, _SUMMARY, [list(ids)]):
            found[key].append((column, old, new, more))
    return found


def _rows(using: str, sql: str, params: Any = None) -> list[Any]:
    return list(map(aware_row, rows(using, sql, params)))
