"""Fills tables and the log for the figures, and empties the log between them."""

import itertools
import os
from typing import Any

from django.core.management import call_command
from django.db import connection, transaction

from benchmarks.records import models
from hc_signals.capture.function import image_sql
from hc_signals.capture.function_columns import Layout
from hc_signals.capture.install import install_capture
from hc_signals.capture.status import statuses_of
from hc_signals.conf import Conf
from hc_signals.log.claims import claim_all
from hc_signals.log.position import LogShard
from hc_signals.postgres.locks import BELL
from hc_signals.postgres.names import quote
from hc_signals.postgres.query import relation_exists
from hc_signals.tables import mapped_columns, quoted_table, table_label
from hc_signals.testing import HerokuConnect
from hc_signals.worker.loop import Worker

BARE = (models.BareCaptured, models.BareUncaptured, models.BareTriggered)
TABLES = (models.Captured, models.Uncaptured, *BARE)
CAPTURED = (*models.CAPTURED, models.BareCaptured)
RECORDS = 20_000
LOG_COLUMNS = "table_name, operation, origin, record_key, record_id, changed, old, layout, image"
"""Columns of the log that a capture trigger fills in."""

VALUES = {
    "sfid": "'003' || lpad(n::text, 15, '0')",
    "systemmodstamp": "timestamp '2024-01-01' + n * interval '1 second'",
    "createddate": "timestamp '2020-01-01' + n * interval '1 second'",
    "isdeleted": "false",
    "name": "'Name of record ' || n",
    "industry": "(ARRAY['Energy', 'Retail', 'Media'])[n % 3 + 1]",
    "status__c": "'Open'",
    "street": "n || ' Long Street'",
    "city": "'Zürich'",
    "country": "'Switzerland'",
    "email": "'user' || n || '@example.com'",
    "phone": "'+41 44 ' || n",
    "website": "'https://example.com/' || n",
    "description": "'A description of some length for record ' || n",
    "ownerid": "'005' || lpad((n % 50)::text, 15, '0')",
    "parentid": "'001' || lpad((n % 500)::text, 15, '0')",
    "annualrevenue": "n * 1.25",
    "numberofemployees": "n",
    "discount__c": "n % 100",
    "active__c": "n % 2 = 0",
    "founded__c": "date '1990-01-01' + n % 10000",
    "signed_at__c": "timestamp '2023-01-01' + n * interval '1 minute'",
    "opens_at__c": "time '08:00'",
    "_hc_lastop": "'SYNCED'",
}
"""Values of the n-th record: SQL by column."""

_consumers = itertools.count()


def execute(sql: str, params: Any = None) -> list[tuple[Any, ...]]:
    """Run one statement in autocommit mode."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


def as_heroku_connect(*statements: str) -> None:
    """Run statements as Heroku Connect does, in one transaction."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL xmlbinary = 'hex'")
        for statement in statements:
            cursor.execute(statement)


def set_up(*tables: Any, records: int = RECORDS) -> None:
    """Create the log and these tables, by default TABLES."""
    call_command("migrate", run_syncdb=True, verbosity=0)
    make_tables(*(tables or TABLES), records=records)


def make_tables(*tables: Any, records: int = RECORDS) -> None:
    """Create tables, fill them, and install capture on those of CAPTURED; existing ones stay as they are."""
    missing = [model for model in tables if not relation_exists("default", quoted_table(model))]
    HerokuConnect(models=missing).create_tables()
    columns = ", ".join(map(quote, VALUES))
    for model in missing:
        table = quoted_table(model)
        execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        execute(
            f"INSERT INTO {table} ({columns}) SELECT {', '.join(VALUES.values())} FROM generate_series(1, {records}) n"
        )
        if model not in BARE:
            execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        execute(f"VACUUM ANALYZE {table}")
        if model in CAPTURED:
            install_capture(model, "default")


def clear() -> None:
    """Empty log, positions and effects."""
    execute("TRUNCATE public.hc_signals_change, public.hc_signals_position, public.hc_signals_delivery")
    execute("TRUNCATE records_effect")
    # TRUNCATE summarizes the first pages of the index of records. Writers pay for that until a chore undoes it.
    execute("SELECT public.hc_signals_summarize(bucket, 0) FROM generate_series(0, 7) bucket")


def pack(*tables: Any) -> None:
    """Rewrite tables, so that two compared tables have equally few dead rows.

    Raises:
        RuntimeError: a table measured without capture is captured, or the other way round.
    """
    for model, status in zip(tables, statuses_of(tables, "default"), strict=True):
        if (status.state == "installed") is not (model in CAPTURED):
            raise RuntimeError(f"{status.table}: capture is {status.state}")
    for model in tables:
        execute(f"VACUUM (FULL, ANALYZE) {quoted_table(model)}")


def updates(count: int, model: Any = models.BareCaptured) -> str:
    """Return a statement that changes two columns of the first ``count`` records."""
    return (
        f"UPDATE {quoted_table(model)} SET name = 'Changed ' || clock_timestamp(), "
        f"annualrevenue = annualrevenue + 1, systemmodstamp = clock_timestamp() WHERE id <= {count}"
    )


def capture_backlog(count: int) -> None:
    """Make a backlog as Heroku Connect does: it updates ``count`` records, the trigger logs them."""
    clear()
    left = count
    while left > 0:
        as_heroku_connect(updates(min(left, RECORDS)))
        left -= RECORDS
    execute("VACUUM ANALYZE public.hc_signals_change")


def append_backlog(count: int) -> None:
    """Append ``count`` changes directly to the log, for backlogs too long to capture."""
    table = models.BareCaptured
    columns = mapped_columns(table)
    execute(
        f"INSERT INTO public.hc_signals_change ({LOG_COLUMNS}) "
        f"SELECT '{table_label(table)}', 'UPDATE', 'heroku_connect', r.id, r.sfid, "
        f"ARRAY['name', 'annualrevenue'], "
        f"json_build_object('systemmodstamp', r.systemmodstamp::text, 'name', r.name, "
        f"'annualrevenue', r.annualrevenue::text), {Layout(tuple(columns)).id}, {image_sql(columns, 'r')} "
        f"FROM generate_series(1, {count}) n JOIN {quoted_table(table)} r ON r.id = n % {RECORDS} + 1"
    )


def worker(**conf: Any) -> Worker:
    """Return a worker of a new consumer, for the captured table."""
    conf.setdefault("CONSUMER", f"bench-{os.getpid()}-{next(_consumers)}")
    return Worker("default", Conf(**conf), [models.BareCaptured])


def skip_to_now(consumer: str) -> None:
    """Append a position behind the whole log, so that its changes are delivered and retained."""
    with transaction.atomic():
        (claim,) = claim_all([LogShard("default", consumer)])
        claim.append(claim.close_window(claim.open_window()))


def is_asleep() -> bool:
    """True if a worker of this database sleeps at its bell."""
    found = execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND granted "
        "AND mode = 'ExclusiveLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        BELL,
    )
    return bool(found[0][0])
