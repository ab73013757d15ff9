"""The kill switch: one row switches capture off and on, without a lock on any table of Heroku Connect.

The capture functions read the row once per statement. The triggers still collect the rows of each statement, so a
stronger form also removes them from the tables. ``resume`` reports a gap of each table, and requests a reread.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import DatabaseError, connections, transaction
from django.db.models import Model

from hc_signals.capture import orphans, outages, table_state
from hc_signals.capture.drift import check_tables
from hc_signals.capture.function import function_name
from hc_signals.capture.install import drop_function_sql, run_in_turn
from hc_signals.log.append import wake
from hc_signals.log.schema import Cause
from hc_signals.postgres.locks import UNTOLD
from hc_signals.postgres.moments import aware, aware_row
from hc_signals.postgres.query import execute, row, rows
from hc_signals.tables import connected_models, table_label

_PAUSE = """
UPDATE public.hc_signals_control SET paused_at = coalesce(paused_at, clock_timestamp()), is_removed = is_removed OR %s
RETURNING paused_at
"""
# Capture works from here on; gap_since is set until resume() has reported the gap.
_SWITCH_ON = """
UPDATE public.hc_signals_control SET gap_since = least(gap_since, paused_at), paused_at = NULL
WHERE paused_at IS NOT NULL
"""
# Transactions that skipped capture. Writers share the lock. A request to hold it alone would be simpler, but the next
# writers would queue behind it: one that loses its change waits 10 ms, then counts the loss without the lock, and the
# worker reports it too early.
_UNCAPTURED = f"""
SELECT virtualtransaction FROM pg_locks WHERE locktype = 'advisory' AND granted
AND (classid, objid, objsubid) = ({UNTOLD[0]}, {UNTOLD[1]}, 2)
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_POLL_SECONDS = 0.05
IS_REMOVED = "`hc_triggers pause --remove` has removed capture from every table: nothing is installed."
_END_PAUSE = "UPDATE public.hc_signals_control SET gap_since = NULL, is_removed = false"


@dataclass(frozen=True)
class Pause:
    """Whether capture is paused on a database."""

    since: datetime | None = None
    """When capture was switched off; None if it is on."""
    owed: datetime | None = None
    """When the gap began that :func:`resume` has not reported yet; None if there is none."""
    is_removed: bool = False
    """True if capture is removed from the tables, at least from some, until :func:`resume`."""


@dataclass(frozen=True)
class Resumed:
    """The result of :func:`resume`."""

    since: datetime
    """When the pause began."""
    reread: list[str]
    """Tables to re-read for changes since then."""
    unread: list[str]
    """Captured tables that cannot be re-read: they have no ``systemmodstamp``."""
    failed: Mapping[str, DatabaseError]
    """By label of the model, why capture could not be installed. Their gap is reported once it is installed."""


def pause(using: str, is_removed: bool = False) -> datetime:
    """Switch capture off for every statement that begins from now on; return since when it is off.

    ``is_removed``: the caller will also :func:`remove` capture; nothing is installed until :func:`resume`.
    """
    (since,) = aware_row(row(using, _PAUSE, [is_removed]))
    return since  # type: ignore[no-any-return]


def remove(model: type[Model], using: str, since: datetime) -> None:
    """Remove capture from a table, off since ``since``, until :func:`resume`; OperationalError if it stays locked."""

    def statements() -> list[str]:
        outages.record_removal(model, using, Cause.PAUSED, since)
        return [drop_function_sql(function_name(model))]

    run_in_turn(using, statements)


def find(using: str) -> Pause:
    """Return the pause; an empty one if there is no log, or this role may not read it."""
    if not row(using, "SELECT has_table_privilege(to_regclass('public.hc_signals_control'), 'SELECT')")[0]:
        return Pause()
    return Pause(*aware_row(row(using, "SELECT paused_at, gap_since, is_removed FROM public.hc_signals_control") or ()))


def resume(using: str, models: Sequence[type[Model]]) -> Resumed | None:
    """Switch capture on, wait for the transactions that were not captured, and report the gap; None if there is none.

    Capture that was removed is installed first. If this is interrupted, the gap stays owed and the worker repairs
    nothing: call it again. Models whose table does not exist, or was uninstalled, are skipped.
    """
    execute(using, _SWITCH_ON)
    failed = _reinstall(using, models) if find(using).is_removed else {}
    _wait_for_uncaptured(using)
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute("SELECT gap_since FROM public.hc_signals_control FOR UPDATE")
        since = aware((cursor.fetchone() or (None,))[0])
        if since is None:
            return None
        _record_gaps(using, models, since)
        gaps = list(filter(None, (outages.report_gap(model, using) for model in models)))
        cursor.execute(_END_PAUSE)
        wake(using)
    reread = [gap.table for gap in gaps if gap.is_reread]
    return Resumed(since, reread, sorted({gap.table for gap in gaps} - set(reread)), failed)


def _wait_for_uncaptured(using: str) -> None:
    """Wait for the transactions that skipped capture, so that a receiver of the gap sees their changes in the table.

    Those that share the lock from now on have read that capture is on.
    """
    waiting = set(rows(using, _UNCAPTURED))
    while waiting:
        time.sleep(_POLL_SECONDS)
        waiting &= set(rows(using, _UNCAPTURED))


def _reinstall(using: str, models: Sequence[type[Model]]) -> dict[str, DatabaseError]:
    """Install capture table by table; return the errors by label of the model."""
    failed = {}
    for check in check_tables(models, using):
        if check.is_watched:
            try:
                outages.repair(check, using)
            except DatabaseError as error:
                failed[check.model._meta.label] = error
    return failed


def _record_gaps(using: str, models: Sequence[type[Model]], since: datetime) -> None:
    """Record the gap of every captured table, also of other services and of models that were removed."""
    for check in check_tables(models, using):
        if not check.is_new and not check.is_uninstalled:
            table_state.record_gap(using, check.status.table, *outages.pending_gap(check, Cause.PAUSED, since))
    connected = connected_models()
    others = {each.table for each in table_state.read(using).values() if not each.is_uninstalled}
    others |= {status.table for status in orphans.find(connected, using) if status.detail == orphans.NO_MODEL}
    for table in others - set(map(table_label, connected)):
        table_state.record_gap(using, table, Cause.PAUSED, since)
