"""What is known of each captured table: when capture was last seen right on it, and what is owed since.

It stands in the database, so that it is known since when changes may have been missed although no worker lived. A row
is changed on the condition that it is still as it was when it was read: of two workers, one gets to do a thing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connections

from hc_signals.log.append import append_gap, wake
from hc_signals.postgres.moments import aware_row


@dataclass(frozen=True)
class Known:
    """What ``hc_signals_table`` has of one table; the columns are explained there."""

    table: str
    relation: int | None
    filenode: int | None
    versions: str | None
    good_at: datetime | None
    cause: str | None
    uninstalled_at: datetime | None
    reread_since: datetime | None
    reread_after: int | None


COLUMNS = "table_name, relation, filenode, versions, good_at, cause, uninstalled_at, reread_since, reread_after"
"""Those of a :class:`Known`, in order."""

# Not where another worker has found something wrong meanwhile, or knows better. A time in the future was stored before
# the server's clock went back.
_NOTE_GOOD = """
INSERT INTO public.hc_signals_table AS t (table_name, relation, filenode, versions, seen, good_at)
SELECT * FROM unnest(%s::text[], %s::oid[], %s::oid[], %s::text[], %s::pg_snapshot[], %s::timestamptz[])
ON CONFLICT (table_name) DO UPDATE SET relation = excluded.relation, filenode = excluded.filenode,
    versions = excluded.versions, seen = excluded.seen, good_at = excluded.good_at
WHERE t.cause IS NULL AND t.uninstalled_at IS NULL 
  AND (t.good_at IS NULL OR t.good_at < excluded.good_at OR t.good_at > clock_timestamp())
RETURNING table_name, xmax = 0
"""
_SUSPECT = """
INSERT INTO public.hc_signals_table AS t (table_name, cause) VALUES (%s, %s)
ON CONFLICT (table_name) DO UPDATE SET cause = excluded.cause
WHERE t.cause IS NULL AND t.uninstalled_at IS NULL AND t.good_at IS NOT DISTINCT FROM %s::timestamptz
RETURNING true
"""
_SETTLE = """
UPDATE public.hc_signals_table SET relation = %s, filenode = %s, versions = %s, seen = %s::pg_snapshot,
    good_at = %s, cause = NULL, uninstalled_at = NULL,
    reread_since = CASE WHEN %s THEN least(reread_since, good_at, clock_timestamp()) ELSE reread_since END,
    reread_after = CASE WHEN %s THEN NULL ELSE reread_after END
WHERE table_name = %s
"""
# From the start, also where a part was read already: what is due now may be there.
_REREAD = """
INSERT INTO public.hc_signals_table AS t (table_name, reread_since)
SELECT table_name, %s FROM unnest(%s::text[]) table_name
ON CONFLICT (table_name) DO UPDATE SET reread_since = least(t.reread_since, excluded.reread_since), reread_after = NULL
WHERE t.uninstalled_at IS NULL
"""
# What is owed already is older.
_OWE = """
INSERT INTO public.hc_signals_table AS t (table_name, cause, good_at, uninstalled_at)
VALUES (%(table)s, %(cause)s, %(since)s, CASE WHEN %(uninstalled)s THEN clock_timestamp() END)
ON CONFLICT (table_name) DO UPDATE SET cause = coalesce(t.cause, excluded.cause),
    good_at = CASE WHEN t.cause IS NULL THEN excluded.good_at ELSE t.good_at END,
    uninstalled_at = coalesce(t.uninstalled_at, excluded.uninstalled_at)
"""
# Since when a table that is uninstalled now is incomplete: a pause, or a reload of which nothing is kept, came first.
_OFF_SINCE = """
SELECT least(clock_timestamp(), c.paused_at, c.gap_since, (
    SELECT min(cleared_at) FROM public.hc_signals_reload WHERE table_name = %s
)) FROM public.hc_signals_control c
"""


# hc_signals_unlogged is one of them: it has a row until a crash empties them all.
_NOTE_CRASH = """
WITH crash AS (
    INSERT INTO public.hc_signals_unlogged DEFAULT VALUES ON CONFLICT DO NOTHING RETURNING true
)
UPDATE public.hc_signals_table t SET cause = 'unlogged_emptied' FROM pg_class c
WHERE EXISTS (SELECT FROM crash) AND c.oid = t.relation AND c.relpersistence = 'u' AND t.cause IS NULL
RETURNING true
"""


def is_there(using: str) -> bool:
    """Tell whether this database has a change log, and with it what is known of tables."""
    return bool(_fetch(using, "SELECT to_regclass('public.hc_signals_table') IS NOT NULL", [])[0][0])


def read(using: str) -> dict[str, Known]:
    """Return what is known, by table; nothing where there is no log, or one that this role may not read."""
    if not _fetch(using, "SELECT has_table_privilege(to_regclass('public.hc_signals_table'), 'SELECT')", [])[0][0]:
        return {}
    return {row[0]: Known(*row) for row in _fetch(using, f"SELECT {COLUMNS} FROM public.hc_signals_table", [])}


def note_good(using: str, rows: Sequence[tuple[str, int | None, int | None, str, str, datetime]]) -> set[str]:
    """Note that capture was right: table, relation, file node, versions, snapshot, time; return the tables new here."""
    if not rows:
        return set()
    return {table for table, is_new in _fetch(using, _NOTE_GOOD, list(map(list, zip(*rows, strict=True)))) if is_new}


def suspect(using: str, table: str, known: Known | None, cause: str) -> bool:
    """Note what is wrong, before anything is done about it; False if what was known is no longer so."""
    return bool(_fetch(using, _SUSPECT, [table, cause, None if known is None else known.good_at]))


def note_crash(using: str) -> bool:
    """Note, once, that a crash has emptied the unlogged tables that were captured; tell whether there were any."""
    return bool(_fetch(using, _NOTE_CRASH, []))


def lock(using: str, table: str) -> Known | None:
    """Return what is known of a table, for this transaction to change."""
    found = _fetch(using, f"SELECT {COLUMNS} FROM public.hc_signals_table WHERE table_name = %s FOR UPDATE", [table])
    return Known(*found[0]) if found else None


def settle(
    using: str, before: Known, good: tuple[int | None, int | None, str, str, datetime], can_reread: bool
) -> None:
    """Tell the gap of a table on which capture is right again, and have it read again. In the transaction of `lock`.

    Args:
        before: what `lock` returned; it has a cause.
        good: relation, file node, versions, snapshot and time.
        can_reread: whether rows can be told by the time of their change.
    """
    append_gap(using, before.table, before.cause or "", before.good_at)
    with connections[using].cursor() as cursor:
        cursor.execute(_SETTLE, [*good, can_reread, can_reread, before.table])
    wake(using)


def owe_reread(using: str, tables: Sequence[str], since: datetime) -> None:
    """Have captured tables read again: what changed since then."""
    with connections[using].cursor() as cursor:
        cursor.execute(_REREAD, [since, list(tables)])


def claim_reread(using: str, tables: Iterable[str]) -> Known | None:
    """Claim one of the tables that are due to be read again, until the transaction ends."""
    sql = (
        f"SELECT {COLUMNS} FROM public.hc_signals_table WHERE reread_since IS NOT NULL AND uninstalled_at IS NULL "
        "AND table_name = ANY (%s) ORDER BY table_name LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    found = _fetch(using, sql, [list(tables)])
    return Known(*found[0]) if found else None


def note_reread(using: str, table: str, after: int | None, is_done: bool = False) -> None:
    """Note how far a table has been read again. In the transaction of the claim."""
    since = "reread_since = NULL, reread_after = NULL" if is_done else "reread_after = %(after)s"
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"UPDATE public.hc_signals_table SET {since} WHERE table_name = %(table)s",
            {"after": after, "table": table},
        )


def owe(using: str, table: str, cause: str | None, since: datetime | None, uninstalled: bool = False) -> None:
    """Note that a table is, or was, not captured: it is told as a gap once capture is right on it.

    Args:
        cause: of the gap; None: nothing was captured before either, so there is none to tell.
        since: when it began; None where nobody knows.
        uninstalled: the table is to be left alone until :func:`note_installed`.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_OWE, {"table": table, "since": since, "uninstalled": uninstalled, "cause": cause})


def off_since(using: str, table: str) -> datetime:
    """Return since when a table is incomplete whose capture is removed now, with all that is kept of its reload."""
    return _fetch(using, _OFF_SINCE, [table])[0][0]  # type: ignore[no-any-return]


def note_installed(using: str, table: str) -> None:
    """Let a table that was left alone be captured again; a gap that it owes is told when capture is right."""
    with connections[using].cursor() as cursor:
        left_alone = "table_name = %s AND uninstalled_at IS NOT NULL"
        cursor.execute(f"DELETE FROM public.hc_signals_table WHERE {left_alone} AND cause IS NULL", [table])
        cursor.execute(f"UPDATE public.hc_signals_table SET uninstalled_at = NULL WHERE {left_alone}", [table])


def _fetch(using: str, sql: str, params: Sequence[Any]) -> list[Any]:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, params)
        return [aware_row(row) for row in cursor.fetchall()]
