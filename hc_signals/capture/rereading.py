"""Reads rows again that Salesforce may have changed while a table was not captured, and appends them to the log."""

import logging
import time
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import DatabaseError, InterfaceError, OperationalError, transaction
from django.db.models import Model

from hc_signals.capture import table_state
from hc_signals.capture.snapshots import has_room, log_table
from hc_signals.capture.table_state import TableState
from hc_signals.conf import mirror_origin
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import shown
from hc_signals.tables import table_label

logger = logging.getLogger("hc_signals")

REREAD_MARGIN = timedelta(minutes=90)
"""How long before the gap a row's time of change may be, so that it is read as well. Heroku Connect writes a row later
than Salesforce changed it: it polls every 2 to 60 minutes, and pauses for up to 45 minutes of maintenance."""
PAGE_SIZE = 500
"""Most rows per page."""


class Rereading:
    """Does the rereads that ``hc_signals_table`` requests, and records its progress there with each page.

    Several workers may run at once: each page locks the state of its table.
    """

    def __init__(self, using: str, models: Iterable[type[Model]]) -> None:
        self.using = using
        self.models = {table_label(model): model for model in models}
        self._refused: set[str] = set()
        self._is_waiting = False

    def read_for(self, seconds: float) -> bool:
        """Read one page or more, for about this many seconds; return False if it should be called again soon.

        It returns True if all is done, or other workers, locks or missing rights prevent reading now.
        """
        deadline = time.monotonic() + seconds
        waiting: set[str] = set()
        while True:
            if not self._has_room():
                return True
            with transaction.atomic(using=self.using):
                due = table_state.lock_next_reread(self.using, self.models.keys() - waiting)
                if due is None:
                    return True
                if not self._read_page(due):
                    waiting.add(due.table)
            if time.monotonic() >= deadline:
                return False

    def _has_room(self) -> bool:
        room = has_room(self.using)
        if not room and not self._is_waiting:
            logger.warning("The change log is nearly full: hc_listen reads missed rows again when there is room.")
        self._is_waiting = not room
        return room

    def _read_page(self, due: TableState) -> bool:
        """Append the next page of the table to the log; return False if it cannot be read now."""
        assert due.reread_since is not None  # noqa: S101  (lock_next_reread asks for it)
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
                origin=mirror_origin(),
            )
            page = next(pages, None)
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError as error:
            self._log_refusal(due.table, since, error)
            return False
        if page is not None:
            table_state.record_reread(self.using, due.table, page[1])
            return page[0] > 0
        table_state.record_reread(self.using, due.table, None, is_done=True)
        logger.info("%s: the rows that changed since %s were read again.", due.table, shown(since - REREAD_MARGIN))
        return True

    def _log_refusal(self, table: str, since: datetime, error: DatabaseError) -> None:
        if table in self._refused:
            return
        self._refused.add(table)
        logger.error(
            "%s: hc_listen cannot read the rows again that changed since %s (%s). Its role needs SELECT and UPDATE on "
            "the table, and BYPASSRLS if row-level security hides rows; or run `manage.py hc_backfill %s --since %s` "
            "as a role that has them.",
            table,
            shown(since),
            one_line(error),
            self.models[table]._meta.label,
            since.isoformat(),
        )
