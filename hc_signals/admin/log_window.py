"""Which part of the log one page of the list looks through: never all of it.

The log has an index of the ids and none of tables, records or times: each index more would be paid by every change.
So a page looks through SEARCHED ids at most, newest first, and a link leads to the ones before. Ids and times of
capture are in the same order, but for the odd neighbours: a time is found by halving the ids.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import connections

from hc_signals.postgres.moments import aware_row

SEARCHED = 200_000
"""Ids that one page looks through; those of a condition that few rows meet are all read."""

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


@dataclass(frozen=True)
class LogWindow:
    """The ids from ``lowest`` to ``highest``, as far as a page has looked through them."""

    lowest: int
    highest: int
    rows: tuple[Any, ...] = ()
    """What was found, newest first."""
    older: int | None = None
    """The highest id before those that were looked through; None at the end of the log."""
    times: tuple[datetime | None, datetime | None] = (None, None)
    """When the oldest and the newest of them were captured."""


def look(queryset: Any, before: int | None, limit: int, since: datetime | None, until: datetime | None) -> LogWindow:
    """Look for up to ``limit`` rows of the log.

    Args:
        queryset: rows of ``Change``, ordered by ``-id``.
        before: look at lower ids than this only.
        since, until: changes captured in between; None: no such bound.
    """
    using = queryset.db
    plain = queryset.model._base_manager.using(using).order_by("-id").values_list("id", flat=True)
    highest = plain.first() or 0
    if until is not None:
        highest = min(highest, (_id_at(using, until) or 1) - 1)
    if before is not None:
        highest = min(highest, before - 1)
    end = 1 if since is None else _id_at(using, since) or 1
    lowest = max(end, highest - SEARCHED + 1)
    rows = tuple(queryset.filter(id__gte=lowest, id__lte=highest)[: limit + 1])
    if len(rows) > limit:
        rows, lowest = rows[:limit], rows[limit - 1].id
    older = plain.filter(id__lt=lowest, id__gte=end).first()
    return _timed(using, LogWindow(lowest, highest, rows, older))


def _id_at(using: str, moment: datetime) -> int | None:
    """Return the lowest id that was captured at the moment or later, one above the highest if none was."""
    with connections[using].cursor() as cursor:
        cursor.execute(_ID_AT, {"moment": moment})
        row = cursor.fetchone()
        return None if row is None else int(row[0])


def _timed(using: str, window: LogWindow) -> LogWindow:
    if window.lowest > window.highest:
        return window
    with connections[using].cursor() as cursor:
        cursor.execute(_TIMES, {"lowest": window.lowest, "highest": window.highest})
        return replace(window, times=aware_row(cursor.fetchone()))
