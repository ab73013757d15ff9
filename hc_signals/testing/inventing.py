"""Creates records with invented values: unique fields stay unique, and relations point at records that exist."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections

from hc_signals.exceptions import HCSignalsError
from hc_signals.postgres import query
from hc_signals.postgres.names import quote
from hc_signals.tables import is_connected, quoted_table
from hc_signals.testing.invented_values import NEVER_ALIKE, distinct, invent
from hc_signals.testing.rows import Model, Rows

_OWN = frozenset({"sfid", "systemmodstamp", "createddate", "isdeleted", "_hc_lastop", "_hc_err"})
"""Columns that Heroku Connect or Salesforce fills."""

_FEW = 10_000
"""Most values of a unique field for which the whole column is read, to find one that is free."""

_ROUNDS = 50
"""Most attempts to draw enough free values for a unique field with more values than that."""

_NEIGHBOURS = 100
"""Most records of another table to which the relations of one batch point."""

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
"""The columns of each unique index, also those in its expressions."""


@dataclass(frozen=True)
class Demands:
    """The constraints of a model and its table, by column."""

    unique: set[str]
    required: set[str]
    """NOT NULL."""
    labels: dict[str, list[str]]
    """The values of an enum."""


class NoValueLeftError(HCSignalsError):
    """The table has every possible value of a field that is unique and must not be NULL."""

    def __init__(self, field: Any, size: int) -> None:
        super().__init__(
            f"{field.model._meta.label}.{field.name} is unique and must not be NULL; too few "
            f"of its {size} possible values are free. Delete records, or create fewer."
        )


def _variety(field: Any) -> float:
    """Return how many distinct values can be invented for a field; 0 for a relation."""
    if field.is_relation:
        return 0
    return math.inf if isinstance(field, NEVER_ALIKE) else distinct(field)[0]


class Inventing(Rows):
    """Inserts records, with the values that a test gives and with invented ones."""

    def insert(self, model: Model, /, *records: Mapping[str, Any], **values: Any) -> list[str]:
        """Insert records that were created in Salesforce, in one poll; return their sfids.

        Args:
            records: values by field name; or, for one record, as keyword arguments. ``sf_id`` is optional. A
                Geolocation is a pair, a relation is a key or an instance.

        Raises:
            LookupError: the model has no such field.
        """
        rows = [self._columns(model, record) for record in (*records, *([values] if values or not records else []))]
        missing = iter(self._next_sfids(model, sum("sfid" not in row for row in rows)))
        rows = [self._stamps() | ({} if "sfid" in row else {"sfid": next(missing)}) | row for row in rows]
        with self._as_heroku_connect():
            self._insert_rows(model, rows)
        self.changes += len(rows)
        return [row["sfid"] for row in rows]

    def create(self, model: Model, count: int = 1, **values: Any) -> list[str]:
        """Insert ``count`` invented records in one poll; return their sfids.

        Unique fields get values that the table does not have yet. Relations get the key of a record that exists, or
        NULL. If a relation must not be NULL and there is no record, one is created first.

        Args:
            values: values for all these records, by field name as for :meth:`insert`. The others are invented.

        Raises:
            LookupError: the model has no such field.
            NoValueLeftError: a field that is unique and must not be NULL has no free value.
        """
        invented = self._invented(model, count, given=frozenset(self._columns(model, values)))
        return self.insert(model, *(record | values for record in invented)) if count else []

    def _invented(self, model: Model, count: int, given: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
        """Return ``count`` records: invented values by attname.

        Args:
            given: columns that need no invented value.

        Raises:
            NoValueLeftError: a field that is unique and must not be NULL has no free value.
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
        for column, not_null, values in query.rows(self.using, _COLUMNS, [quoted_table(model)]):
            required |= {column} if not_null else set()
            labels |= {column: values} if values else {}
        for (columns,) in sorted(query.rows(self.using, _UNIQUE, [quoted_table(model)]), key=lambda row: len(row[0])):
            # If one column of an index has distinct values, the whole index has.
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
        """Return up to ``count`` distinct values that the table does not have; fewer if the field may be NULL."""
        size, value_of = (len(labels), labels.__getitem__) if labels else distinct(field)
        found: dict[Any, Any] = {}
        for _ in range(1 if size <= _FEW else _ROUNDS):
            many = {self.chance.randrange(size) for _ in range(count - len(found))} if size > _FEW else range(size)
            values = map(value_of, sorted(many))
            candidates = {field.get_db_prep_save(value, connections[self.using]): value for value in values}
            taken = self._in_table(field, list(candidates))
            found |= {stored: value for stored, value in candidates.items() if stored not in taken}
            if len(found) >= count:
                break
        if len(found) < count and is_required:
            raise NoValueLeftError(field, size)
        return self.chance.sample(list(found.values()), min(count, len(found)))

    def _in_table(self, field: Any, stored: list[Any]) -> set[Any]:
        kind = str(field.db_type(connections[self.using])).partition("(")[0]
        column = f"{quote(field.column)}::{kind}"  # the column's type may be an enum
        sql = f"SELECT {column} FROM {quoted_table(field.model)} WHERE {column} = ANY(%s::{kind}[])"
        return {value for (value,) in query.rows(self.using, sql, [stored])}

    # -- relations -----------------------------------------------------------------------------------------------------

    def _related(self, field: Any, count: int, *, is_unique: bool, is_required: bool) -> list[Any]:
        """Return up to ``count`` keys of records that exist; fewer or none if the relation may be NULL."""
        keys = self._keys(field, count, is_unique=is_unique)
        missing = count - len(keys) if is_unique else int(not keys)
        if is_required and missing and self._can_create(field.related_model):
            self._creating.add(field.model)
            try:
                self.create(field.related_model, missing)
            finally:
                self._creating.remove(field.model)
            keys = self._keys(field, count, is_unique=is_unique)
        if is_unique or not keys:
            return self.chance.sample(keys, min(count, len(keys)))
        return self.chance.choices(keys, k=count)

    def _can_create(self, other: Model) -> bool:
        return other in self.models and is_connected(other) and other not in self._creating

    def _keys(self, field: Any, count: int, *, is_unique: bool) -> list[Any]:
        """Return keys of the other table; for a unique relation, keys to which no record points yet."""
        other, target = field.related_model, field.target_field
        tables = [quoted_table(each) for each in (other, *other._meta.get_parent_list()) if not each._meta.proxy]
        if not all(query.relation_exists(self.using, table) for table in tables):
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
