"""Repairs capture: records what is broken, repairs it, reports the gap once capture works, and requests a reread.

Each step is a transaction of its own. If a worker ends in between, the next one continues from the recorded cause.
"""

import logging
import time
from collections.abc import Iterable
from datetime import timedelta

from django.db import DatabaseError, InterfaceError, OperationalError, transaction
from django.db.models import Model

from hc_signals.capture import orphans, outages, probe, table_state
from hc_signals.capture.drift import TableCheck, check_tables
from hc_signals.capture.status import log_fault
from hc_signals.conf import Conf
from hc_signals.log.passed import report_passed
from hc_signals.log.schema import Cause
from hc_signals.postgres.errors import is_lock_timeout, lacks_privilege, one_line
from hc_signals.postgres.moments import shown

logger = logging.getLogger("hc_signals")

HEALTHY_EVERY = timedelta(minutes=5)
"""How often a healthy check is recorded. A reported gap begins at most this much too early."""
LOCKED_SECONDS = 5.0
"""Seconds until the next check if a table was locked."""
REMINDER_SECONDS = 600.0
"""Seconds between two warnings of the same problem."""
ORPHANS_SECONDS = 3600.0
"""Seconds between two searches for orphans."""

_OF_ANOTHER = "Another service or release has replaced this capture function; hc_listen leaves it alone."
_NO_RIGHTS = (
    "This role may not repair it: run `manage.py hc_triggers install` as the role that owns the capture functions and "
    "has TRIGGER on the table."
)


class Repairs:
    """Keeps capture installed on the models' tables of one database. One thread uses it, outside transactions.

    Of the setting it uses CONSUMER, REPAIR_TRIGGERS and WATCH_SECONDS.
    """

    def __init__(self, using: str, conf: Conf, models: Iterable[type[Model]]) -> None:
        self.using, self.conf, self.models = using, conf, list(models)
        self.is_reread_due = False
        """True if the last run found or requested a reread."""
        self.is_refilling = True
        """True if the last run found a reload, or a new column being filled, whose end must be reported."""
        self._logged: dict[tuple[str, str], float] = {}
        self._has_run, self._orphans_due = False, 0.0
        # By table, the columns of the last function that was right. Another function for the same columns is another
        # service's or release's.
        self._right_columns: dict[str, tuple[str, ...]] = {}

    def run(self) -> float:
        """Check all tables once and repair what is broken; return the seconds until the next run."""
        checks = check_tables(self.models, self.using)
        if any(check.found.is_unlogged for check in checks) and table_state.record_crash(self.using):
            checks = check_tables(self.models, self.using)
        self.is_refilling = any(check.is_refilling for check in checks)
        self.is_reread_due = any(check.state is not None and check.state.reread_since for check in checks)
        if any(check.is_suspended for check in checks):
            return self.conf.WATCH_SECONDS
        self._log_orphans()
        if not self._has_run:
            self._has_run = True
            for check in checks:
                if not check.is_watched:  # the others are repaired, or logged there
                    log_fault(check.status)
        watched = [check for check in checks if check.is_watched]
        self._record_healthy([check for check in watched if check.cause is None and check.status.is_captured])
        self._report_skipped([check for check in watched if check.is_skipped])
        done = [self._handle(check) for check in watched if check.cause or check.status.state != "installed"]
        return self.conf.WATCH_SECONDS if all(done) else min(LOCKED_SECONDS, self.conf.WATCH_SECONDS)

    def _record_healthy(self, checks: list[TableCheck]) -> None:
        for check in checks:
            if check.status.state == "installed":
                self._right_columns[check.status.table] = check.found.layout(check.model).columns
        stale = [check for check in checks if _is_state_stale(check)]
        table_state.record_healthy(self.using, {check.status.table: check.healthy for check in stale})

    def _handle(self, check: TableCheck) -> bool:
        """Repair one table and report its gap; return False if the table is locked."""
        is_replaced = self._is_replaced(check)
        if is_replaced:
            self._log(check, "replaced", _OF_ANOTHER)
            if check.fault is not None:
                return True
        cause = check.cause
        if cause is not None and not self._record_cause(check, cause):
            return True  # another worker repairs it
        if check.status.state != "installed" and not is_replaced:
            done = self._repair(check, cause)
            if done is not None:
                return done
        if cause is not None:
            self._report_gap(check)
        return True

    def _record_cause(self, check: TableCheck, cause: str) -> bool:
        """Record the cause, unless one is recorded; return False if the state has changed since the check."""
        if check.state is not None and check.state.cause is not None:
            return True
        is_recorded = table_state.record_cause(self.using, check.status.table, check.state, cause)
        if is_recorded:
            logger.warning("Capture on %s was broken: %s.", check.status.table, cause)
        return is_recorded

    def _is_replaced(self, check: TableCheck) -> bool:
        """Return True if another service or release has replaced a function that was right for our model."""
        return (
            check.status.state == "outdated"
            and check.fault in (None, Cause.COLUMNS_MISSING, Cause.ORIGINS_MISSING)
            and self._right_columns.get(check.status.table) == check.found.layout(check.model).columns
        )

    def _repair(self, check: TableCheck, cause: str | None) -> bool | None:
        """Install capture; return None if it is installed now, else the result of :meth:`_handle`."""
        if not self.conf.REPAIR_TRIGGERS:
            self._log(check, "report", "REPAIR_TRIGGERS is off; run `manage.py hc_triggers install`.")
            return True
        try:
            outages.repair(check, self.using, attempts=1)
        except InterfaceError:
            raise
        except DatabaseError as error:
            return self._log_failed_repair(check, error)
        self._right_columns[check.status.table] = check.found.layout(check.model).columns
        if cause is None:
            if check.status.has_stale_triggers:
                outages.record_healthy(check.model, self.using)  # else the new triggers would be drift
            self._log_repair_without_gap(check)
        return None

    def _log_failed_repair(self, check: TableCheck, error: DatabaseError) -> bool:
        if isinstance(error, OperationalError):
            if not is_lock_timeout(error):
                raise error
            self._log(check, "locked", f"The table is locked; hc_listen tries again every {LOCKED_SECONDS:g} s.")
            return False
        if lacks_privilege(error):
            self._log(check, "rights", _NO_RIGHTS, once=True)
        else:
            self._log(check, "failed", f"The repair failed: {one_line(error)}.")
        return True

    def _log_repair_without_gap(self, check: TableCheck) -> None:
        """Log the repair of a table that was never captured, or had an older function that missed nothing."""
        table = check.status.table
        if not check.is_new:
            logger.info("hc_listen renewed the capture function of %s (%s).", table, check.status.detail)
        elif outages.record_healthy(check.model, self.using):
            logger.info(
                "%s is captured from now on. The rows already in it are not changes; "
                "`manage.py hc_backfill %s --receiver ...` delivers them.",
                table,
                check.model._meta.label,
            )

    def _report_gap(self, check: TableCheck) -> None:
        """Report the gap, if capture works now and no other worker has reported it."""
        gap = outages.report_gap(check.model, self.using)
        if gap is None:
            return
        self.is_reread_due |= gap.is_reread
        logger.warning(
            "Capture on %s works again (it was broken: %s). gap_detected is sent: changes may be missing since %s. %s",
            gap.table,
            gap.cause,
            shown(gap.since) if gap.since else "an unknown time",
            "hc_listen reads again what Salesforce changed since then."
            if gap.is_reread
            else f"Nothing is read again; `manage.py hc_backfill {check.model._meta.label}` does that.",
        )

    def _report_skipped(self, checks: list[TableCheck]) -> None:
        """Report the changes that our consumer has skipped, as a gap; a reread reaches every consumer."""
        if not checks:
            return
        columns = {check.status.table: check.found.columns for check in checks}
        rereadable = {check.status.table for check in checks if check.found.can_reread}
        with transaction.atomic(using=self.using):
            reported = report_passed(self.using, self.conf.CONSUMER, columns)
            for table, since in reported.items():
                if table in rereadable:
                    table_state.request_reread(self.using, [table], since)
                    self.is_reread_due = True
        for table, since in reported.items():
            logger.warning(
                "There was no connected model for %s: its changes since %s were skipped. gap_detected is sent.",
                table,
                shown(since),
            )

    def _log(self, check: TableCheck, problem: str, text: str, once: bool = False) -> None:
        """Log a problem of a table, again every REMINDER_SECONDS or, if ``once``, never again."""
        key, now = (check.status.table, problem), time.monotonic()
        if key not in self._logged or (not once and now - self._logged[key] > REMINDER_SECONDS):
            self._logged[key] = now
            status = check.status
            logger.warning("Capture on %s is %s (%s). %s", status.table, status.state, status.detail, text)

    def _log_orphans(self) -> None:
        if time.monotonic() < self._orphans_due:
            return
        self._orphans_due = time.monotonic() + ORPHANS_SECONDS
        if probe.remove_abandoned(self.using):
            logger.info("hc_listen removed the triggers of a `hc_triggers probe` that was killed.")
        for orphan in orphans.find(self.models, self.using):
            if (orphan.table, "orphan") not in self._logged:
                self._logged[orphan.table, "orphan"] = 0.0
                logger.warning(
                    "Capture on %s: orphan (%s). If no other service uses it: `manage.py hc_triggers uninstall "
                    "--orphans`.",
                    orphan.table,
                    orphan.detail,
                )


def _is_state_stale(check: TableCheck) -> bool:
    """Return True if the recorded state of a healthy table should be updated."""
    before = check.state
    if before is None or before.good_at is None or before.filenode != check.found.filenode:
        return True
    return abs(check.at - before.good_at) > HEALTHY_EVERY  # the server's clock may go back
