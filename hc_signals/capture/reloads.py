"""Tells the end of reloads and resyncs: the one thing about them that no writer can know.

A reload is over when nothing has come back for RELOAD_QUIET_SECONDS by the database's clock and nobody is writing to
the table. Everything else stands in the database, written by the capture triggers, so it does not matter whether a
worker was there to see it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import OperationalError, ProgrammingError, connections, transaction
from django.db.models import Model

from hc_signals.capture import triggers
from hc_signals.capture.function import function_name
from hc_signals.capture.function_columns import FRESH_MARK, read_layout
from hc_signals.conf import Conf
from hc_signals.log.append import INSERT_MISSING, append_note, wake
from hc_signals.postgres.errors import is_lock_timeout, lacks_privilege, one_line
from hc_signals.postgres.locks import RELOADS
from hc_signals.postgres.moments import aware_row
from hc_signals.tables import connected_models, quoted_table, table_label

logger = logging.getLogger("hc_signals")

UNTOUCHED = 12
"""So many times longer is waited where nothing has come back since the clearing."""
CHUNK = 500
"""Missing records told in one transaction: a writer that comes back just then waits for it."""

# Newest activity of each table, and whether any row has come back since the newest clearing.
_QUIET = f"""
SELECT table_name, 'reload' FROM (
    SELECT table_name, cleared_at AS at, false AS back FROM public.hc_signals_reload
    UNION ALL SELECT table_name, at, true FROM public.hc_signals_refill WHERE kind = 'reload'
) activity
WHERE table_name IN (SELECT table_name FROM public.hc_signals_reload)
GROUP BY table_name HAVING max(at) < clock_timestamp() - make_interval(secs => %(quiet)s *
    CASE WHEN max(at) FILTER (WHERE back) > max(at) FILTER (WHERE NOT back) THEN 1 ELSE {UNTOUCHED} END)
UNION ALL
SELECT table_name, 'resync' FROM public.hc_signals_refill WHERE kind = 'resync'
GROUP BY table_name HAVING max(at) < clock_timestamp() - make_interval(secs => %(quiet)s)
"""
# Someone is in the middle of a statement or transaction that writes to the table: a long COPY, say.
_BUSY = """
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'relation' AND relation = %s::regclass AND pid IS DISTINCT FROM pg_backend_pid()
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
) OR NOT pg_try_advisory_xact_lock(%s, hashtext(%s))
"""
_MISSING = f"""
WITH gone AS (
    DELETE FROM public.hc_signals_cleared WHERE table_name = %(table)s AND record_id IN (
        SELECT record_id FROM public.hc_signals_cleared WHERE table_name = %(table)s LIMIT %(chunk)s
    ) RETURNING record_id, record_key, old
), missing AS (
    SELECT * FROM gone g WHERE NOT EXISTS (SELECT FROM {{relation}} t WHERE t."sfid" = g.record_id)
), logged AS (
    {INSERT_MISSING}
), counted AS (
    INSERT INTO public.hc_signals_refill (table_name, kind, deleted)
    SELECT %(table)s, 'missing', count(*) FROM missing
)
SELECT count(*) FROM gone
"""
_RELOADED = """
SELECT json_build_object(
    'cleared', r.records, 'unchanged', f.unchanged, 'changed', f.changed, 'created', f.created, 'deleted', f.deleted,
    'since', r.since, 'until', greatest(r.until, f.until))::text
FROM (
    SELECT sum(records)::bigint AS records, min(cleared_at) AS since, max(cleared_at) AS until
    FROM public.hc_signals_reload WHERE table_name = %(table)s
) r, (
    SELECT coalesce(sum(unchanged), 0)::bigint AS unchanged, coalesce(sum(changed), 0)::bigint AS changed,
        coalesce(sum(created), 0)::bigint AS created, coalesce(sum(deleted), 0)::bigint AS deleted,
        max(at) FILTER (WHERE kind = 'reload') AS until
    FROM public.hc_signals_refill WHERE table_name = %(table)s AND kind IN ('reload', 'missing')
) f
"""
_RESYNCED = """
SELECT json_build_object('resynced', sum(resynced)::bigint, 'since', min(at), 'until', max(at))::text
FROM public.hc_signals_refill WHERE table_name = %(table)s AND kind = 'resync'
"""
# Columns that have been fresh for long while nothing fills them.
_STALE = """
SELECT %(since)s::timestamptz < clock_timestamp() - make_interval(secs => %(seconds)s) AND NOT EXISTS (
    SELECT FROM public.hc_signals_refill WHERE table_name = %(table)s AND kind = 'resync')
"""


def finish_reloads(using: str, conf: Conf) -> list[str]:
    """Tell the end of every reload and resync that is over: deletions of what has not come back, then the counts.

    Call it outside a transaction, now and then. Any number of workers may: each end is told once.

    Args:
        conf: RELOAD_QUIET_SECONDS is used.

    Returns:
        the tables whose reload or resync was told.
    """
    by_label = {table_label(model): model for model in connected_models()}
    told = []
    for label, kind in _rows(using, _QUIET, {"quiet": conf.RELOAD_QUIET_SECONDS}):
        if label in by_label and _tell(kind, by_label[label], using, conf):
            logger.info("The %s of %s is over.", kind, label)
            told.append(label)
            if kind == "resync":
                _settle(by_label[label], using)
    _settle_columns(by_label, using, conf)
    return told


def _tell(kind: str, model: type[Model], using: str, conf: Conf) -> bool:
    """Tell one end, a bounded number of records per transaction; False if it is not over after all."""
    while True:
        try:
            with transaction.atomic(using=using):
                more = _claim(kind, model, using, conf) and _tell_some(kind, table_label(model), model, using)
        except OperationalError as error:
            if not is_lock_timeout(error):
                raise
            return False  # locked: somebody is at work there
        except ProgrammingError as error:
            if not lacks_privilege(error):
                raise
            _warn_once(model, error)
            return False
        if not more:
            return more is None


_warned: set[type[Model]] = set()


def _warn_once(model: type[Model], error: ProgrammingError) -> None:
    if model not in _warned:
        _warned.add(model)
        logger.error(
            "%s: the end of its reload cannot be told (%s). It needs SELECT on the table, and BYPASSRLS where "
            "row-level security hides rows.",
            table_label(model),
            one_line(error),
        )


def _claim(kind: str, model: type[Model], using: str, conf: Conf) -> bool:
    """Shut writers out of the reload for the length of this transaction; False if it is not over.

    The table's lock comes first and waits for nobody: a TRUNCATE holds it while it waits for the advisory lock.
    """
    label = table_label(model)
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NULL", [quoted_table(model)])
        if cursor.fetchone()[0]:
            return False  # dropped, perhaps to be made again
        cursor.execute(f"LOCK TABLE {quoted_table(model)} IN ACCESS SHARE MODE NOWAIT")
        cursor.execute("SET LOCAL row_security = off")  # a row that a policy hides would be told as deleted
    if _rows(using, _BUSY, [quoted_table(model), RELOADS, label])[0][0]:
        return False
    return (label, kind) in _rows(using, _QUIET, {"quiet": conf.RELOAD_QUIET_SECONDS})


def _tell_some(kind: str, label: str, model: type[Model], using: str) -> bool | None:
    """Tell the next missing records, or the end; None when that is told, True when there may be more."""
    params: Mapping[str, Any] = {"table": label, "chunk": CHUNK}
    with connections[using].cursor() as cursor:
        if kind == "reload":
            cursor.execute(_MISSING.format(relation=quoted_table(model)), params)
            if cursor.fetchone()[0] == CHUNK:
                return True
            cursor.execute(_RELOADED, params)
            append_note(using, label, "RELOADED", cursor.fetchone()[0])
            cursor.execute("DELETE FROM public.hc_signals_reload WHERE table_name = %(table)s", params)
            kinds = ["reload", "missing"]
        else:
            cursor.execute(_RESYNCED, params)
            append_note(using, label, "RESYNCED", cursor.fetchone()[0])
            kinds = ["resync"]
        cursor.execute("DELETE FROM public.hc_signals_refill WHERE table_name = %s AND kind = ANY (%s)", [label, kinds])
    wake(using)
    return None


def _settle_columns(by_label: Mapping[str, type[Model]], using: str, conf: Conf) -> None:
    """Give functions that wait for fresh columns their ordinary form, once those are filled or never were."""
    functions = dict(_rows(using, _WITH_FRESH, {"mark": f"%{FRESH_MARK}%"}))
    for label, model in by_label.items():
        layout = read_layout(functions.get(function_name(model), ""))
        if layout is None or not layout.fresh:
            continue
        seconds = conf.RELOAD_QUIET_SECONDS * UNTOUCHED
        if _rows(using, _STALE, {"since": layout.since, "seconds": seconds, "table": label})[0][0]:
            _settle(model, using)


_WITH_FRESH = """
SELECT proname, prosrc FROM pg_proc
WHERE proname LIKE 'hc\\_signals\\_capture\\_%%' AND pronamespace = 'public'::regnamespace AND prosrc LIKE %(mark)s
"""


def _settle(model: type[Model], using: str) -> None:
    try:
        triggers.install(model, using, attempts=1, settled=True)
    except OperationalError as error:
        logger.info("Capture of %s is not renewed yet (%s).", table_label(model), type(error).__name__)


def _rows(using: str, sql: str, params: Any) -> list[Any]:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


@dataclass(frozen=True)
class Reload:
    """A table that is being filled again."""

    table: str
    since: datetime
    records: int
    """How many were cleared."""


def under_way(using: str) -> list[Reload]:
    """Return the reloads that are not over yet."""
    sql = "SELECT table_name, min(cleared_at), sum(records)::bigint FROM public.hc_signals_reload GROUP BY 1 ORDER BY 1"
    return [Reload(*aware_row(row)) for row in _rows(using, sql, None)]
