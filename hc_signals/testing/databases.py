"""Test databases with the change log, Heroku Connect's tables and capture on them: made once, emptied after a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import connections, router
from django.db.models.signals import post_migrate, pre_migrate

from hc_signals.capture import triggers
from hc_signals.sql import read_sql
from hc_signals.tables import connected_models, quote, quoted_table, table_parts
from hc_signals.testing.heroku_connect import HerokuConnect

_OUR_TABLES = r"""
SELECT oid::regclass::text FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname LIKE 'hc\_signals\_%'
  AND relname <> 'hc_signals_control' AND relpersistence = 'p'
"""


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


def _is_ours(using: str) -> bool:
    return connections[using].vendor == "postgresql" and router.allow_migrate(using, "hc_signals", model_name="change")


def prepare(using: str = "default") -> None:
    """Make what is missing: the log (tests without migrations), tables, capture. One query if nothing is.

    Inside a test's transaction that ends with it; a test that drops or re-creates a table harms no later one.
    """
    models = connected_models()
    states = {triggers.compare(*pair).state for pair in zip(models, triggers.find(models, using), strict=True)}
    if states == {"installed"}:
        return
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.hc_signals_change') IS NULL")
        if cursor.fetchone()[0]:
            cursor.execute(read_sql("0001_change_log.sql"))
    HerokuConnect(using).create_tables()
    for model in models:
        triggers.install(model, using)


def empty(using: str = "default") -> None:
    """Empty Heroku Connect's tables, its trigger log and the change log; Django's flush knows none of them."""
    models = connected_models()
    schemas = {table_parts(model)[0] for model in models}
    logs = [f"{quote(schema)}.{quote(log)}" for schema in schemas for log in ("_trigger_log", "_trigger_log_archive")]
    truncate(using, [*map(quoted_table, models), *logs, *_our_tables(using)])


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
    """
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT t::text FROM unnest(%s::regclass[]) t WHERE pg_relation_size(t) > 0", [tables])
        if written := [row[0] for row in cursor.fetchall()]:
            cursor.execute(f"TRUNCATE {', '.join(written)} RESTART IDENTITY CASCADE")
