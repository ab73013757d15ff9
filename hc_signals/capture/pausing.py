"""The kill switch: capture is switched off and on by one row, without a lock on any table of Heroku Connect's.

The capture functions read the row once per statement. What was changed meanwhile is told as a gap of each table, and
the worker reads it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connections, transaction
from django.db.models import Model

from hc_signals.capture import known, triggers
from hc_signals.locks import UNTOLD
from hc_signals.tables import table_label

_PAUSE = """
UPDATE public.hc_signals_control SET paused_at = coalesce(paused_at, clock_timestamp()) RETURNING paused_at
"""
# Capture runs again from here on; the gap stays owed until it is written.
_SWITCH_ON = """
UPDATE public.hc_signals_control SET gap_since = least(gap_since, paused_at), paused_at = NULL
WHERE paused_at IS NOT NULL
"""
# Waits for the transactions that skipped something: a receiver that reads the table again must see what they did.
_WAIT = f"SELECT pg_advisory_xact_lock({UNTOLD[0]}, {UNTOLD[1]})"
_WRITE_GAPS = """
INSERT INTO public.hc_signals_change (table_name, operation, origin, note)
SELECT label, 'GAP', 'heroku_connect', json_build_object('cause', 'paused', 'since', c.gap_since, 'until', now)
FROM public.hc_signals_control c, unnest(%s::text[]) label, clock_timestamp() now WHERE c.gap_since IS NOT NULL
"""
_SETTLED = "UPDATE public.hc_signals_control SET gap_since = NULL"


@dataclass(frozen=True)
class Resumed:
    """What a pause has left behind."""

    since: datetime
    """When it began."""
    reread: list[str]
    """The tables of which what changed since is read again."""
    unread: list[str]
    """Captured tables of which it is not: they have no ``systemmodstamp``."""


def pause(using: str) -> datetime:
    """Switch capture off, effective for every statement that begins after this; return since when it is off."""
    with connections[using].cursor() as cursor:
        cursor.execute(_PAUSE)
        return cursor.fetchone()[0]  # type: ignore[no-any-return]


def paused_since(using: str) -> tuple[datetime | None, datetime | None]:
    """Return since when capture is off, and from when on there is a gap that :func:`resume` has not written yet.

    Both None where there is no log, or one that this role may not read.
    """
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT has_table_privilege(to_regclass('public.hc_signals_control'), 'SELECT')")
        if not cursor.fetchone()[0]:
            return None, None
        cursor.execute("SELECT paused_at, gap_since FROM public.hc_signals_control")
        return cursor.fetchone() or (None, None)


def resume(using: str, models: Sequence[type[Model]]) -> Resumed | None:
    """Switch capture on at once, then wait for the transactions that were not captured and write the gap.

    If it is interrupted while it waits, capture is on and the gap is owed: call it again.

    Args:
        using: database alias.
        models: of the tables that are told; those that do not exist are passed over.

    Returns:
        None if there was neither a pause nor a gap owed.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_SWITCH_ON)
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute(_WAIT)
        cursor.execute("SELECT gap_since FROM public.hc_signals_control FOR UPDATE")
        since: datetime | None = (cursor.fetchone() or (None,))[0]
        if since is None:
            return None
        tables = {table: found for table, found in _found(using, models).items() if found.oid is not None}
        cursor.execute(_WRITE_GAPS, [list(tables)])
        captured = [table for table, found in tables.items() if found.triggers]
        reread = [table for table in captured if "systemmodstamp" in tables[table].columns]
        known.owe_reread(using, reread, since)
        cursor.execute(_SETTLED)
        cursor.execute("SELECT public.hc_signals_ring()")
    return Resumed(since, reread, sorted(set(captured) - set(reread)))


def _found(using: str, models: Sequence[type[Model]]) -> dict[str, triggers.Found]:
    return dict(zip(map(table_label, models), triggers.find(models, using), strict=True))
