"""The SQL files: psql and migrate give the same catalog, and removing it leaves nothing."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from hc_signals.log.schema import INSTALL, install_sql, remove_sql
from hc_signals.postgres import locks

ROOT = Path(__file__).parent.parent

_CATALOG = """
SELECT c.relkind::text, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), pg_get_indexdef(c.oid)
FROM pg_class c
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relname LIKE 'hc\\_signals\\_%'
UNION ALL
SELECT 'f', p.proname, NULL, p.prosrc, NULL, NULL, NULL FROM pg_proc p WHERE p.proname LIKE 'hc\\_signals\\_%'
  AND p.proname NOT LIKE 'hc\\_signals\\_capture\\_%'
ORDER BY 1, 2, 3
"""


def catalog(cursor: Any) -> list[tuple[object, ...]]:
    cursor.execute(_CATALOG)
    return list(cursor.fetchall())


@pytest.mark.django_db
def test_psql_and_migrate_give_the_same_catalog(bare_database: Any) -> None:
    with connection.cursor() as cursor:
        migrated = catalog(cursor)
    assert len(migrated) > 40
    with bare_database.cursor() as cursor:
        assert catalog(cursor) == []
        cursor.execute(install_sql())
        assert catalog(cursor) == migrated
        cursor.execute(remove_sql())
        assert catalog(cursor) == []


@pytest.mark.django_db
def test_migrate_to_zero_leaves_nothing_and_returns(bare_database: Any) -> None:
    call_command("migrate", "hc_signals", "zero", verbosity=0)
    with connection.cursor() as cursor:
        assert catalog(cursor) == []
    call_command("migrate", "hc_signals", verbosity=0)
    with connection.cursor() as cursor:
        assert len(catalog(cursor)) > 40


@pytest.mark.django_db
def test_makemigrations_has_nothing_to_do() -> None:
    call_command("makemigrations", "hc_signals", "crm", check=True, dry_run=True, verbosity=0)


def test_migration_runs_every_file() -> None:
    assert {path.name for path in (ROOT / "migrations_sql").glob("*.sql")} == {
        *INSTALL,
        *(name.replace(".sql", ".down.sql") for name in INSTALL),
    }


def test_sql_takes_the_locks_that_python_knows() -> None:
    pairs, classes = {locks.BELL, locks.UNTOLD}, {locks.CLAIMS, locks.RELOADS}
    sql = install_sql()
    taken = re.findall(r"pg_\w*advisory\w*\((\d+), (\d+|hashtext)", sql)
    assert {(int(first), int(second)) for first, second in taken if second != "hashtext"} == pairs
    assert {int(first) for first, second in taken if second == "hashtext"} == classes
