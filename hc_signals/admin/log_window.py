"""One page of the change log: it searches a window of the ids, so that its cost does not grow with the log.

The log has an index of ids and none of tables, records or times, because every change would pay for it. So a page
searches SEARCHED ids at most, from the newest down, and a link continues below them.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hc_signals.log.figures import captured_between, id_at

SEARCHED = 200_000
"""Most ids that one page searches. If few rows meet the conditions, it reads all of them."""


@dataclass(frozen=True)
class LogWindow:
    """The ids that a page has searched."""

    lowest: int
    highest: int
    rows: tuple[Any, ...]
    """The rows that meet the conditions, the newest first."""
    older: int | None
    """The highest id below the window; None at the end of the log."""
    times: tuple[datetime | None, datetime | None]
    """When its oldest and its newest change were captured."""


def search(queryset: Any, before: int | None, limit: int, since: datetime | None, until: datetime | None) -> LogWindow:
    """Return at most ``limit`` rows of ``queryset`` (of ``Change``, by ``-id``) that meet the conditions, if any.

    These are: an id below ``before``; captured at ``since`` or later, and before ``until``.
    """
    using = queryset.db
    plain = queryset.model._base_manager.using(using).order_by("-id").values_list("id", flat=True)
    highest = plain.first() or 0
    if until is not None:
        highest = min(highest, (id_at(using, until) or 1) - 1)
    if before is not None:
        highest = min(highest, before - 1)
    end = 1 if since is None else id_at(using, since) or 1
    lowest = max(end, highest - SEARCHED + 1)
    rows = tuple(queryset.filter(id__gte=lowest, id__lte=highest)[: limit + 1])
    if len(rows) > limit:
        rows, lowest = rows[:limit], rows[limit - 1].id
    older = plain.filter(id__lt=lowest, id__gte=end).first()
    times = captured_between(using, lowest, highest) if lowest <= highest else (None, None)
    return LogWindow(lowest, highest, rows, older, times)
