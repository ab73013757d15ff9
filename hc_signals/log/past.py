"""Past changes of the log, from one bound to another: for a replay, which moves no position."""

from datetime import datetime
from typing import Any

from django.db import connections

from hc_signals.exceptions import ReplayError
from hc_signals.log.change import CHANGE_COLUMNS, IMAGE_BYTES, Change, cut_page, format_replay_id, number_of
from hc_signals.log.restoring import WORDS, moved
from hc_signals.log.schema import buckets_between
from hc_signals.postgres.dates import clamp_dates
from hc_signals.postgres.moments import aware_row, shown
from hc_signals.postgres.query import row, rows

_START = """
SELECT epoch, emptied_id, emptied_at, pg_current_snapshot()::text, clock_timestamp(),
    (SELECT last_value FROM public.hc_signals_change_id_seq),
    (SELECT json_build_array(id, captured_at) FROM public.hc_signals_change ORDER BY id LIMIT 1)
FROM public.hc_signals_control
"""
_CHOSEN = """
FROM public.hc_signals_change
WHERE id > %(after)s AND id <= %(last)s AND pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
  AND captured_at BETWEEN coalesce(%(since)s, '-infinity'::timestamptz) AND coalesce(%(until)s, 'infinity'::timestamptz)
  AND bucket = ANY (%(buckets)s) AND table_name = ANY (%(tables)s)
"""
_COUNT = f"SELECT count(*) FROM (SELECT 1 {_CHOSEN} LIMIT %(limit)s) counted"
_PAGE = f"SELECT {IMAGE_BYTES}, id, {CHANGE_COLUMNS} {_CHOSEN} ORDER BY id LIMIT %(limit)s"

Bound = datetime | str | None
"""The first or last change asked for: a time, or a replay id."""


class PastChanges:
    """The changes of some tables between two bounds, as one snapshot shows them. It is taken here.

    Args:
        first: the first change; None: the beginning of the log.
        last: the last change; None: the end of the log.
        tables: as the log names them.

    Raises:
        ReplayError: a bound is of another database, or the log does not hold all changes from it on.
    """

    def __init__(self, using: str, first: Bound, last: Bound, tables: list[str]) -> None:
        if cause := moved(using):
            raise ReplayError(f"{WORDS[cause]}; let `hc_listen --once` take it over.")
        self._using = using
        found = aware_row(row(using, _START))
        self._epoch, self._emptied_id, emptied_at, snapshot, present, newest_id, oldest = found
        clamp_dates(connections[using].connection)
        since = first if isinstance(first, datetime) else None
        until = last if isinstance(last, datetime) else None
        self.before = number_of(first, self._epoch, newest_id) - 1 if isinstance(first, str) else 0
        """Id before that of the first change."""
        self.last = number_of(last, self._epoch, newest_id) if isinstance(last, str) else newest_id
        """Id of the last change."""
        if (isinstance(first, str) and self.before < self._emptied_id) or (
            since and emptied_at and since <= emptied_at
        ):
            self._refuse_emptied(oldest)
        self._params: dict[str, Any] = {
            "last": self.last,
            "snapshot": snapshot,
            "since": since,
            "until": until,
            "buckets": buckets_between(since, present),
            "tables": tables,
        }

    def count(self, limit: int) -> int:
        """Return how many changes there are; the count ends at ``limit``."""
        return int(row(self._using, _COUNT, {**self._params, "after": self.before, "limit": limit})[0])

    def page(self, after: int, limit: int) -> tuple[list[Change], bool]:
        """Return up to ``limit`` changes behind the id ``after``, and whether there may be more."""
        return cut_page(rows(self._using, _PAGE, {**self._params, "after": after, "limit": limit}), limit)

    def replay_id(self, number: int) -> str:
        """Return the replay id of a change."""
        return format_replay_id(self._epoch, number)

    def _refuse_emptied(self, oldest: tuple[int, str] | None) -> None:
        reach = "it is empty"
        if oldest is not None:
            number, captured_at = oldest
            captured = shown(datetime.fromisoformat(captured_at))
            reach = f"it reaches back to {self.replay_id(number)}, captured {captured}"
        raise ReplayError(f"The log no longer holds all of these changes: {reach}.")

    def refuse_loss(self, after: int) -> None:
        """Raise ReplayError if a change behind the id ``after`` was emptied from the log since the start."""
        (emptied_id,) = row(self._using, "SELECT emptied_id FROM public.hc_signals_control")
        if emptied_id > max(after, self._emptied_id):
            raise ReplayError(
                f"Changes from {self.replay_id(after + 1)} on were emptied from the log while they were replayed; "
                f"what is left of them begins at {self.replay_id(emptied_id + 1)}."
            )
