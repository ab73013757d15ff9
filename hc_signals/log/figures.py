"""Figures of the log for hc_status, the metrics and the admin: positions, uncaptured statements, gaps, size, age."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from hc_signals.log.limit import newest_bucket
from hc_signals.log.rotation import filled
from hc_signals.postgres.moments import aware_row
from hc_signals.postgres.query import rows

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
_OLDEST = "SELECT captured_at FROM public.hc_signals_change_{bucket} ORDER BY id LIMIT 1"


class Gaps(NamedTuple):
    """The gaps of one table and cause among the newest changes."""

    table: str
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
    """Return the gaps among the newest changes, by table and cause, the newest first.

    Args:
        limit: changes that are searched: no index knows the gaps.
        since: captured after this time.
    """
    return [Gaps(*row) for row in _rows(using, _GAPS, [limit, since])]


def buckets(using: str) -> Buckets:
    """Return what the buckets hold."""
    full = filled(using)
    oldest = _rows(using, _OLDEST.format(bucket=full[0]))[0][0] if full else None
    most, size = newest_bucket(using)
    return Buckets(len(full), oldest, size, most)


def _rows(using: str, sql: str, params: Any = None) -> list[Any]:
    return list(map(aware_row, rows(using, sql, params)))
