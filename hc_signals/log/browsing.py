"""Queries for the pages of the admin: they find a time among the ids of the log, and the beginning of long values."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from hc_signals.postgres.moments import aware_row
from hc_signals.postgres.query import row, rows

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
SELECT c.id, name, left(c.old->>name, 41), left(c.new->>name, 41), cardinality(c.changed) - 3
FROM public.hc_signals_change c, unnest(c.changed[1:3]) name WHERE c.id = ANY(%s)
"""

Summary = tuple[str, str | None, str | None, int]
"""A changed column, the first 41 characters of its old and new value, and how many columns more than three changed."""


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
