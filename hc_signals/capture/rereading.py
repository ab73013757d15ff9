"""Reads again what may have been missed while a table was not captured, page by page, for the stream to deliver."""

import logging
import time
from collections.abc import Iterable
from datetime import timedelta

from django.db import DatabaseError, InterfaceError, OperationalError, transaction
from django.db.models import Model

from hc_signals.capture import table_state
from hc_signals.capture.snapshots import has_room, log_table
from hc_signals.capture.table_state import Known
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import shown
from hc_signals.tables import table_label

logger = logging.getLogger("hc_signals")

REREAD_MARGIN = timedelta(minutes=90)
"""Rows that Salesforce changed so long before capture was last right are read as well. Heroku Connect writes a row
after its time of change: it polls every 2 to 60 minutes, and does not for up to 45 minutes of maintenance."""
PAGE_SIZE = 500


class Rereading:
    """Works off what ``hc_signals_table`` says is due; where it stopped stands there, in the transaction of each page.

    Several may do it at once: each page is claimed.

    Args:
        using: database alias.
        models: of the tables.
    """

    def __init__(self, using: str, models: Iterable[type[Model]]) -> None:
        self.using = using
        self.models = {table_label(model): model for model in models}
        self._refused: set[str] = set()
        self._is_waiting = False

    def read_for(self, seconds: float) -> bool:
        """Read pages for about so long, one at least; return whether all is done that can be done now.

        False: call it again soon. True also where other workers, or locks, or a lack of rights, are in the way.
        """
        deadline = time.monotonic() + seconds
        waiting: set[str] = set()
        while True:
            if not self._has_room():
                return True
            with transaction.atomic(using=self.using):
                due = table_state.claim_reread(self.using, self.models.keys() - waiting)
                if due is None:
                    return True
                if not self._read_page(due):
                    waiting.add(due.table)
            if time.monotonic() >= deadline:
                return False

    def _has_room(self) -> bool:
        room = has_room(self.using)
        if not room and not self._is_waiting:
            logger.warning("The change log is nearly full: what was missed is read again when there is room.")
        self._is_waiting = not room
        return room

    def _read_page(self, due: Known) -> bool:
        """Log the next page of the table; False if that cannot be now."""
        assert due.reread_since is not None  # noqa: S101  (it was claimed for it)
        model, since = self.models[due.table], due.reread_since
        try:
            pages = log_table(
                model,
                self.using,
                "GAP_UPDATE",
                page_size=PAGE_SIZE,
                after=due.reread_after,
                since=since - REREAD_MARGIN,
                created_since=since,
                origin="heroku_connect",
            )
            page = next(pages, None)
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError as error:
            self._tell(due, error)
            return False
        if page is not None:
            table_state.note_reread(self.using, due.table, page[1])
            return page[0] > 0
        table_state.note_reread(self.using, due.table, None, is_done=True)
        logger.info("%s: the rows that changed since %s have been read again.", due.table, shown(since - REREAD_MARGIN))
        return True

    def _tell(self, due: Known, error: DatabaseError) -> None:
        if due.table in self._refused:
            return
        self._refused.add(due.table)
        logger.error(
            "%s: what changed since %s cannot be read again (%s). It needs SELECT and UPDATE on the table, and "
            "BYPASSRLS where row-level security hides rows; or let a role that has them run `manage.py hc_backfill %s "
            "--since %s`.",
            due.table,
            shown(due.reread_since) if due.reread_since else "",
            one_line(error),
            self.models[due.table]._meta.label,
            due.reread_since.isoformat() if due.reread_since else "",
        )
