"""Compares what capture should be with what it is: all tables in one catalog query, without a lock on any of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connections
from django.db.models import Model

from hc_signals.capture import table_state, triggers
from hc_signals.capture.function import FUNCTION_PREFIX, is_genuine
from hc_signals.capture.function_columns import read_layout
from hc_signals.capture.table_state import Known
from hc_signals.log.restoring import MOVED
from hc_signals.postgres.moments import aware_row
from hc_signals.tables import table_label

# A table whose file is another one was truncated or rewritten. If capture has seen it, the log says so; what was
# visible at the last look does not count. While capture is paused, or no worker has taken over a log that was made
# elsewhere, nothing is to be concluded.
_LOOK = f"""
SELECT f.*, statement_timestamp(), pg_current_snapshot()::text,
    c.paused_at IS NOT NULL OR c.gap_since IS NOT NULL OR {MOVED} IS NOT NULL,
    CASE WHEN k.filenode IS DISTINCT FROM f.relfilenode AND k.relation = f.oid THEN EXISTS (
        SELECT FROM public.hc_signals_change l
        WHERE l.xid >= pg_snapshot_xmin(k.seen) AND NOT pg_visible_in_snapshot(l.xid, k.seen)
          AND l.table_name = k.table_name
          AND (l.operation IN ('TRUNCATE', 'RELOADED') OR l.operation = 'GAP' AND l.note->>'cause' = 'paused')
    ) OR EXISTS (
        SELECT FROM public.hc_signals_reload r
        WHERE r.table_name = k.table_name AND NOT pg_visible_in_snapshot(r.xid, k.seen)
    ) END,
    EXISTS (SELECT FROM public.hc_signals_reload) OR EXISTS (SELECT FROM public.hc_signals_refill),
    EXISTS (SELECT FROM public.hc_signals_passed p WHERE p.table_name = f.label),
    {", ".join("k." + column for column in table_state.COLUMNS.split(", "))}
FROM (SELECT found.*, (%s::text[])[found.number] AS label FROM ({triggers.FIND}) found) f
LEFT JOIN public.hc_signals_control c ON true
LEFT JOIN public.hc_signals_table k ON k.table_name = f.label
ORDER BY f.number
"""
_OF_FIND = 12
"""Columns of ``triggers.FIND``; behind them comes the label."""


@dataclass(frozen=True)
class Sight:
    """One table as a look found it, beside what was known of it."""

    model: type[Model]
    status: triggers.TableStatus
    found: triggers.Found
    known: Known | None
    at: datetime
    snapshot: str
    is_off: bool
    """Capture is switched off, or the log was made elsewhere and not taken over yet."""
    is_explained: bool
    """The log says why the file of the table is another one."""
    is_reloading: bool
    """Some table, not necessarily this one, is being reloaded or gets a new column filled."""
    is_passed: bool
    """Some consumer, not necessarily ours, had no model for changes of this table."""

    @property
    def is_left_alone(self) -> bool:
        """Whether capture was removed on purpose, and nobody has put it back, not by hand either."""
        before = self.known
        return before is not None and before.uninstalled_at is not None and self.status.state != "installed"

    @property
    def is_minded(self) -> bool:
        """Whether there is such a table, and it is not to be left alone."""
        return self.found.oid is not None and not self.is_left_alone

    @property
    def good(self) -> tuple[int | None, int | None, str, str, datetime]:
        """What is to be known of the table, if capture is right on it."""
        return self.found.oid, self.found.filenode, self.found.versions, self.snapshot, self.at

    @property
    def is_first(self) -> bool:
        """Whether nothing of ours ever was on the table: what is in it is no change."""
        return self.known is None and not self.found.source and not self.found.triggers

    @property
    def is_refilling(self) -> bool:
        """Whether the end of a reload, or of a new column's filling, is to be told some time."""
        layout = read_layout(self.found.source)
        return self.is_reloading or (layout is not None and bool(layout.fresh))

    @property
    def wrong(self) -> str | None:
        """What keeps changes from being captured now; None also where only an older function is at work."""
        of_state = {"missing": "trigger_missing", "disabled": "trigger_disabled"}
        if self.status.state != "outdated":
            return of_state.get(self.status.state)
        called = [function or "" for _, function in self.found.triggers.values()]
        if not is_genuine(self.found.source) or not all(name.startswith(FUNCTION_PREFIX) for name in called):
            return "function_altered"
        layout = read_layout(self.found.source)
        columns = set(self.found.layout(self.model).columns)
        return "columns_missing" if layout is None or not columns <= set(layout.columns) else None

    @property
    def cause(self) -> str | None:
        """Why changes may have been missed since capture was last known to be right; None: they cannot."""
        before = self.known
        if before is not None and before.cause is not None:
            return before.cause
        if before is None or before.relation is None:
            return None if self.is_first else self.wrong
        if self.found.oid != before.relation:
            return "table_recreated"
        return self.wrong or self._cause_in_between(before)

    def _cause_in_between(self, before: Known) -> str | None:
        """All looks right: but somebody was at the triggers, or at the file of the table, since the last look."""
        if self.found.versions != before.versions:
            # DISABLE and ENABLE leave triggers their object ids.
            is_same = _object_ids(self.found.versions) == _object_ids(before.versions)
            return "trigger_disabled" if is_same else "trigger_missing"
        is_same = self.found.filenode == before.filenode
        return None if is_same or self.is_explained or self.is_off else "table_rewritten"


def look(models: Sequence[type[Model]], using: str) -> list[Sight]:
    """Look at the tables of the models; takes no lock on them."""
    labels = [table_label(model) for model in models]
    with connections[using].cursor() as cursor:
        cursor.execute(_LOOK, [labels, *triggers.names_of(models)])
        rows = cursor.fetchall()
    sights = []
    for model, row in zip(models, rows, strict=True):
        found = triggers.found_of(row[:_OF_FIND])
        _, at, snapshot, is_off, is_explained, is_reloading, is_passed, *before = aware_row(row[_OF_FIND:])
        status = triggers.compare(model, found)
        before_look = Known(*before) if before[0] is not None else None
        flags = bool(is_off), bool(is_explained), is_reloading, is_passed
        sights.append(Sight(model, status, found, before_look, at, snapshot, *flags))
    return sights


def _object_ids(versions: str | None) -> list[str]:
    return [version.partition(":")[0] for version in (versions or "").split()]
