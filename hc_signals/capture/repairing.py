"""What is done about drift: capture is repaired, the gap is told, what may have been missed is due to be read again.

In this order, each step of its own: note what is wrong; repair; tell the gap when capture is seen right again. Whoever
dies in between leaves the note, and the next one goes on from there.
"""

import logging
import time
from collections.abc import Iterable
from datetime import timedelta

from django.db import DatabaseError, InterfaceError, OperationalError, transaction
from django.db.models import Model

from hc_signals.capture import orphans, outages, table_state
from hc_signals.capture.drift import Sight, look
from hc_signals.conf import Conf
from hc_signals.log.passed import report_passed
from hc_signals.postgres.errors import is_lock_timeout, lacks_privilege, one_line
from hc_signals.postgres.moments import shown

logger = logging.getLogger("hc_signals")

GOOD_EVERY = timedelta(minutes=5)
"""So often it is stored that capture is right: what is told as a gap begins so much too early at most."""
LOCKED_PAUSE = 5.0
"""Seconds until the next look where a table was locked."""
REMIND_SECONDS = 600.0
"""Between two warnings of the same thing."""
ORPHANS_EVERY = 3600.0

_OF_ANOTHER = (
    "It was right before: a service with another model of the same table, or another release, has changed it. "
    "It is left as it is."
)
_NO_RIGHTS = (
    "This role may not repair it: run `manage.py hc_triggers install` as the role that owns the capture functions and "
    "has TRIGGER on the table."
)


class Repairs:
    """Keeps capture as it should be on the tables of one database. Belongs to one thread; call it outside transactions.

    Args:
        using: database alias.
        conf: REPAIR_TRIGGERS and WATCH_SECONDS are used.
        models: connected models.
    """

    def __init__(self, using: str, conf: Conf, models: Iterable[type[Model]]) -> None:
        self.using, self.conf, self.models = using, conf, list(models)
        self.is_reread_due = False
        """Whether the last look found, or made, something to read again."""
        self.is_refilling = True
        """Whether the last look found a reload, or a new column that is being filled, whose end is to be told."""
        self._told: dict[tuple[str, str], float] = {}
        self._orphans_due = 0.0
        # The columns with which a function was right, or made so by us: made another one by somebody else, it is left.
        self._renewed: dict[str, tuple[str, ...]] = {}

    def look(self) -> float:
        """Look at all tables once and do what is to be done; return the seconds until the next look."""
        sights = look(self.models, self.using)
        if any(sight.found.is_unlogged for sight in sights) and table_state.note_crash(self.using):
            sights = look(self.models, self.using)
        self.is_refilling = any(sight.is_refilling for sight in sights)
        self.is_reread_due = any(sight.known is not None and sight.known.reread_since for sight in sights)
        if any(sight.is_off for sight in sights):
            return self.conf.WATCH_SECONDS
        self._report_orphans()
        minded = [sight for sight in sights if sight.is_minded]
        self._note_good([s for s in minded if s.cause is None and s.status.state in ("installed", "outdated")])
        self._report_passed([sight for sight in minded if sight.is_passed])
        done = [self._mind(sight) for sight in minded if sight.cause or sight.status.state != "installed"]
        return self.conf.WATCH_SECONDS if all(done) else min(LOCKED_PAUSE, self.conf.WATCH_SECONDS)

    def _note_good(self, sights: list[Sight]) -> None:
        for sight in sights:
            if sight.status.state == "installed":
                self._renewed[sight.status.table] = sight.found.layout(sight.model).columns
        stale = [sight for sight in sights if _is_stale(sight)]
        table_state.note_good(self.using, [(sight.status.table, *sight.good) for sight in stale])

    def _mind(self, sight: Sight) -> bool:
        """Do what one table needs; False if it is locked."""
        is_anothers = self._is_anothers(sight)
        if is_anothers:
            self._tell(sight, "another", _OF_ANOTHER)
            if sight.wrong is not None:
                return True
        cause = sight.cause
        if cause is not None and not self._suspect(sight, cause):
            return True  # another worker has it in hand
        if sight.status.state != "installed" and not is_anothers:
            done = self._repair(sight, cause)
            if done is not None:
                return done
        if cause is not None:
            self._settle(sight)
        return True

    def _suspect(self, sight: Sight, cause: str) -> bool:
        """Note what is wrong, if it is not noted yet; False if what was known of the table is no longer so."""
        if sight.known is not None and sight.known.cause is not None:
            return True
        is_noted = table_state.suspect(self.using, sight.status.table, sight.known, cause)
        if is_noted:
            logger.warning("Capture on %s was broken: %s.", sight.status.table, cause)
        return is_noted

    def _is_anothers(self, sight: Sight) -> bool:
        """Whether the function has been right for this very table and model, and now is a genuine one of others."""
        return (
            sight.status.state == "outdated"
            and sight.wrong in (None, "columns_missing")
            and self._renewed.get(sight.status.table) == sight.found.layout(sight.model).columns
        )

    def _repair(self, sight: Sight, cause: str | None) -> bool | None:
        """Install capture; None if that is done, else whether to wait for the next look as usual."""
        if not self.conf.REPAIR_TRIGGERS:
            self._tell(sight, "report", "REPAIR_TRIGGERS is off; run `manage.py hc_triggers install`.")
            return True
        try:
            outages.repair(sight, self.using, attempts=1)
        except InterfaceError:
            raise
        except DatabaseError as error:
            return self._not_repaired(sight, error)
        self._renewed[sight.status.table] = sight.found.layout(sight.model).columns
        if cause is None:
            self._tell_quiet_repair(sight)
        return None

    def _not_repaired(self, sight: Sight, error: DatabaseError) -> bool:
        if isinstance(error, OperationalError):
            if not is_lock_timeout(error):
                raise error
            self._tell(sight, "locked", f"The table is locked; tried again every {LOCKED_PAUSE:g} s.")
            return False
        if lacks_privilege(error):
            self._tell(sight, "rights", _NO_RIGHTS, once=True)
        else:
            self._tell(sight, "failed", f"The repair failed: {one_line(error)}.")
        return True

    def _tell_quiet_repair(self, sight: Sight) -> None:
        """Nothing was missed: the table is new to us, or only its function was an older one."""
        if not sight.is_first:
            logger.info("The capture function of %s was renewed (%s).", sight.status.table, sight.status.detail)
            return
        if outages.note_good(sight.model, self.using):
            logger.info(
                "%s is captured from now on. Rows that are in it already are no changes; "
                "`manage.py hc_backfill %s --receiver ...` delivers them.",
                sight.status.table,
                sight.model._meta.label,
            )

    def _settle(self, sight: Sight) -> None:
        """Tell the gap, if capture is right now and no other worker has told it."""
        returned = outages.tell(sight.model, self.using)
        if returned is None:
            return
        self.is_reread_due |= returned.is_reread
        logger.warning(
            "Capture on %s is right (it was not: %s). gap_detected is sent: changes may have been missed since %s. %s",
            returned.table,
            returned.cause,
            shown(returned.since) if returned.since else "a time that is not known",
            "What Salesforce changed since is read again."
            if returned.is_reread
            else f"Nothing is read again; `manage.py hc_backfill {sight.model._meta.label}` does.",
        )

    def _report_passed(self, sights: list[Sight]) -> None:
        """Tell of changes for which this consumer had no model when they came; what is read again comes to all."""
        if not sights:
            return
        columns = {sight.status.table: sight.found.columns for sight in sights}
        with transaction.atomic(using=self.using):
            told = report_passed(self.using, self.conf.CONSUMER, columns)
            for table, since in told.items():
                if "systemmodstamp" in columns[table]:
                    table_state.owe_reread(self.using, [table], since)
                    self.is_reread_due = True
        for table, since in told.items():
            logger.warning(
                "There was no connected model for %s: its changes since %s were passed over. gap_detected is sent.",
                table,
                shown(since),
            )

    def _tell(self, sight: Sight, what: str, text: str, once: bool = False) -> None:
        key, now = (sight.status.table, what), time.monotonic()
        if key not in self._told or (not once and now - self._told[key] > REMIND_SECONDS):
            self._told[key] = now
            status = sight.status
            logger.warning("Capture on %s is %s (%s). %s", status.table, status.state, status.detail, text)

    def _report_orphans(self) -> None:
        if time.monotonic() < self._orphans_due:
            return
        self._orphans_due = time.monotonic() + ORPHANS_EVERY
        for orphan in orphans.find(self.models, self.using):
            if (orphan.table, "orphan") not in self._told:
                self._told[orphan.table, "orphan"] = 0.0
                logger.warning(
                    "Capture on %s: orphan (%s). If no other service wants it: `manage.py hc_triggers uninstall "
                    "--orphans`.",
                    orphan.table,
                    orphan.detail,
                )


def _is_stale(sight: Sight) -> bool:
    """Whether what is known of a table on which capture is right should be stored anew."""
    before = sight.known
    if before is None or before.good_at is None or before.filenode != sight.found.filenode:
        return True
    return abs(sight.at - before.good_at) > GOOD_EVERY  # the server's clock may go back
