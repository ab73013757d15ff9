"""Rows of a connected table written to the log as they are now, a page per transaction, for the stream to deliver.

Why a snapshot never comes after a newer state of its record: its id is drawn while its row is locked FOR SHARE. A
writer draws the ids of its changes while it holds the row, until its commit. So a change that is not in the snapshot
gets its id after the snapshot has committed, and one that is in it had its id before; and the log is delivered, per
record, in the order of ids.

Why Heroku Connect is not harmed: a page never waits for a row while it holds others, so no deadlock can have it as a
link, and PostgreSQL never has to end Heroku Connect's transaction instead of ours. It asks with NOWAIT; where that is
refused, the page shrinks to a single row, and only that one is waited for.
"""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from django.db import OperationalError, connections, models, transaction

from hc_signals.capture import triggers
from hc_signals.capture.function import image_sql, record_id_sql
from hc_signals.exceptions import SnapshotError
from hc_signals.log.append import append_rows, wake
from hc_signals.log.limit import newest_bucket
from hc_signals.postgres.errors import is_lock_timeout
from hc_signals.tables import quoted_table, table_label

LOCK_TIMEOUT = "500ms"
"""Shorter than PostgreSQL's deadlock_timeout: whoever waits for us is never the one that has to give up."""

ROOM = 0.8
"""Of ``max_bucket_bytes``: so full may pages make the newest bucket. The rest is for the writers, whose changes would
be lost in a full one."""
NO_ROOM_PAUSE = 0.5
"""Seconds between two looks whether there is room again."""


_PAGE = 'SELECT * FROM {table} n WHERE {conditions} ORDER BY n."id" LIMIT %(limit)s FOR SHARE {nowait}'
_CREATED = """
CASE WHEN n."createddate" >= %(created_since)s::timestamptz AT TIME ZONE 'UTC' THEN 'GAP_CREATE' ELSE %(operation)s END
"""


def check_captured(model: type[models.Model], using: str) -> None:
    """Refuse a table whose later changes would not be logged.

    Raises:
        SnapshotError: the table is absent or not captured.
    """
    found = triggers.status(model, using)
    if found.state == "absent":
        raise SnapshotError(f"{model._meta.label} has no table: {found.table} does not exist (yet).")
    if found.state == "unsupported":
        raise SnapshotError(f"{found.table} cannot be captured: {found.detail}.")
    if found.state not in ("installed", "outdated"):
        raise SnapshotError(
            f"{found.table} is not captured ({found.detail}); run `manage.py hc_triggers install` first."
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
    origin: str = "backfill",
    wait: bool = False,
) -> tuple[int, int | None]:
    """Log one page of rows in a transaction of its own, and ring the worker.

    Args:
        operation: SNAPSHOT, GAP_CREATE or GAP_UPDATE.
        after: key (``id``) of the last row of the page before; None for the first page.
        limit: rows per page.
        since: only rows that Salesforce changed at or after this time, by their ``systemmodstamp``.
        created_since: rows with a ``createddate`` at or after this time are logged as GAP_CREATE; where the table has
            no such column, none is.
        note: for whom they are, ``{"consumer": name, "receivers": [paths]}``; default: everyone.
        origin: ``change_origin`` of the events.
        wait: for locked rows, LOCK_TIMEOUT for each. Only for pages of one row: see above.

    Returns:
        how many rows were logged, and the key of the last; fewer than ``limit``: there are no more.

    Raises:
        OperationalError: another session has a row or the table locked (``is_lock_timeout``); nothing was logged.
        ProgrammingError: a right is lacking, or row-level security would hide rows from this role.
    """
    found = triggers.find([model], using)[0]
    columns = list(found.layout(model).columns)
    nowait = "" if wait else "NOWAIT"
    page = _PAGE.format(table=quoted_table(model), conditions=_conditions(after, since), nowait=nowait)
    values: dict[str, Any] = {"label": table_label(model), "operation": operation, "origin": origin, "after": after}
    values |= {"limit": limit, "since": since, "created_since": created_since}
    values |= {"note": None if note is None else json.dumps(note)}
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        # Without row_security a policy that would hide rows is an error; with fewer digits numbers would be rounded.
        cursor.execute(
            f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL row_security = off; "
            "SET LOCAL extra_float_digits = 1; SET LOCAL jit = off"
        )
        count, last = append_rows(
            using,
            page,
            operation=_CREATED if created_since and "createddate" in found.columns else "%(operation)s",
            record_id=record_id_sql(columns, "n"),
            image=image_sql(columns, "n"),
            params=values,
        )
        if count:
            wake(using)
    return count, after if last is None else last


def log_table(
    model: type[models.Model], using: str, operation: str, *, page_size: int, after: int | None = None, **options: Any
) -> Iterator[tuple[int, int | None]]:
    """Log all rows after a key, page by page; takes the ``options`` of :func:`log_rows`.

    Yields:
        of each page how many rows it had and the key of the last. No rows: the next one is still locked by another
        transaction, it has been waited for LOCK_TIMEOUT and will be again; or :func:`has_room` is false.
    """
    limit = page_size
    while True:
        if not has_room(using):
            time.sleep(NO_ROOM_PAUSE)
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
    """Tell whether the newest bucket of the log is far from ``max_bucket_bytes``.

    Where it is not, pages wait until the worker has freed space (see MAX_LOG_MB), or for the next bucket.
    """
    limit, size = newest_bucket(using)
    return limit is None or size < limit * ROOM


def count_rows(
    model: type[models.Model], using: str, limit: int, after: int | None = None, since: datetime | None = None
) -> int:
    """Return how many rows there are to log, counted up to ``limit``."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM (SELECT FROM {quoted_table(model)} n WHERE {_conditions(after, since)} "
            "LIMIT %(limit)s) counted",
            {"after": after, "since": since, "limit": limit},
        )
        return int(cursor.fetchone()[0])


def _conditions(after: int | None, since: datetime | None) -> str:
    found = ["true"]
    if after is not None:
        found.append('n."id" > %(after)s')
    if since is not None:
        # Heroku Connect's timestamps are without time zone, in UTC.
        found.append("n.systemmodstamp >= %(since)s::timestamptz AT TIME ZONE 'UTC'")
    return " AND ".join(found)
