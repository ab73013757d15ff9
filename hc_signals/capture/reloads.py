"""Finds the end of reloads and resyncs, which no writer can know, and appends it to the log.

A reload is over if no row has come back for RELOAD_QUIET_SECONDS by the database's clock, and no transaction writes to
the table. The capture triggers record everything else in the database, even if no worker runs.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db import OperationalError, ProgrammingError, transaction
from django.db.models import Model

from hc_signals.capture.install import install_capture
from hc_signals.capture.status import find_tables
from hc_signals.conf import Conf, mirror_origin
from hc_signals.log.append import INSERT_MISSING, append_note, wake
from hc_signals.postgres.errors import is_lock_timeout, lacks_privilege, one_line
from hc_signals.postgres.locks import RELOADS
from hc_signals.postgres.moments import aware_row
from hc_signals.postgres.query import execute, relation_exists, rows
from hc_signals.tables import connected_models, quoted_table, table_label

logger = logging.getLogger("hc_signals")

UNTOUCHED = 12
"""Factor of RELOAD_QUIET_SECONDS if no row has come back since the clearing."""
CHUNK = 500
"""Most missing records per transaction: a writer that continues the reload waits for the transaction."""

# The newest activity of each table, and whether any row has come back since the newest clearing.
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
# Whether a transaction writes to the table: a long COPY, say.
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
# Whether columns have been fresh for a long time and nothing fills them.
_ABANDONED = """
SELECT %(since)s::timestamptz < clock_timestamp() - make_interval(secs => %(seconds)s) AND NOT EXISTS (
    SELECT FROM public.hc_signals_refill WHERE table_name = %(table)s AND kind = 'resync')
"""


def finish_reloads(using: str, conf: Conf) -> list[str]:
    """Append the end of each reload and resync that is over: first the records that did not come back, then the counts.

    Call it repeatedly, outside a transaction. Several workers may: each end is appended once. It returns the labels of
    the tables. Of the setting it uses RELOAD_QUIET_SECONDS.
    """
    by_label = {table_label(model): model for model in connected_models()}
    finished = []
    for label, kind in rows(using, _QUIET, {"quiet": conf.RELOAD_QUIET_SECONDS}):
        if label in by_label and _finish(kind, by_label[label], using, conf):
            logger.info("The %s of %s is over.", kind, label)
            finished.append(label)
            if kind == "resync":
                _end_fresh(by_label[label], using)
    _end_fresh_columns(by_label, using, conf)
    return finished


def _finish(kind: str, model: type[Model], using: str, conf: Conf) -> bool:
    """Append one end, at most CHUNK records per transaction; return False if it is not over."""
    while True:
        try:
            with transaction.atomic(using=using):
                if not _claim(kind, model, using, conf):
                    return False
                if kind == "resync" or _append_missing(model, using) < CHUNK:
                    _append_end(kind, table_label(model), using)
                    return True
        except OperationalError as error:
            if not is_lock_timeout(error):
                raise
            return False  # a transaction holds a lock on the table
        except ProgrammingError as error:
            if not lacks_privilege(error):
                raise
            _warn_once(model, error)
            return False


_warned: set[type[Model]] = set()


def _warn_once(model: type[Model], error: ProgrammingError) -> None:
    if model not in _warned:
        _warned.add(model)
        logger.error(
            "%s: hc_listen cannot report the end of the reload (%s). Its role needs SELECT on the table, and BYPASSRLS "
            "if row-level security hides rows.",
            table_label(model),
            one_line(error),
        )


def _claim(kind: str, model: type[Model], using: str, conf: Conf) -> bool:
    """Keep writers from continuing the reload until this transaction ends; return False if it is not over.

    The lock on the table comes first, with NOWAIT: a TRUNCATE holds it while it waits for the advisory lock.
    """
    label = table_label(model)
    if not relation_exists(using, quoted_table(model)):
        return False  # dropped; Heroku Connect may create it again
    execute(using, f"LOCK TABLE {quoted_table(model)} IN ACCESS SHARE MODE NOWAIT")
    execute(using, "SET LOCAL row_security = off")  # a row that a policy hides would count as deleted
    if rows(using, _BUSY, [quoted_table(model), RELOADS, label])[0][0]:
        return False
    return (label, kind) in rows(using, _QUIET, {"quiet": conf.RELOAD_QUIET_SECONDS})


def _append_missing(model: type[Model], using: str) -> int:
    """Append the next cleared records that did not come back; return how many cleared records were examined."""
    params = {"table": table_label(model), "chunk": CHUNK, "origin": mirror_origin()}
    return int(rows(using, _MISSING.format(relation=quoted_table(model)), params)[0][0])


def _append_end(kind: str, label: str, using: str) -> None:
    """Append the counts, and delete the state of the reload or resync."""
    is_reload = kind == "reload"
    note = rows(using, _RELOADED if is_reload else _RESYNCED, {"table": label})[0][0]
    append_note(using, label, "RELOADED" if is_reload else "RESYNCED", note)
    if is_reload:
        execute(using, "DELETE FROM public.hc_signals_reload WHERE table_name = %s", [label])
    kinds = ["reload", "missing"] if is_reload else ["resync"]
    execute(using, "DELETE FROM public.hc_signals_refill WHERE table_name = %s AND kind = ANY (%s)", [label, kinds])
    wake(using)


def _end_fresh_columns(by_label: Mapping[str, type[Model]], using: str, conf: Conf) -> None:
    """Replace functions whose fresh columns nothing fills any more."""
    for (label, model), found in zip(by_label.items(), find_tables(list(by_label.values()), using), strict=True):
        layout = found.installed_layout
        if layout is None or not layout.fresh:
            continue
        seconds = conf.RELOAD_QUIET_SECONDS * UNTOUCHED
        if rows(using, _ABANDONED, {"since": layout.since, "seconds": seconds, "table": label})[0][0]:
            _end_fresh(model, using)


def _end_fresh(model: type[Model], using: str) -> None:
    """Install a function that treats all columns alike."""
    try:
        install_capture(model, using, attempts=1, end_fresh=True)
    except OperationalError as error:
        logger.info("The capture function of %s is not renewed yet (%s).", table_label(model), type(error).__name__)


@dataclass(frozen=True)
class Reload:
    """A table that was cleared and is being filled again."""

    table: str
    since: datetime
    """When it was cleared."""
    records: int
    """Number of records that were cleared."""


def under_way(using: str) -> list[Reload]:
    """Return the reloads that are not over yet."""
    sql = "SELECT table_name, min(cleared_at), sum(records)::bigint FROM public.hc_signals_reload GROUP BY 1 ORDER BY 1"
    return [Reload(*aware_row(row)) for row in rows(using, sql)]
