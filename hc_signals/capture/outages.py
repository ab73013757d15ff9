"""Removes and restores capture of one table so that its gap is recorded and reported.

The worker and the commands ``install``, ``uninstall``, ``pause --remove`` and ``resume`` use these functions. One
transaction records the cause and removes capture. A later one finds capture working, reports the gap and requests a
reread. If a process ends in between, the next one continues from the recorded cause.
"""

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Model

from hc_signals.capture import table_state
from hc_signals.capture.drift import TableCheck, check_tables
from hc_signals.capture.install import install_capture, uninstall_capture
from hc_signals.log.schema import Cause, exists
from hc_signals.tables import table_label


@dataclass(frozen=True)
class ReportedGap:
    """The gap of a table on which capture works again."""

    table: str
    cause: str
    since: datetime | None
    """When the first change may have been missed; None if unknown."""
    is_reread: bool
    """True if ``hc_listen`` reads the rows again that Salesforce changed since then."""


def uninstall(model: type[Model], using: str) -> None:
    """Remove capture from a table for good; raise OperationalError if the table stays locked."""
    uninstall_capture(model, using, lambda: record_removal(model, using, Cause.UNINSTALLED, uninstalled=True))


def record_removal(
    model: type[Model], using: str, cause: str, since: datetime | None = None, uninstalled: bool = False
) -> None:
    """Record, in the transaction that removes capture from a table, that it is removed.

    Args:
        cause: of the gap that will be reported, unless capture was already broken.
        since: when the gap begins; default: now, or when changes of the table began to be missing.
        uninstalled: the worker does not install capture again.
    """
    if not exists(using):
        return  # without a log there is no consumer
    check = check_tables([model], using)[0]
    if check.is_uninstalled or (check.is_new and not uninstalled):
        return
    table = check.status.table
    if check.is_new:
        table_state.record_gap(using, table, None, None, uninstalled)
    else:
        since = since or table_state.incomplete_since(using, table)
        table_state.record_gap(using, table, *pending_gap(check, cause, since), uninstalled)


def pending_gap(check: TableCheck, cause: str, since: datetime) -> tuple[str, datetime | None]:
    """Return cause and beginning of the gap of a table whose capture is removed for ``cause`` at ``since``.

    If capture was already broken, the gap is the longer one, with that cause. If the table does not exist, its capture
    cannot be checked.
    """
    good_at = None if check.state is None else check.state.good_at
    if check.found.oid is None:
        return cause, good_at or since
    return (cause, since) if check.cause is None else (check.cause, good_at)


def install(model: type[Model], using: str, attempts: int = 5) -> ReportedGap | None:
    """Install capture on a table and report the gap until now; while capture is paused, ``resume`` reports it.

    It returns None if nothing was missed, or capture does not work yet. It raises DatabaseError if the table stayed
    locked for ``attempts`` times LOCK_TIMEOUT, or this role lacks a right.
    """
    check = check_tables([model], using)[0]
    table = check.status.table
    if check.found.oid is not None and check.cause is not None:
        table_state.record_cause(using, table, check.state, check.cause)
    table_state.clear_uninstalled(using, table)
    repair(check, using, attempts)
    if check.is_suspended:
        return None
    gap = report_gap(model, using)
    if gap is None:
        record_healthy(model, using)
    return gap


def repair(check: TableCheck, using: str, attempts: int = 5) -> None:
    """Install capture if it is not as it should be; raise as :func:`install` does."""
    # If changes were missed, wait for open writers, so that the gap is reported after they commit.
    wait = check.fault not in (None, Cause.COLUMNS_MISSING)
    install_capture(check.model, using, attempts=attempts, wait_for_writers=wait)


def record_healthy(model: type[Model], using: str) -> bool:
    """Record that capture works on a table, if it does; return True if the table had no state before."""
    check = check_tables([model], using)[0]
    if check.found.oid is None or check.fault is not None or check.is_suspended:
        return False
    return bool(table_state.record_healthy(using, {check.status.table: check.healthy}))


def report_gap(model: type[Model], using: str) -> ReportedGap | None:
    """Report the recorded gap of a table, if capture works in the transaction that reports it.

    It returns None if there is no recorded gap, another process has reported it, or capture does not work yet.
    """
    with transaction.atomic(using=using):
        before = table_state.lock(using, table_label(model))
        if before is None or before.cause is None:
            return None
        fresh = check_tables([model], using)[0]
        if fresh.found.oid is None or fresh.fault is not None:
            return None
        is_reread = fresh.found.can_reread and before.good_at is not None
        table_state.report_gap(using, before, fresh.healthy, is_reread)
    return ReportedGap(before.table, before.cause, before.good_at, is_reread)
