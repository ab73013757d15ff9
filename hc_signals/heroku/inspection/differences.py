"""Compares models with the tables in the database."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connections, models

from hc_signals.heroku.inspection.read import TYPE, UUID_TYPE, short_type
from hc_signals.postgres.names import truncate_name
from hc_signals.postgres.query import rows
from hc_signals.tables import advice_for_missing_column, quoted_table, table_parts


@dataclass(frozen=True)
class Difference:
    """One difference between a model and its table."""

    text: str
    is_failure: bool
    """True: the model cannot be read. False: another length, or another kind of number."""

    def __str__(self) -> str:
        return f"{'' if self.is_failure else 'information: '}{self.text}"


def differences(model: type[models.Model], using: str) -> list[Difference]:
    """Return a difference for each column of the model that the table lacks or has with another type.

    Args:
        model: a connected model.
        using: database alias.
    """
    found = _live_types(model, using)
    if found is None:
        text = f"{model._meta.label}: the table {quoted_table(model)} does not exist; map the object in Heroku Connect."
        return [Difference(text, True)]
    return list(_compare(model, found, using))


_TYPES = f"""
SELECT a.attname, {TYPE}, t.typcategory IN ('S', 'E')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN (pg_attribute a JOIN pg_type t ON t.oid = a.atttypid)
    ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = %s AND c.relname = %s
"""


def _live_types(model: type[models.Model], using: str) -> dict[str, tuple[str, bool]] | None:
    """Return the type of each column, and whether its values are texts; None if there is no table."""
    found = rows(using, _TYPES, table_parts(model))
    if not found:
        return None
    return {name: (short_type(kind), is_text) for name, kind, is_text in found if name is not None}


def _compare(model: type[models.Model], found: dict[str, tuple[str, bool]], using: str) -> Iterator[Difference]:
    for field in model._meta.local_concrete_fields:
        place, column = f"{model._meta.label}.{field.name}", truncate_name(str(field.column))
        if column not in found:
            advice = advice_for_missing_column(str(field.column))
            yield Difference(f"{place}: the table has no column {column!r}; {advice}.", True)
            continue
        kind, is_text = found[column]
        expected = field.db_type(connections[using]) or ""
        if expected != kind and not field.primary_key:
            text = f"{place}: the column {column!r} is {kind}; the model expects {expected}."
            yield Difference(text, not _can_read(field, expected, kind, is_text))


_NUMBERS = frozenset({"integer", "bigint", "smallint", "real", "double precision", "numeric"})


def _can_read(field: Any, expected: str, kind: str, is_text: bool) -> bool:
    """Return whether the field converts the column's values as a user expects."""
    if type(field).__name__ == "AnyType" or (expected == UUID_TYPE and kind == "uuid"):
        return True
    return (_is_text(expected) and is_text) or {_without_length(expected), _without_length(kind)} <= _NUMBERS


def _is_text(kind: str) -> bool:
    return _without_length(kind) in ("varchar", "text", "character")


def _without_length(kind: str) -> str:
    return re.sub(r"\(.*\)", "", kind)
