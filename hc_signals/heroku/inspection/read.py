"""Reads the mapped objects from the tables of a schema, or from an exported mapping."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import DatabaseError, connections, transaction

from hc_signals.heroku.mappings import by_lower_name
from hc_signals.postgres.names import quote, truncate_name
from hc_signals.tables import SYSTEM_COLUMNS


@dataclass(frozen=True)
class Column:
    """A mapped field."""

    name: str
    """API name, as an exported mapping spells it; from a table, the column's name."""
    column: str
    """Name of the column in the database."""
    type: str | None = None
    """PostgreSQL's name of the type, for example ``varchar(80)``; None from a mapping."""
    unique: bool = False
    is_text: bool = False
    """The values are texts in Python, whatever the type: also for an enum or citext."""
    is_computed: bool = False
    """The database fills it and accepts no other value: a generated column, or GENERATED ALWAYS AS IDENTITY."""
    holds_uuids: bool = False
    """The values are UUIDs of 32 hex digits, or the column has 32 characters and no values."""


@dataclass(frozen=True)
class Table:
    """A mapped object."""

    object_name: str
    columns: tuple[Column, ...]
    read_write: bool = False
    upsert: str = ""
    """Name of the upsert field's column; empty if it is unknown."""
    case_known: bool = False
    """True for an exported mapping; False for a table, whose names are in lower case."""

    @property
    def by_column(self) -> dict[str, Column]:
        """The columns by their name in the database."""
        return {column.column: column for column in self.columns}


@dataclass(frozen=True)
class Source:
    """The mapped objects of a schema or of a mapping."""

    tables: tuple[Table, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    """The reason for each table that cannot be a model, by name."""


_RELATIONS = """
SELECT c.oid, c.relname, c.relkind::text,
       EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
               WHERE t.tgrelid = c.oid AND p.proname LIKE 'hc\\_%%\\_logger' AND p.prosrc NOT LIKE '%%READONLY%%')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND c.relname NOT LIKE '\\_%%'
ORDER BY c.relname
"""
TYPE = """format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END,
                   CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END)"""
"""SQL for the name of a column's type, or of a domain's base type. ``a`` is pg_attribute, ``t`` is pg_type."""
_COLUMNS = f"""
SELECT a.attrelid, a.attname, {TYPE}, t.typcategory IN ('S', 'E'), a.attgenerated <> '' OR a.attidentity = 'a',
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indisvalid
               AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = ANY (%s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
_NO_TABLES = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_KEYS = frozenset({"integer", "bigint", "smallint"})
UUID_TYPE = "varchar(32)"


def live_source(using: str, schema: str) -> Source:
    """Return the mapped tables of a schema, without Heroku Connect's own, whose names begin with an underscore."""
    with connections[using].cursor() as cursor:
        cursor.execute(_RELATIONS, [truncate_name(schema)])
        relations = cursor.fetchall()
        cursor.execute(_COLUMNS, [[oid for oid, *_ in relations]])
        columns: dict[int, list[Column]] = {}
        for oid, name, kind, is_text, is_computed, unique in cursor.fetchall():
            columns.setdefault(oid, []).append(Column(name, name, short_type(kind), unique, is_text, is_computed))
    tables, left_out = [], {}
    for oid, name, relkind, read_write in relations:
        found = columns.get(oid, [])
        if reason := _why_no_model(name, relkind, found):
            left_out[name] = reason
        else:
            found = [replace(each, holds_uuids=_holds_uuids(using, schema, name, each)) for each in found]
            # In a read-only mapping, Heroku Connect's trigger function marks every entry as READONLY.
            tables.append(Table(name, tuple(found), read_write))
    return Source(tuple(tables), left_out)


def _why_no_model(name: str, relkind: str, columns: Iterable[Column]) -> str:
    if relkind in _NO_TABLES:
        return f"it is {_NO_TABLES[relkind]}; Heroku Connect writes to tables."
    if name != name.lower():
        return "its name has capitals; names of Heroku Connect's tables have none."
    if unreadable := unnameable(name):
        return f"its name has {unreadable}, which Django cannot use in a query."
    types = {column.column: column.type for column in columns}
    missing = [name for name in ("id", "sfid") if name not in types]
    if missing:
        return f"it has no column {' and no '.join(map(repr, missing))}; Heroku Connect's tables have both."
    return "" if types["id"] in _KEYS else f"its 'id' is {types['id']}; Heroku Connect's is an integer."


def _holds_uuids(using: str, schema: str, table: str, column: Column) -> bool:
    """Read up to 1000 rows; return False if the user may not read them, or Heroku Connect has locked the table."""
    if column.type != UUID_TYPE or not column.unique:
        return False
    name = quote(column.column)
    try:
        with transaction.atomic(using=using), connections[using].cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '2s'")
            cursor.execute(
                f"SELECT count(*) = 0 FROM (SELECT {name} FROM {quote(schema)}.{quote(table)} WHERE {name} IS NOT NULL "
                f"LIMIT 1000) s WHERE {name} !~ '^[0-9a-f]{{32}}$'"
            )
            return bool(cursor.fetchone()[0])
    except DatabaseError:
        return False


def unnameable(name: str) -> str:
    """Return the character that Django cannot have in the name of a column or table; empty if there is none."""
    return next((repr(each) for each in name if each in '"$%'), "")


def short_type(kind: str) -> str:
    """Return a type's name as Django writes it, in one line and without the precision of a time."""
    kind = re.sub(r"^(timestamp|time|interval)\(\d\)", r"\1", " ".join(kind.split()))
    return kind.replace("character varying", "varchar").replace("time without time zone", "time")


def mapped_source(mapping: dict[str, Any]) -> Source:
    """Return the objects of an exported mapping, which has no types.

    Names compare without case, as in Salesforce. Two entries of one object are one table.
    """
    tables: dict[str, Table] = {}
    for entry in mapping["mappings"]:
        table = _mapped_table(entry["object_name"], entry["config"])
        if (before := tables.get(table.object_name.lower())) is not None:
            columns = {each.column: each for each in (*table.columns, *before.columns)}
            table = replace(
                before,
                columns=tuple(columns.values()),
                read_write=before.read_write or table.read_write,
                upsert=before.upsert or table.upsert,
            )
        tables[table.object_name.lower()] = table
    return Source(tuple(tables.values()))


def _mapped_table(object_name: str, config: dict[str, Any]) -> Table:
    indexes = by_lower_name(config.get("indexes"))
    unique = {name for name, index in indexes.items() if isinstance(index, dict) and index.get("unique") is True}
    columns: dict[str, Column] = {}
    for name in _names(config.get("fields")):
        column = Column(name, truncate_name(name.lower()), unique=name.lower() in unique)
        columns.setdefault(column.column, column)
    upsert = truncate_name(str(config.get("upsert_field") or "").lower())
    # A system field cannot be the upsert field. Such a mapping counts as one without an upsert field.
    upsert = upsert if upsert in columns.keys() - {"id", *SYSTEM_COLUMNS} and not unnameable(upsert) else ""
    return Table(object_name, tuple(columns.values()), config.get("access") == "read_write", upsert, case_known=True)


def _names(fields: Any) -> Iterator[str]:
    """Yield the API names. A list has names, or objects with a ``name``."""
    for each in fields if isinstance(fields, list | dict) else ():
        name = each.get("name") if isinstance(each, dict) else each
        if isinstance(name, str) and name.strip():
            yield name
