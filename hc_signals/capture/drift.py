"""Checks capture on all tables with one catalog query, without a lock on any of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Model

from hc_signals.capture import table_state
from hc_signals.capture.function import FUNCTION_PREFIX
from hc_signals.capture.installed import InstalledFunctions
from hc_signals.capture.status import (
    FIND_TABLES,
    FIND_WIDTH,
    FoundTable,
    TableStatus,
    compare,
    find_params,
    found_table,
)
from hc_signals.capture.table_state import Healthy, TableState
from hc_signals.conf import origin_rules
from hc_signals.log.restoring import MOVED
from hc_signals.log.schema import Cause
from hc_signals.origins import labels, labels_of_arguments
from hc_signals.postgres.moments import aware_row
from hc_signals.postgres.query import rows
from hc_signals.tables import table_label

# A new file node means a TRUNCATE or a rewrite. If capture has seen it, the log or hc_signals_reload has a row that was
# not yet visible at the last check. Nothing can be concluded while capture is paused, or while a log that was made on
# another server is not yet adapted to this one.
_CHECK = f"""
SELECT f.*, statement_timestamp(), pg_current_snapshot()::text,
    c.paused_at IS NOT NULL OR c.gap_since IS NOT NULL OR {MOVED} IS NOT NULL,
    CASE WHEN k.filenode IS DISTINCT FROM f.relfilenode AND k.relation = f.oid THEN EXISTS (
        SELECT FROM public.hc_signals_change l
        WHERE l.xid >= pg_snapshot_xmin(k.seen) AND NOT pg_visible_in_snapshot(l.xid, k.seen)
          AND l.table_name = k.table_name
          AND (l.operation IN ('TRUNCATE', 'RELOADED') OR l.operation = 'GAP' AND l.note->>'cause' = '{Cause.PAUSED}')
    ) OR EXISTS (
        SELECT FROM public.hc_signals_reload r
        WHERE r.table_name = k.table_name AND NOT pg_visible_in_snapshot(r.xid, k.seen)
    ) ELSE false END,
    EXISTS (SELECT FROM public.hc_signals_reload) OR EXISTS (SELECT FROM public.hc_signals_refill),
    EXISTS (SELECT FROM public.hc_signals_passed p WHERE p.table_name = f.label),
    {", ".join("k." + column for column in table_state.COLUMNS.split(", "))}
FROM (SELECT found.*, (%s::text[])[found.number] AS label FROM ({FIND_TABLES}) found) f
LEFT JOIN public.hc_signals_control c ON true
LEFT JOIN public.hc_signals_table k ON k.table_name = f.label
ORDER BY f.number
"""
_LABEL = FIND_WIDTH
"""Index of the label, behind FIND_TABLES; then come the fields of a TableCheck from ``at`` on, then its state."""


@dataclass(frozen=True)
class TableCheck:
    """One table as it was found, together with its recorded state."""

    model: type[Model]
    status: TableStatus
    found: FoundTable
    state: TableState | None
    """None if nothing is recorded of the table."""
    at: datetime
    """The server's time of the check."""
    snapshot: str
    is_suspended: bool
    """True if capture is paused, or the log was made on another server and is not yet adapted to this one."""
    is_rewrite_logged: bool
    """True if the log explains why the table has another file node."""
    is_reloading: bool
    """True if any table is being reloaded, or a new column of any table is being filled."""
    is_skipped: bool
    """True if any consumer has skipped changes of this table because it had no model for it."""

    @property
    def is_uninstalled(self) -> bool:
        """True if ``hc_triggers uninstall`` has removed capture, and no command or person has installed it again."""
        return self.state is not None and self.state.is_uninstalled and self.status.state != "installed"

    @property
    def is_watched(self) -> bool:
        """True if the worker repairs this table: it exists, can be captured, and was not uninstalled."""
        return self.found.oid is not None and self.status.state != "unsupported" and not self.is_uninstalled

    @property
    def is_new(self) -> bool:
        """True if this table was never captured: the rows in it are not changes."""
        return self.state is None and self.found.function is None and not self.found.triggers

    @property
    def is_refilling(self) -> bool:
        """True if the end of a reload, or of a new column's filling, must be reported later."""
        layout = self.found.installed_layout
        return self.is_reloading or (layout is not None and bool(layout.fresh))

    @property
    def healthy(self) -> Healthy:
        """The values to record if capture works."""
        return self.found.oid, self.found.filenode, self.found.versions, self.snapshot, self.at

    @property
    def fault(self) -> str | None:
        """Why changes are not captured now; None if they are, even by an older function."""
        if self.status.state != "outdated":
            return {"missing": Cause.TRIGGER_MISSING, "disabled": Cause.TRIGGER_DISABLED}.get(self.status.state)
        called = [function or "" for _, function, _ in self.found.triggers.values()]
        is_genuine = self.found.function is not None and self.found.function.is_genuine
        if not is_genuine or not all(name.startswith(FUNCTION_PREFIX) for name in called):
            return Cause.FUNCTION_ALTERED
        layout = self.found.installed_layout
        columns = set(self.found.layout(self.model).columns)
        if layout is None or not columns <= set(layout.columns):
            return Cause.COLUMNS_MISSING
        wanted = set(labels(origin_rules()))
        fitted = [set(labels_of_arguments(self.found.arguments(name))) for name in self.found.triggers]
        return None if all(wanted <= each for each in fitted) else Cause.ORIGINS_MISSING

    @property
    def cause(self) -> str | None:
        """Why changes may have been missed since capture last worked; None if none can have been."""
        before = self.state
        if before is not None and before.cause is not None:
            return before.cause
        if before is None or before.relation is None:
            return None if self.is_new else self.fault
        if self.found.oid != before.relation:
            return Cause.TABLE_RECREATED
        return self.fault or self._past_fault(before)

    def _past_fault(self, before: TableState) -> str | None:
        """Return the cause if capture works now, but the triggers or the file of the table have changed since."""
        if self.found.versions != before.versions:
            # DISABLE and ENABLE keep the object ids of the triggers.
            is_same = _object_ids(self.found.versions) == _object_ids(before.versions)
            return Cause.TRIGGER_DISABLED if is_same else Cause.TRIGGER_MISSING
        is_same = self.found.filenode == before.filenode
        return None if is_same or self.is_rewrite_logged or self.is_suspended else Cause.TABLE_REWRITTEN


def check_tables(models: Sequence[type[Model]], using: str) -> list[TableCheck]:
    """Check the tables of the models, in the same order; needs no lock on the tables and no right."""
    functions = InstalledFunctions.of_session(using)
    found_rows = rows(using, _CHECK, [list(map(table_label, models)), *find_params(models, functions)])
    return [_check(model, row, functions) for model, row in zip(models, found_rows, strict=True)]


def _check(model: type[Model], row: tuple[Any, ...], functions: InstalledFunctions) -> TableCheck:
    found, seen = found_table(model, row[:_LABEL], functions), aware_row(row[_LABEL + 1 :])
    state = TableState(*seen[6:]) if seen[6] is not None else None
    return TableCheck(model, compare(model, found), found, state, *seen[:6])


def _object_ids(versions: str | None) -> list[str]:
    return [version.partition(":")[0] for version in (versions or "").split()]
