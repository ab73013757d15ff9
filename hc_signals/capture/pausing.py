"""The kill switch: capture is switched off and on by one row, without a lock on any table of Heroku Connect's.

The capture functions read the row once per statement. Their triggers still collect the rows of each statement, so there
is a stronger form as well, which takes them off the tables. What was changed meanwhile is told as a gap of each table,
and the worker reads it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import DatabaseError, connections, transaction
from django.db.models import Model

from hc_signals.capture import orphans, outages, table_state, triggers
from hc_signals.capture.drift import look
from hc_signals.capture.function import function_name
from hc_signals.log.append import wake
from hc_signals.postgres.locks import UNTOLD
from hc_signals.postgres.moments import aware, aware_row
from hc_signals.tables import connected_models, table_label

_PAUSE = """
UPDATE public.hc_signals_control SET paused_at = coalesce(paused_at, clock_timestamp()), is_removed = is_removed OR %s
RETURNING paused_at
"""
# Capture runs again from here on; the gap stays owed until it is written.
_SWITCH_ON = """
UPDATE public.hc_signals_control SET gap_since = least(gap_since, paused_at), paused_at = NULL
WHERE paused_at IS NOT NULL
"""
# Waits for the transactions that skipped something: a receiver that reads the table again must see what they did.
_WAIT = f"SELECT pg_advisory_xact_lock({UNTOLD[0]}, {UNTOLD[1]})"
IS_REMOVED = "Capture was taken off every table by `hc_triggers pause --remove`: nothing is installed."
_TOLD = "UPDATE public.hc_signals_control SET gap_since = NULL, is_removed = false"


@dataclass(frozen=True)
class Pause:
    """What is known of a pause."""

    since: datetime | None = None
    """Since when capture is off; None: it is on."""
    owed: datetime | None = None
    """Since when there is a gap that :func:`resume` has not written yet."""
    is_removed: bool = False
    """Capture is, or is being, taken off every table until :func:`resume`."""


@dataclass(frozen=True)
class Resumed:
    """What a pause has left behind."""

    since: datetime
    """When it began."""
    reread: list[str]
    """The tables of which what changed since is read again."""
    unread: list[str]
    """Captured tables of which it is not: they have no ``systemmodstamp``."""
    failed: Mapping[str, DatabaseError]
    """Tables to which capture could not be brought back yet; their gap is told when somebody has."""


def pause(using: str, is_removed: bool = False) -> datetime:
    """Switch capture off, effective for every statement that begins after this; return since when it is off.

    Args:
        is_removed: nothing is to be installed until :func:`resume`: see :func:`take_off`.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_PAUSE, [is_removed])
        since: datetime = cursor.fetchone()[0]
        return aware(since)


def take_off(model: type[Model], using: str, since: datetime) -> None:
    """Take capture off a table until :func:`resume`.

    Args:
        since: what :func:`pause` returned.

    Raises:
        OperationalError: the table stayed locked.
    """

    def needed() -> list[str]:
        outages.note_off(model, using, "paused", lambda: since)
        return [triggers.drop_function_sql(function_name(model))]

    triggers.run_patiently(using, needed)


def find(using: str) -> Pause:
    """Return what is known of a pause; nothing where there is no log, or one that this role may not read."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT has_table_privilege(to_regclass('public.hc_signals_control'), 'SELECT')")
        if not cursor.fetchone()[0]:
            return Pause()
        cursor.execute("SELECT paused_at, gap_since, is_removed FROM public.hc_signals_control")
        return Pause(*aware_row(cursor.fetchone() or ()))


def resume(using: str, models: Sequence[type[Model]]) -> Resumed | None:
    """Switch capture on at once, then wait for the transactions that were not captured and write the gap.

    Where capture was taken off, it is put back first. If that is interrupted, or the waiting is, the gap is owed and
    the worker keeps off: call it again.

    Args:
        using: database alias.
        models: of the tables that are told; those that do not exist, or were uninstalled, are passed over.

    Returns:
        None if there was neither a pause nor a gap owed.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_SWITCH_ON)
    failed = _put_back(using, models) if find(using).is_removed else {}
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute(_WAIT)
        cursor.execute("SELECT gap_since FROM public.hc_signals_control FOR UPDATE")
        since = aware((cursor.fetchone() or (None,))[0])
        if since is None:
            return None
        _owe(using, models, since)
        told = list(filter(None, (outages.tell(model, using) for model in models)))
        cursor.execute(_TOLD)
        wake(using)
    reread = [returned.table for returned in told if returned.is_reread]
    return Resumed(since, reread, sorted({returned.table for returned in told} - set(reread)), failed)


def _put_back(using: str, models: Sequence[type[Model]]) -> dict[str, DatabaseError]:
    """Install capture table by table; return what could not be had."""
    failed = {}
    for sight in look(models, using):
        if sight.is_minded:
            try:
                outages.repair(sight, using)
            except DatabaseError as error:
                failed[sight.model._meta.label] = error
    return failed


def _owe(using: str, models: Sequence[type[Model]], since: datetime) -> None:
    """Note the gap of every table, those of other services and of models that are gone as well."""
    for sight in look(models, using):
        if not sight.is_first and not sight.is_left_alone:
            table_state.owe(using, sight.status.table, *outages.gap_of(sight, "paused", since))
    connected = connected_models()
    others = {each.table for each in table_state.read(using).values() if each.uninstalled_at is None}
    others |= {status.table for status in orphans.find(connected, using) if status.detail == orphans.NO_MODEL}
    for table in others - set(map(table_label, connected)):
        table_state.owe(using, table, "paused", since)
