"""Invents whole records of a model: what is unique stays unique, what is related exists."""

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

_CONSTRAINTS = """
SELECT a.attname, a.attnotnull,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indnkeyatts = 1
               AND i.indkey[0] = a.attnum)
FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""


class NoValueLeftError(HCSignalsError):
    """A field that is unique and must not be NULL has no value left that is not in the table."""

    def __init__(self, field: Any, size: int) -> None:
        super().__init__(
            f"{field.model._meta.label}.{field.name} is unique and must not be NULL; of its {size} possible values too "
            "few are left. Delete records, or ask for fewer."
        )


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
        unique, required = self._constraints(model)
        values: dict[str, list[Any]] = {}
        for field in model._meta.local_concrete_fields:
            column = str(field.column)
            if field is model._meta.auto_field or column in _OWN | given:
                continue
            demands = {"is_unique": column in unique, "is_required": column in required}
            values[field.attname] = self._values(field, count, **demands)
        return [{name: column[number] for name, column in values.items()} for number in range(count)]

    def _constraints(self, model: Model) -> tuple[set[str], set[str]]:
        """Return the columns that are unique, and those that must not be NULL: by the model or by the table."""
        fields: list[Any] = list(model._meta.local_concrete_fields)
        unique = {str(field.column) for field in fields if field.unique}
        required = {str(field.column) for field in fields if not field.null or getattr(field, "upsert", False)}
        with self._cursor() as cursor:
            cursor.execute(_CONSTRAINTS, [quoted_table(model)])
            for column, not_null, has_index in cursor.fetchall():
                unique |= {column} if has_index else set()
                required |= {column} if not_null else set()
        return unique, required

    def _values(self, field: Any, count: int, *, is_unique: bool, is_required: bool) -> list[Any]:
        if field.is_relation:
            found = self._related(field, count, is_unique=is_unique, is_required=is_required)
        elif is_unique and not isinstance(field, NEVER_ALIKE):
            found = self._unused(field, count, is_required=is_required)
        else:
            return [invent(field, self.chance, is_required=is_required) for _ in range(count)]
        return found + [None] * (count - len(found))

    # -- unique fields -------------------------------------------------------------------------------------------------

    def _unused(self, field: Any, count: int, *, is_required: bool) -> list[Any]:
        """Return up to ``count`` different values that are not in the table: fewer only if NULL will do."""
        size, value_of = distinct(field)
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
        column = quote(field.column)
        with self._cursor() as cursor:
            cursor.execute(
                f"SELECT {column} FROM {quoted_table(field.model)} WHERE {column} = ANY(%s::{self._type(field)}[])",
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
