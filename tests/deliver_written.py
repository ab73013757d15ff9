"""Run in a project of written models: a row of every table is made and changed as Heroku Connect does, and delivered.

Each delivered instance must equal what the ORM reads; prints the number of models and of deliveries.
"""

import re
from typing import Any

from django.core.management import call_command
from django.db import connection, transaction

from hc_signals.heroku.inspection.read import short_type
from hc_signals.models import Delivery
from hc_signals.postgres.names import quote
from hc_signals.signals import record_created, record_updated
from hc_signals.tables import connected_models, quoted_table

SAMPLES = {
    "boolean": ("true", "false"),
    "integer": ("7", "2147483647"),
    "bigint": ("7", "9223372036854775807"),
    "smallint": ("7", "-3"),
    "double precision": ("0.1", "-1234567.89"),
    "real": ("0.5", "0.25"),
    "numeric": ("0.10", "12345678.9012"),
    "date": ("'2024-02-29'", "'1900-01-01'"),
    "time": ("'12:34:56.789'", "'00:00'"),
    "timestamp without time zone": ("'2024-05-06 07:08:09.123'", "'1970-01-01'"),
    "timestamp with time zone": ("'2024-05-06 07:08:09.123+02'", "'1970-01-01+00'"),
    "uuid": ("'12345678-1234-1234-1234-123456789abc'", "'00000000-0000-0000-0000-000000000000'"),
    "jsonb": ("""'{"a": [1, null]}'""", "'[]'"),
    "json": ("'{}'", "'[]'"),
    "bytea": (r"'\\x0001ff'", "''"),
    "interval": ("'1 day 2 hours'", "'3 seconds'"),
    "inet": ("'10.0.0.1'", "'::1'"),
    "text[]": ("'{a}'", "'{}'"),
    "tsvector": ("'a'", "'b'"),
    "int4range": ("'[1,2)'", "'empty'"),
}


def sample(kind: str, number: int) -> str:
    """Return an SQL value of the type: another one for each of the two numbers."""
    length = re.fullmatch(r"(?:varchar|character)\((\d+)\)", kind)
    if length:
        return f"left('{number}23456789abcdef0123456789abcdef', {length[1]})"
    if kind in ("text", "varchar"):
        return f"'é\"\\{number};'"
    if kind.endswith("mood"):
        return ("'good'", "'bad'")[number]
    return SAMPLES[kind.split("(", maxsplit=1)[0]][number]


delivered: list[str] = []


def compare(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    """Hold what was delivered against what the ORM reads of the row, which has not changed since."""
    stored = sender.objects.using(using).get(pk=instance.pk)
    names = [field.attname for field in sender._meta.concrete_fields]
    assert not instance.get_deferred_fields()
    for name in names:
        got, want = getattr(instance, name), getattr(stored, name)
        got, want = (bytes(each) if isinstance(each, memoryview) else each for each in (got, want))
        assert (type(got), got) == (type(want), want), f"{sender._meta.label}.{name}: {got!r}, stored {want!r}"
    delivered.append(sender._meta.label)


def write(number: int) -> None:
    """Insert or update one row of each table."""
    for model in connected_models():
        table = quoted_table(model)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'id'",
                [table],
            )
            row = {quote(name): sample(short_type(kind), number) for name, kind in cursor.fetchall()}
            cursor.execute("SET LOCAL xmlbinary = 'hex'")
            if number:
                del row['"sfid"']
                changes = ", ".join(f"{name} = {value}" for name, value in row.items())
                cursor.execute(f"UPDATE {table} SET {changes or 'id = id'} WHERE sfid IS NOT NULL".replace("%", "%%"))
            else:
                cursor.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())})")


record_created.connect(compare, weak=False)
record_updated.connect(compare, weak=False)
for number in (0, 1):
    write(number)
    call_command("hc_listen", once=True, verbosity=0)
assert list(Delivery.objects.values_list("error", flat=True)) == []
print(f"{len(connected_models())} models, {len(set(delivered))} delivered, {len(delivered)} deliveries")
