"""The SQL files: psql and migrate give the same catalog, and the way back leaves nothing."""

import pytest
from django.db import connection

from hc_signals.sql import read_sql

_CATALOG = """
SELECT c.relkind::text, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), pg_get_indexdef(c.oid)
FROM pg_class c
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relname LIKE 'hc\\_signals\\_%'
UNION ALL
SELECT 'f', p.proname, NULL, p.prosrc, NULL, NULL, NULL FROM pg_proc p WHERE p.proname = 'hc_signals_ring'
ORDER BY 1, 2, 3
"""


def catalog() -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(_CATALOG)
        return list(cursor.fetchall())


@pytest.mark.django_db
def test_plain_sql_gives_the_catalog_of_migrate_and_its_reverse_leaves_nothing() -> None:
    migrated = catalog()
    assert len(migrated) > 40
    with connection.cursor() as cursor:
        cursor.execute(read_sql("0001_change_log.down.sql"))
        assert catalog() == []
        cursor.execute(read_sql("0001_change_log.sql"))
    assert catalog() == migrated
