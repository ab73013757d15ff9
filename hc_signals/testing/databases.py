"""Test databases with the change log, Heroku Connect's tables and capture on them: made once, emptied after a test."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import OperationalError, connections, router, transaction
from django.db.models.signals import post_migrate, pre_migrate

from hc_signals.capture.install import install_capture
from hc_signals.capture.status import statuses_of
from hc_signals.exceptions import HCSignalsError
from hc_signals.log.schema import exists, install_sql
from hc_signals.postgres import query
from hc_signals.postgres.errors import is_deadlock, is_lock_timeout
from hc_signals.postgres.names import quote
from hc_signals.tables import connected_models, quoted_table, table_parts
from hc_signals.testing.heroku_connect import HerokuConnect

_PRESENT = """
SELECT to_regclass(t)::text FROM unnest(%s::text[]) t WHERE to_regclass(t) IS NOT NULL UNION ALL
"""
_OUR_TABLES = """
SELECT oid::regclass::text FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND starts_with(relname, 'hc_signals_')
  AND relname NOT IN ('hc_signals_control', 'hc_signals_layout') AND relpersistence = 'p'
"""

PATIENCE = 30.0
"""Seconds for which other sessions may hold locks on tables that are to be emptied."""
_FIRST_TRY = 0.1
"""Seconds of the first wait for a lock; each further wait is twice as long."""
_HOLDERS = """
SELECT DISTINCT format('process %%s (%%s, %%s): %%s', pid,
                       coalesce(nullif(application_name, ''), 'no name'), state, query)
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE relation = ANY (%s::regclass[]) AND granted AND pid <> pg_backend_pid()
"""


class TablesInUseError(HCSignalsError):
    """Tables cannot be emptied, because other sessions hold locks on them; the message names these sessions."""


@contextmanager
def connected_databases() -> Iterator[None]:
    """Within it, every test database that is made gets Heroku Connect's tables and capture, whatever its backend.

    Around Django's ``setup_databases``. The tables come before the first migration, which may point at them; capture
    after the last one, so once per database and not per test.
    """

    def before(using: str, **kwargs: Any) -> None:
        if _is_ours(using):
            HerokuConnect(using).create_tables()

    def after(using: str, **kwargs: Any) -> None:
        if _is_ours(using):
            prepare(using)
            empty(using)  # what a killed run has left, with --reuse-db

    if not apps.is_installed("hc_signals"):
        yield
        return
    sender = apps.get_app_config("hc_signals")
    pre_migrate.connect(before, sender=sender)
    post_migrate.connect(after, sender=sender)
    try:
        yield
    finally:
        pre_migrate.disconnect(before, sender=sender)
        post_migrate.disconnect(after, sender=sender)


def clearing_after_flush() -> None:
    """From now on empty our tables whenever Django flushes a database, as it does after each TransactionTestCase.

    Its flush passes over unmanaged tables, so what such a test wrote to them would be there for all later ones.
    """
    if apps.is_installed("hc_signals"):
        post_migrate.connect(_after_flush, sender=apps.get_app_config("hc_signals"))


def _after_flush(using: str, **kwargs: Any) -> None:
    is_migration = "plan" in kwargs  # a test may migrate with its records in the tables
    if not is_migration and _is_ours(using):
        empty(using)


def played_databases(aliases: Iterable[str]) -> list[str]:
    """Return those of the aliases on which Heroku Connect is played: PostgreSQL, with our log by the routers."""
    return [using for using in sorted(aliases) if _is_ours(using)]


def _is_ours(using: str) -> bool:
    return connections[using].vendor == "postgresql" and router.allow_migrate(using, "hc_signals", model_name="change")


def prepare(using: str = "default") -> None:
    """Make what is missing: the log (tests without migrations), tables, capture. One query if nothing is.

    Inside a test's transaction that ends with it; a test that drops or re-creates a table harms no later one.
    """
    models = connected_models()
    states = {status.state for status in statuses_of(models, using)}
    if states == {"installed"}:
        return
    if not exists(using):
        query.execute(using, install_sql())
    HerokuConnect(using).create_tables()
    for model in models:
        install_capture(model, using)


def clear(using: str = "default") -> None:
    """Empty them if there is any row in them: what other tests have left. One query if there is none."""
    tables = _all_tables(using)
    if not tables:
        return
    queries = " UNION ALL ".join(f"SELECT EXISTS (SELECT FROM {table})" for table in tables)
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT bool_or(exists) FROM ({queries}) tables")
        if cursor.fetchone()[0]:
            empty(using)


def empty(using: str = "default") -> None:
    """Empty Heroku Connect's tables, its trigger log and the change log; Django's flush knows none of them.

    Raises:
        RealHerokuConnectError: the tables are not a test database's.
    """
    HerokuConnect(using).refuse_real()
    truncate(using, _all_tables(using))


def _all_tables(using: str) -> list[str]:
    """Return those that are there."""
    models = connected_models()
    schemas = {table_parts(model)[0] for model in models}
    logs = [f"{quote(schema)}.{quote(log)}" for schema in schemas for log in ("_trigger_log", "_trigger_log_archive")]
    with connections[using].cursor() as cursor:
        cursor.execute(_PRESENT + _OUR_TABLES, [[*map(quoted_table, models), *logs]])
        return [row[0] for row in cursor.fetchall()]


def empty_log(using: str = "default") -> None:
    """Empty the change log and all that belongs to it, of whatever is there of it."""
    truncate(using, _our_tables(using))


def _our_tables(using: str) -> list[str]:
    with connections[using].cursor() as cursor:
        cursor.execute(_OUR_TABLES)
        return [row[0] for row in cursor.fetchall()]


def truncate(using: str, tables: list[str]) -> None:
    """Truncate those of the tables that were written to since they last were.

    The others have files without a block. To truncate these as well would make new files of them, and of their indexes:
    dozens after each test.

    Raises:
        TablesInUseError: other sessions hold locks on them for longer than ``PATIENCE``.
    """
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT t::text FROM unnest(%s::regclass[]) t WHERE pg_relation_size(t) > 0", [tables])
        written = [row[0] for row in cursor.fetchall()]
    if written:
        _truncate_giving_way(using, written)


def _truncate_giving_way(using: str, tables: list[str]) -> None:
    """Truncate tables that a worker, a thread or a killed process may still use.

    Such a session can hold one of the tables and want another. So the TRUNCATE waits briefly, gives up its locks and
    tries again. The other session goes on, and PostgreSQL ends no statement of it because of a deadlock.
    """
    wait, deadline = _FIRST_TRY, time.monotonic() + PATIENCE
    while True:
        try:
            with transaction.atomic(using), connections[using].cursor() as cursor:
                cursor.execute(
                    "SELECT current_setting('lock_timeout'), set_config('lock_timeout', %s, true)",
                    [f"{max(round(wait * 1000), 1)}ms"],
                )
                before = cursor.fetchone()[0]
                cursor.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [before])
            return
        except OperationalError as error:
            if not (is_lock_timeout(error) or is_deadlock(error)):
                raise
            left = deadline - time.monotonic()
            if left <= 0:
                raise TablesInUseError(_in_use(using, tables)) from error
            wait = min(2 * wait, left)


def _in_use(using: str, tables: list[str]) -> str:
    with connections[using].cursor() as cursor:
        cursor.execute(_HOLDERS, [tables])
        holders = "; ".join(row[0] for row in cursor.fetchall())
    return (
        f"Other sessions have held locks on tables of the test database {using!r} for {PATIENCE:g} s: "
        f"{holders or 'they have ended by now'}. Expected none when the tables are emptied. "
        "End the workers, threads and transactions of a test before it ends."
    )
