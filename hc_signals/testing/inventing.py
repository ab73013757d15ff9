"""Invents whole records of a model: what is unique stays unique, what is related exists."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections

from hc_signals.exceptions import HCSignalsError
from hc_signals.tables import is_connected, quote, quoted_table
from hc_signals.testing.records import NEVER_ALIKE, distinct, invent
from hc_signals.testing.rows import Model, Rows

_OWN = frozenset({"sfid", "systemmodstamp", "createddate", "isdeleted", "_hc_lastop", "_hc_err"})
"""Columns that are Heroku Connect's or Salesforce's to fill."""

_FEW = 10_000
"""A unique field with at most as many values gets one of those that are left, found by reading all of the column."""

_ROUNDS = 50
"""How often values are drawn for a unique field with more, until enough of them are not in the table."""

_NEIGHBOURS = 100
"""Most records of another table that the relations of one batch point at."""

_COLUMNS = """
SELECT a.attname, a.attnotnull, ARRAY(SELECT enumlabel::text FROM pg_enum e WHERE e.enumtypid = a.atttypid ORDER BY 1)
FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""

_UNIQUE = """
SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum > 0 AND (
           a.attnum = ANY (i.indkey::int2[]) OR EXISTS (
               SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
               AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum))
           ORDER BY 1)
FROM pg_index i WHERE i.indrelid = %s::regclass AND i.indisunique
"""
"""The columns of each unique index, those in its expressions included."""


@dataclass(frozen=True)
class Demands:
    """What the model and its table demand of a record, by column."""

    unique: set[str]
    required: set[str]
    """Never NULL."""
    labels: dict[str, list[str]]
    """The values of an enum."""


class NoValueLeftError(HCSignalsError):
    """A field that is unique and must not be NULL has no value left that is not in the table."""

    def __init__(self, field: Any, size: int) -> None:
        super().__init__(
            f"{field.model._meta.label}.{field.name} is unique and must not be NULL; of its {size} possible values too "
            "few are left. Delete records, or ask for fewer."
        )


def _variety(field: Any) -> float:
    """Return how many different values a field is given."""
    if field.is_relation:
        return 0
    return math.inf if isinstance(field, NEVER_ALIKE) else distinct(field)[0]


class Inventing(Rows):
    """Knows what the tables demand of a record."""

    _making: set[Model]
    """Models whose records are being invented: one that needs itself, by way of others, does without."""

    def create(self, model: Model, count: int = 1) -> list[str]:
        """Insert ``count`` invented records in one poll; return their sfids."""
        raise NotImplementedError

    def _invented(self, model: Model, count: int, given: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
        """Return ``count`` records, by attname.

        Args:
            given: columns that need no value.

        Raises:
            NoValueLeftError: a field that is unique and must not be NULL has no value left.
        """
        demands = self._demands(model)
        values: dict[str, list[Any]] = {}
        for field in model._meta.local_concrete_fields:
            if field is not model._meta.auto_field and str(field.column) not in _OWN | given:
                values[field.attname] = self._values(field, count, demands)
        return [{name: column[number] for name, column in values.items()} for number in range(count)]

    def _demands(self, model: Model) -> Demands:
        fields: dict[str, Any] = {str(field.column): field for field in model._meta.local_concrete_fields}
        unique = {column for column, field in fields.items() if field.unique}
        required = {column for column, field in fields.items() if not field.null or getattr(field, "upsert", False)}
        labels: dict[str, list[str]] = {}
        with self._cursor() as cursor:
            cursor.execute(_COLUMNS, [quoted_table(model)])
            for column, not_null, values in cursor.fetchall():
                required |= {column} if not_null else set()
                labels |= {column: values} if values else {}
            cursor.execute(_UNIQUE, [quoted_table(model)])
            for (columns,) in sorted(cursor.fetchall(), key=lambda row: len(row[0])):
                # If one column never has the same value twice, neither have all of them together.
                own = [fields[column] for column in columns if column in fields and column not in _OWN]
                if own and not unique & set(columns) and "sfid" not in columns:
                    unique.add(str(max(own, key=_variety).column))
        return Demands(unique, required, labels)

    def _values(self, field: Any, count: int, demands: Demands) -> list[Any]:
        column = str(field.column)
        is_unique, is_required = column in demands.unique, column in demands.required
        if field.is_relation:
            found = self._related(field, count, is_unique=is_unique, is_required=is_required)
        elif labels := demands.labels.get(column):
            if is_unique:
                found = self._unused(field, count, is_required=is_required, labels=labels)
            else:
                found = self.chance.choices(labels, k=count)
        elif is_unique and not isinstance(field, NEVER_ALIKE):
            found = self._unused(field, count, is_required=is_required)
        else:
            return [invent(field, self.chance, is_required=is_required) for _ in range(count)]
        return found + [None] * (count - len(found))

    # -- unique fields -------------------------------------------------------------------------------------------------

    def _unused(self, field: Any, count: int, *, is_required: bool, labels: Sequence[str] = ()) -> list[Any]:
        """Return up to ``count`` different values that are not in the table: fewer only if NULL will do."""
        size, value_of = (len(labels), labels.__getitem__) if labels else distinct(field)
        found: dict[Any, Any] = {}
        for _ in range(1 if size <= _FEW else _ROUNDS):
            drawn = range(size) if size <= _FEW else sorted(self._drawn(size, count - len(found)))
            candidates = {self._stored(field, value): value for value in map(value_of, drawn)}
            taken = self._in_table(field, list(candidates))
            found |= {stored: value for stored, value in candidates.items() if stored not in taken}
            if len(found) >= count:
                break
        values = list(found.values())
        if len(values) < count and is_required:
            raise NoValueLeftError(field, size)
        return self.chance.sample(values, min(count, len(values)))

    def _drawn(self, size: int, count: int) -> set[int]:
        return {self.chance.randrange(size) for _ in range(count)}

    def _stored(self, field: Any, value: Any) -> Any:
        return field.get_db_prep_save(value, connections[self.using])

    def _in_table(self, field: Any, stored: list[Any]) -> set[Any]:
        kind = self._type(field)
        column = f"{quote(field.column)}::{kind}"  # the column's own may be an enum
        with self._cursor() as cursor:
            cursor.execute(
                f"SELECT {column} FROM {quoted_table(field.model)} WHERE {column} = ANY(%s::{kind}[])",
                [stored],
            )
            return {row[0] for row in cursor.fetchall()}

    def _type(self, field: Any) -> str:
        return str(field.db_type(connections[self.using])).partition("(")[0]

    # -- relations -----------------------------------------------------------------------------------------------------

    def _related(self, field: Any, count: int, *, is_unique: bool, is_required: bool) -> list[Any]:
        """Return up to ``count`` keys of records that exist; none, or fewer, only if NULL will do."""
        keys = self._keys(field, count, is_unique=is_unique)
        missing = count - len(keys) if is_unique else int(not keys)
        if is_required and missing and self._can_make(field.related_model):
            self._making.add(field.model)
            try:
                self.create(field.related_model, missing)
            finally:
                self._making.remove(field.model)
            keys = self._keys(field, count, is_unique=is_unique)
        if is_unique or not keys:
            return self.chance.sample(keys, min(count, len(keys)))
        return self.chance.choices(keys, k=count)

    def _can_make(self, other: Model) -> bool:
        return other in self.models and is_connected(other) and other not in self._making

    def _keys(self, field: Any, count: int, *, is_unique: bool) -> list[Any]:
        """Return keys of the other table; of a unique relation those to which no record points yet."""
        other, target = field.related_model, field.target_field
        with self._cursor() as cursor:
            tables = [quoted_table(each) for each in (other, *other._meta.get_parent_list()) if not each._meta.proxy]
            cursor.execute("SELECT bool_and(to_regclass(t) IS NOT NULL) FROM unnest(%s::text[]) t", [tables])
            if not cursor.fetchone()[0]:
                return []
        rows = other._base_manager.using(self.using).filter(**{f"{target.attname}__isnull": False})
        if is_unique:
            used = field.model._base_manager.using(self.using).filter(**{f"{field.attname}__isnull": False})
            rows = rows.exclude(**{f"{target.attname}__in": used.values(field.attname)})
            most = count
        else:
            most = _NEIGHBOURS
            start = self._some(other, 1) if target.column == "sfid" and other in self.models else []
            rows = rows.filter(**{f"{target.attname}__gte": start[0]}) if start else rows
        return list(rows.order_by(target.attname).values_list(target.attname, flat=True)[:most])
