"""Writes changes in a project of written models, delivers each one, and compares its instance with the ORM's.

First it writes a row to each table, with extreme values, then random traffic. Every change is delivered before the next
one, so that the ORM reads the record as the change left it. The last line of the output is the outcome as JSON.
"""

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import django
from django.db import connection, transaction

from hc_signals.tables import counts_as_change

SAMPLES = {
    "boolean": ("true", "false"),
    "integer": ("7", "2147483647"),
    "bigint": ("7", "9223372036854775807"),
    "smallint": ("7", "-3"),
    "double precision": ("0.1", "-1234567.89"),
    "real": ("0.5", "0.25"),
    "money": ("1.5", "-2"),
    "date": ("'2024-02-29'", "'1900-01-01'"),
    "time without time zone": ("'12:34:56.789'", "'00:00'"),
    "time with time zone": ("'12:34:56+02'", "'00:00+00'"),
    "timestamp without time zone": ("'2024-05-06 07:08:09.123'", "'1970-01-01'"),
    "timestamp with time zone": ("'2024-05-06 07:08:09.123+02'", "'1970-01-01+00'"),
    "uuid": ("'12345678-1234-1234-1234-123456789abc'", "'00000000-0000-0000-0000-000000000000'"),
    "jsonb": ("""'{"a": [1, null]}'""", "'[]'"),
    "json": ("'{}'", "'[]'"),
    "bytea": (r"'\\x0001ff'", "''"),
    "interval": ("'1 day 2 hours'", "'3 seconds'"),
    "inet": ("'10.0.0.1'", "'::1'"),
    "tsvector": ("'a'", "'b'"),
    "int4range": ("'[1,2)'", "'empty'"),
}

_COLUMNS = """
SELECT a.attname, {type},
       ARRAY(SELECT enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY enumsortorder)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'id'
AND a.attgenerated = '' AND a.attidentity <> 'a'
"""


def sample(kind: str, labels: list[str], number: int) -> str:
    """Return an SQL value of the type.

    Args:
        kind: the type's name.
        labels: the labels of an enum; empty for another type.
        number: 0 or 1, for two distinct values.
    """
    if labels:
        return "'" + labels[-number].replace("'", "''") + "'"
    if kind.endswith("[]"):
        return ("'{}'", "NULL")[number]
    length = re.fullmatch(r"(?:character varying|character)\((\d+)\)", kind)
    if length:
        return f"left('{number}23456789abcdef0123456789abcdef', {length[1]})"
    if kind in ("text", "character varying", "citext"):
        return f"'é\"\\{number};'"
    numeric = re.fullmatch(r"numeric(?:\((\d+),(-?\d+)\))?", kind)
    if numeric:
        return ("0.10", "-0.05")[number] if numeric[1] == numeric[2] else ("0.10", "7.89")[number]
    if kind == '"char"':
        return f"'{number}'"
    plain = re.sub(r"\(\d+\)", "", kind)
    return SAMPLES.get(plain, ("NULL", "NULL"))[number]


@dataclass
class Comparison:
    """Compares every delivered instance with the ORM's, a deleted one with the last that was delivered."""

    delivered: int = 0
    differing: int = 0
    """Number of instances that differ."""
    errors: list[str] = field(default_factory=list)
    models: set[str] = field(default_factory=set)
    last: dict[Any, dict[str, str]] = field(default_factory=dict)

    def compare(self, sender: Any, instance: Any, event: Any, using: str, **kwargs: Any) -> None:
        """Compare the instance; the receiver of the signals."""
        key, found = (sender, instance.pk), state(instance)
        if event.change_type == "DELETE":
            expected = self.last.pop(key, {})  # empty if the app inserted it and no change followed
        else:
            expected = self.last[key] = state(sender._base_manager.using(using).get(pk=instance.pk))
        is_kept = event.change_type != "DELETE"
        fields = sender._meta.concrete_fields
        noise = {each.attname for each in fields if each.column == "sfid" or not counts_as_change(each.column)}
        differing = [
            f"{event.change_type} {sender._meta.label}.{name}: {found.get(name)}, ORM: {value}"
            for name, value in expected.items()
            if found.get(name) != value and (is_kept or name not in noise)  # bookkeeping alone is not delivered
        ]
        self.errors += differing
        self.differing += bool(differing)
        self.delivered += 1
        self.models.add(sender._meta.label)


def state(instance: Any) -> dict[str, str]:
    """Return type and text of each value of the instance, without a query."""
    values = {each.attname: instance.__dict__[each.attname] for each in instance._meta.concrete_fields}
    plain = {name: bytes(value) if isinstance(value, memoryview) else value for name, value in values.items()}
    return {name: f"{type(value).__name__} {value!r}" for name, value in plain.items()}


def write_extremes(number: int) -> int:
    """Insert (0) or update (1) one row of each table; return the number of changes to deliver."""
    from hc_signals.heroku.inspection.read import TYPE
    from hc_signals.postgres.names import quote
    from hc_signals.tables import connected_models, mapped_columns, quoted_table

    changes = 0
    for model in connected_models():
        table = quoted_table(model)
        mapped = set(mapped_columns(model))
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_COLUMNS.format(type=TYPE), [table])
            row = {name: sample(kind, labels, number) for name, kind, labels in cursor.fetchall()}
            cursor.execute("SET LOCAL xmlbinary = 'hex'")
            if number:
                row = {name: value for name, value in row.items() if name != "sfid"}
                values = ", ".join(f"{quote(name)} = {value}" for name, value in row.items()) or "id = id"
                sql = f"UPDATE {table} SET {values} WHERE sfid IS NOT NULL"
                changes += any(map(counts_as_change, row.keys() & mapped))
            else:
                sql = f"INSERT INTO {table} ({', '.join(map(quote, row))}) VALUES ({', '.join(row.values())})"
                changes += 1
            cursor.execute(sql)
    return changes


def play(seed: int, changes: int) -> dict[str, Any]:
    """Write at least ``changes`` changes, or stop at the first difference; return the outcome."""
    from hc_signals import signals
    from hc_signals.conf import Conf
    from hc_signals.models import Delivery
    from hc_signals.tables import connected_models
    from hc_signals.testing import HerokuConnect
    from hc_signals.worker.loop import Worker

    comparison, written, shown = Comparison(), 0, 0
    for signal in (signals.record_created, signals.record_updated, signals.record_deleted):
        signal.connect(comparison.compare)
    for number in (0, 1):
        written += write_extremes(number)
        Worker("default", Conf(MAX_ATTEMPTS=1)).deliver_once()
    heroku = HerokuConnect(seed=seed)
    for _ in heroku.play(poll_size=40):
        Worker("default", Conf(MAX_ATTEMPTS=1)).deliver_once()
        if comparison.errors or written + heroku.changes >= changes:
            break
        if written + heroku.changes - shown >= 500:
            shown = written + heroku.changes
            print(f"progress: {shown} changes", flush=True)
    return {
        "models": len(connected_models()),
        "columns": sum(len(model._meta.local_concrete_fields) for model in connected_models()),
        "simulated": written + heroku.changes,
        "delivered": comparison.delivered,
        "differing": comparison.differing,
        "problems": comparison.errors[:20],
        "silent": sorted({model._meta.label for model in connected_models()} - comparison.models),
        "failed": [f"{each.receiver}: {each.error}" for each in Delivery.objects.all()[:5]],
    }


def admin_problems() -> Iterator[str]:
    """Open the admin's lists, a record of each model and the trigger log; yield each page that fails."""
    from django.contrib.auth.models import User
    from django.test import Client
    from django.urls import reverse

    from hc_signals.models import TriggerLog
    from hc_signals.tables import connected_models

    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("root"))
    for model in (*connected_models(), TriggerLog):
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        pages = [reverse(f"{name}_changelist")]
        record = model._base_manager.first() if model is not TriggerLog else None
        pages += [reverse(f"{name}_change", args=[record.pk])] if record else []
        for page in pages:
            answer = client.get(page, headers={"host": "localhost"})
            if answer.status_code != 200:
                yield f"{page}: {answer.status_code} {getattr(answer, 'exc_info', None)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--changes", type=int, required=True)
    options = parser.parse_args()
    django.setup()
    outcome = play(options.seed, options.changes)
    print(json.dumps(outcome | {"admin": list(admin_problems())}))
