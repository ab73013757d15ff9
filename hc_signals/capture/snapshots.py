"""Appends snapshots to the log: the rows of a connected table as they are now, one page per transaction.

Why a snapshot is not delivered after a newer state of its record: its id in the log is drawn while its row is locked
FOR SHARE. A writer draws the ids of its changes while it has the row locked, until its commit. So a change that the
snapshot contains has a lower id, and a later change has a higher one. Delivery follows the ids of each record.

Why Heroku Connect is not harmed: a page does not wait for a row while it holds locks on others, so it takes part in no
deadlock, and PostgreSQL has no reason to cancel a statement of Heroku Connect. A page locks its rows with NOWAIT. If
that fails the page shrinks, at last to a single row, and only then it waits.
"""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from django.db import OperationalError, models, transaction

from hc_signals.capture.function import json_sql, record_id_sql
from hc_signals.capture.status import find_tables, status_of
from hc_signals.exceptions import SnapshotError
from hc_signals.log.append import append_rows, wake
from hc_signals.log.limit import newest_bucket
from hc_signals.origins import BACKFILL
from hc_signals.postgres.errors import is_lock_timeout
from hc_signals.postgres.query import execute, row
from hc_signals.tables import quoted_table, table_label

LOCK_TIMEOUT = "500ms"
"""Shorter than PostgreSQL's deadlock_timeout, so in a deadlock we give up, not the other side."""

ROOM = 0.8
"""Largest part of ``max_bucket_bytes`` that snapshots may fill. In a full bucket, changes of writers are lost."""
NO_ROOM_SECONDS = 0.5
"""Seconds until the next check for room."""


_PAGE = 'SELECT * FROM {table} n WHERE {conditions} ORDER BY n."id" LIMIT %(limit)s FOR SHARE {nowait}'
_CREATED = """
CASE WHEN n."createddate" >= %(created_since)s::timestamptz AT TIME ZONE 'UTC' THEN 'GAP_CREATE' ELSE %(operation)s END
"""


def check_captured(model: type[models.Model], using: str) -> None:
    """Raise SnapshotError if the table does not exist, or its later changes would not be captured."""
    status = status_of(model, using)
    if status.state == "absent":
        raise SnapshotError(f"{model._meta.label} has no table: {status.table} does not exist (yet).")
    if status.state == "unsupported":
        raise SnapshotError(f"{status.table} cannot be captured: {status.detail}.")
    if not status.is_captured:
        raise SnapshotError(
            f"{status.table} is not captured ({status.detail}); run `manage.py hc_triggers install` first."
        )


def log_rows(
    model: type[models.Model],
    using: str,
    operation: str,
    *,
    after: int | None,
    limit: int,
    since: datetime | None = None,
    created_since: datetime | None = None,
    note: Mapping[str, Any] | None = None,
    origin: str = BACKFILL,
    wait: bool = False,
) -> tuple[int, int | None]:
    """Append one page of rows to the log in a transaction of its own, and wake the worker.

    Args:
        operation: SNAPSHOT, GAP_CREATE or GAP_UPDATE.
        after: ``id`` of the last row of the page before; None for the first page.
        limit: most rows in the page.
        since: only rows that Salesforce changed at or after this time, by their ``systemmodstamp``.
        created_since: rows with a ``createddate`` at or after this time get the operation GAP_CREATE, if the table has
            this column.
        note: who receives them, ``{"consumer": name, "receivers": [paths]}``; default: every receiver.
        origin: ``change_origin`` of the events.
        wait: wait for locked rows, LOCK_TIMEOUT for each. Only for pages of one row: see above.

    Returns:
        number of rows, and ``id`` of the last; fewer than ``limit``: there are no more.

    Raises:
        OperationalError: another session has locked a row or the table (``is_lock_timeout``); nothing was appended.
        ProgrammingError: this role lacks a right, or row-level security would hide rows from it.
    """
    found = find_tables([model], using)[0]
    columns = list(found.layout(model).columns)
    nowait = "" if wait else "NOWAIT"
    page = _PAGE.format(table=quoted_table(model), conditions=_conditions(after, since), nowait=nowait)
    values: dict[str, Any] = {"label": table_label(model), "operation": operation, "origin": origin, "after": after}
    values |= {"limit": limit, "since": since, "created_since": created_since}
    values |= {"note": None if note is None else json.dumps(note)}
    with transaction.atomic(using=using):
        # With row_security off, a policy that hides rows is an error. With fewer digits PostgreSQL rounds numbers.
        execute(
            using,
            f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL row_security = off; "
            "SET LOCAL extra_float_digits = 1; SET LOCAL jit = off",
        )
        count, last = append_rows(
            using,
            page,
            operation=_CREATED if created_since and "createddate" in found.columns else "%(operation)s",
            record_id=record_id_sql(columns, "n"),
            image=json_sql(columns, "n"),
            params=values,
        )
        if count:
            wake(using)
    return count, after if last is None else last


def log_table(
    model: type[models.Model], using: str, operation: str, *, page_size: int, after: int | None = None, **options: Any
) -> Iterator[tuple[int, int | None]]:
    """Append all rows after an ``id`` to the log, page by page; takes the ``options`` of :func:`log_rows`.

    Yields:
        number of rows in the page, and ``id`` of the last. 0 rows: another transaction has locked the next row for
        longer than LOCK_TIMEOUT, or :func:`has_room` is False; the next page tries again.
    """
    limit = page_size
    while True:
        if not has_room(using):
            time.sleep(NO_ROOM_SECONDS)
            yield 0, after
            continue
        try:
            count, after = log_rows(model, using, operation, after=after, limit=limit, wait=limit == 1, **options)
        except OperationalError as error:
            if not is_lock_timeout(error):
                raise
            if limit == 1:
                yield 0, after
            limit = max(1, limit // 8)
            continue
        if count:
            yield count, after
        if count < limit:
            return
        limit = min(page_size, 2 * limit)


def has_room(using: str) -> bool:
    """Return True if the newest bucket of the log is smaller than ROOM of ``max_bucket_bytes``.

    If not, pages wait until the worker has freed space (see MAX_LOG_MB), or for the next bucket.
    """
    limit, size = newest_bucket(using)
    return limit is None or size < limit * ROOM


def count_rows(
    model: type[models.Model], using: str, limit: int, after: int | None = None, since: datetime | None = None
) -> int:
    """Return the number of rows that would be appended, at most ``limit``."""
    rows = f"SELECT FROM {quoted_table(model)} n WHERE {_conditions(after, since)} LIMIT %(limit)s"
    values = {"after": after, "since": since, "limit": limit}
    return int(row(using, f"SELECT count(*) FROM ({rows}) counted", values)[0])


def _conditions(after: int | None, since: datetime | None) -> str:
    conditions = ["true"]
    if after is not None:
        conditions.append('n."id" > %(after)s')
    if since is not None:
        # Heroku Connect's timestamps have no time zone; they are in UTC.
        conditions.append("n.systemmodstamp >= %(since)s::timestamptz AT TIME ZONE 'UTC'")
    return " AND ".join(conditions)
