"""The state of each captured table in ``hc_signals_table``: when capture last worked, and what must be done since then.

It is in the database so that a gap has a beginning even if no worker ran when capture broke. An update requires that
the row has not changed since it was read, so that of two workers only one acts on it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hc_signals.log.append import append_gap, wake
from hc_signals.log.schema import Cause
from hc_signals.postgres.moments import aware_row
from hc_signals.postgres.query import execute, rows

Healthy = tuple[int | None, int | None, str, str, datetime]
"""A table on which capture works: oid, file node, trigger versions, snapshot and time of the check."""


@dataclass(frozen=True)
class TableState:
    """One row of ``hc_signals_table``; the SQL file explains the columns."""

    table: str
    relation: int | None
    filenode: int | None
    versions: str | None
    good_at: datetime | None
    cause: str | None
    uninstalled_at: datetime | None
    reread_since: datetime | None
    reread_after: int | None

    @property
    def is_uninstalled(self) -> bool:
        """True if ``hc_triggers uninstall`` has removed capture, and :func:`clear_uninstalled` was not called since."""
        return self.uninstalled_at is not None


COLUMNS = "table_name, relation, filenode, versions, good_at, cause, uninstalled_at, reread_since, reread_after"
"""The columns of a :class:`TableState`, in order."""

# Not if another worker has recorded a cause, or a later time. A time in the future was stored before the server's clock
# went back.
_RECORD_HEALTHY = """
INSERT INTO public.hc_signals_table AS t (table_name, relation, filenode, versions, seen, good_at)
SELECT * FROM unnest(%s::text[], %s::oid[], %s::oid[], %s::text[], %s::pg_snapshot[], %s::timestamptz[])
ON CONFLICT (table_name) DO UPDATE SET relation = excluded.relation, filenode = excluded.filenode,
    versions = excluded.versions, seen = excluded.seen, good_at = excluded.good_at
WHERE t.cause IS NULL AND t.uninstalled_at IS NULL
  AND (t.good_at IS NULL OR t.good_at < excluded.good_at OR t.good_at > clock_timestamp())
RETURNING table_name, xmax = 0
"""
_RECORD_CAUSE = """
INSERT INTO public.hc_signals_table AS t (table_name, cause) VALUES (%s, %s)
ON CONFLICT (table_name) DO UPDATE SET cause = excluded.cause
WHERE t.cause IS NULL AND t.uninstalled_at IS NULL AND t.good_at IS NOT DISTINCT FROM %s::timestamptz
RETURNING true
"""
_RECORD_REPORTED = """
UPDATE public.hc_signals_table SET relation = %s, filenode = %s, versions = %s, seen = %s::pg_snapshot,
    good_at = %s, cause = NULL, uninstalled_at = NULL,
    reread_since = CASE WHEN %s THEN least(reread_since, good_at, clock_timestamp()) ELSE reread_since END,
    reread_after = CASE WHEN %s THEN NULL ELSE reread_after END
WHERE table_name = %s
"""
# From the first row again: rows that are due now may lie in the part that was read.
_REQUEST_REREAD = """
INSERT INTO public.hc_signals_table AS t (table_name, reread_since)
SELECT table_name, %s FROM unnest(%s::text[]) table_name
ON CONFLICT (table_name) DO UPDATE SET reread_since = least(t.reread_since, excluded.reread_since), reread_after = NULL
WHERE t.uninstalled_at IS NULL
"""
# A gap that is recorded already began earlier.
_RECORD_GAP = """
INSERT INTO public.hc_signals_table AS t (table_name, cause, good_at, uninstalled_at)
VALUES (%(table)s, %(cause)s, %(since)s, CASE WHEN %(uninstalled)s THEN clock_timestamp() END)
ON CONFLICT (table_name) DO UPDATE SET cause = coalesce(t.cause, excluded.cause),
    good_at = CASE WHEN t.cause IS NULL THEN excluded.good_at ELSE t.good_at END,
    uninstalled_at = coalesce(t.uninstalled_at, excluded.uninstalled_at)
"""
# Changes were already missing if capture is paused, or if the state of a running reload is deleted now.
_INCOMPLETE_SINCE = """
SELECT least(clock_timestamp(), c.paused_at, c.gap_since, (
    SELECT min(cleared_at) FROM public.hc_signals_reload WHERE table_name = %s
)) FROM public.hc_signals_control c
"""
# hc_signals_unlogged is unlogged too: it has a row until a crash empties every unlogged table.
_RECORD_CRASH = f"""
WITH crash AS (
    INSERT INTO public.hc_signals_unlogged DEFAULT VALUES ON CONFLICT DO NOTHING RETURNING true
)
UPDATE public.hc_signals_table t SET cause = '{Cause.UNLOGGED_EMPTIED}' FROM pg_class c
WHERE EXISTS (SELECT FROM crash) AND c.oid = t.relation AND c.relpersistence = 'u' AND t.cause IS NULL
RETURNING true
"""


def read(using: str) -> dict[str, TableState]:
    """Return the states by table; empty if there is no log, or this role may not read it."""
    if not rows(using, "SELECT has_table_privilege(to_regclass('public.hc_signals_table'), 'SELECT')")[0][0]:
        return {}
    return {state.table: state for state in _states(using, "")}


def lock(using: str, table: str) -> TableState | None:
    """Return the state of a table, and lock it until the transaction ends; None if there is none."""
    return next(iter(_states(using, "WHERE table_name = %s FOR UPDATE", table)), None)


def record_healthy(using: str, healthy: Mapping[str, Healthy]) -> set[str]:
    """Record, by table, that capture worked; return the tables that had no state before."""
    if not healthy:
        return set()
    columns = zip(*((table, *values) for table, values in healthy.items()), strict=True)
    recorded = rows(using, _RECORD_HEALTHY, list(map(list, columns)))
    return {table for table, is_new in recorded if is_new}


def record_cause(using: str, table: str, before: TableState | None, cause: str) -> bool:
    """Record why capture is broken, before it is repaired; return False if the state is no longer ``before``."""
    return bool(rows(using, _RECORD_CAUSE, [table, cause, None if before is None else before.good_at]))


def record_crash(using: str) -> bool:
    """Record a crash of the server for each captured unlogged table, once; return True if there were any."""
    return bool(rows(using, _RECORD_CRASH, []))


def report_gap(using: str, before: TableState, healthy: Healthy, can_reread: bool) -> None:
    """Append the gap of a table on which capture works again, and request a reread if ``can_reread``.

    Call it in the transaction of :func:`lock`, which has returned ``before``, with a cause.
    """
    append_gap(using, before.table, before.cause or "", before.good_at)
    execute(using, _RECORD_REPORTED, [*healthy, can_reread, can_reread, before.table])
    wake(using)


def record_gap(using: str, table: str, cause: str | None, since: datetime | None, uninstalled: bool = False) -> None:
    """Record that a table is, or was, not captured; the gap is reported once capture works.

    Args:
        cause: of the gap; None: the table was never captured, so there is no gap.
        since: when the gap began; None if unknown.
        uninstalled: the worker does not install capture until :func:`clear_uninstalled`.
    """
    execute(using, _RECORD_GAP, {"table": table, "since": since, "uninstalled": uninstalled, "cause": cause})


def incomplete_since(using: str, table: str) -> datetime:
    """Return since when changes of a table are missing, if its capture and the state of its reload are removed now."""
    return aware_row(rows(using, _INCOMPLETE_SINCE, [table])[0])[0]  # type: ignore[no-any-return]


def clear_uninstalled(using: str, table: str) -> None:
    """Let the worker install and repair capture of an uninstalled table; its gap stays recorded."""
    uninstalled = "table_name = %s AND uninstalled_at IS NOT NULL"
    execute(using, f"DELETE FROM public.hc_signals_table WHERE {uninstalled} AND cause IS NULL", [table])
    execute(using, f"UPDATE public.hc_signals_table SET uninstalled_at = NULL WHERE {uninstalled}", [table])


def request_reread(using: str, tables: Sequence[str], since: datetime) -> None:
    """Request that the worker reads the rows of captured tables again that changed since then."""
    execute(using, _REQUEST_REREAD, [since, list(tables)])


def lock_next_reread(using: str, tables: Iterable[str]) -> TableState | None:
    """Return one of the tables with a requested reread, and lock its state until the transaction ends."""
    condition = (
        "WHERE reread_since IS NOT NULL AND uninstalled_at IS NULL AND table_name = ANY (%s) "
        "ORDER BY table_name LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    return next(iter(_states(using, condition, list(tables))), None)


def record_reread(using: str, table: str, after: int | None, is_done: bool = False) -> None:
    """Record, with its page, that a table was read again up to the ``id`` ``after``, or that no row is left."""
    progress = "reread_since = NULL, reread_after = NULL" if is_done else "reread_after = %(after)s"
    sql = f"UPDATE public.hc_signals_table SET {progress} WHERE table_name = %(table)s"
    execute(using, sql, {"after": after, "table": table})


def _states(using: str, condition: str, *params: Any) -> list[TableState]:
    sql = f"SELECT {COLUMNS} FROM public.hc_signals_table {condition}"
    return [TableState(*aware_row(row)) for row in rows(using, sql, params)]
