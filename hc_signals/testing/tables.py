"""Creates mapped schemas and tables as Heroku Connect does: columns, indexes, functions, triggers."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db import connections

from hc_signals.exceptions import HCSignalsError
from hc_signals.postgres import query
from hc_signals.postgres.names import literal, quote
from hc_signals.tables import mapped_columns, quoted_table, table_parts
from hc_signals.testing.rows import Model, Rows

_SQL = Path(__file__).parent / "sql"

_ORG = "simulated"
"""Organisation in ``_hcmeta`` of a simulated schema; any other one is of a real Heroku Connect."""


class RealHerokuConnectError(HCSignalsError):
    """The schema belongs to a real Heroku Connect, so the simulator does not write to it."""

    def __init__(self, schema: str) -> None:
        super().__init__(
            f"The schema {schema!r} belongs to a real Heroku Connect (its _hcmeta names another organisation); "
            "expected a simulated one, because the simulator writes invented records. Use another database."
        )


_SYSTEM_COLUMNS = {
    "systemmodstamp": "timestamp without time zone",
    "createddate": "timestamp without time zone",
    "isdeleted": "boolean",
}


class Tables(Rows):
    """Creates, alters and drops the schemas and tables of mappings."""

    def create_tables(self) -> None:
        """Create schema, functions, trigger log and the tables of all models.

        Existing tables stay. They get columns for new fields of the model.
        """
        with query.unprepared_cursor(self.using) as cursor:
            create_hstore(cursor)
            cursor.execute("SELECT to_regproc('public.get_xmlbinary') IS NULL")
            if cursor.fetchone()[0]:
                cursor.execute(heroku_sql("xmlbinary.sql"))
        for model in self.models:
            self.create_table(model)

    def create_table(self, model: Model) -> None:
        """Create the table of one mapping, with Heroku Connect's own indexes, functions and triggers.

        An existing table gets columns for new fields of the model, as after a change of the mapping.
        """
        schema, table = table_parts(model)
        if not query.relation_exists(self.using, f"{quote(schema)}._hcmeta"):
            query.execute(self.using, schema_sql(schema))
        self._refuse_real(schema)
        is_new = not query.relation_exists(self.using, quoted_table(model))
        for statement in self._table_sql(model, schema, table) if is_new else self._gained_sql(model, table):
            query.execute(self.using, statement)

    def refuse_real(self) -> None:
        """Check that no schema of the models belongs to a real Heroku Connect.

        Raises:
            RealHerokuConnectError: one does.
        """
        for schema in sorted({table_parts(model)[0] for model in self.models}):
            if query.relation_exists(self.using, f"{quote(schema)}._hcmeta"):
                self._refuse_real(schema)

    def _refuse_real(self, schema: str) -> None:
        if query.row(self.using, f"SELECT org_id FROM {quote(schema)}._hcmeta ORDER BY id LIMIT 1") != (_ORG,):
            raise RealHerokuConnectError(schema)

    def _column_types(self, model: Model) -> dict[str, str]:
        connection = connections[self.using]
        # Heroku Connect uses ucs_basic, which exists in UTF8 databases alone.
        collation = "ucs_basic" if query.row(self.using, "SHOW server_encoding") == ("UTF8",) else "C"
        columns = {"id": "serial"}
        for field in model._meta.local_concrete_fields:
            if field is not model._meta.auto_field:
                columns[str(field.column)] = str(field.db_type(connection))
        columns["sfid"] = f'varchar(18) COLLATE "{collation}"'
        columns |= {name: kind for name, kind in _SYSTEM_COLUMNS.items() if _has_system_column(model, name)}
        return columns | {"_hc_lastop": "varchar(32)", "_hc_err": "text"}

    def _gained_sql(self, model: Model, table: str) -> Iterator[str]:
        lacking = set(mapped_columns(model)) - self._existing(model)
        gained = {name: kind for name, kind in self._column_types(model).items() if name in lacking}
        if gained:
            lines = [f"ADD COLUMN {quote(name)} {kind}" for name, kind in gained.items()]
            yield f"ALTER TABLE {quoted_table(model)} {', '.join(lines)}"
            yield from self._index_sql(model, table)

    def _index_sql(self, model: Model, table: str) -> Iterator[str]:
        unique = {str(f.column) for f in model._meta.local_concrete_fields if f.unique and not f.primary_key} | {"sfid"}
        plain = {str(f.column) for f in model._meta.local_concrete_fields if getattr(f, "db_index", False)} - unique
        for prefix, kind, names in (("hcu_idx", "UNIQUE INDEX", unique), ("hc_idx", "INDEX", plain)):
            for name in sorted(names):
                index = quote(fitting(f"{prefix}_{table}_{name}"))
                yield f"CREATE {kind} IF NOT EXISTS {index} ON {quoted_table(model)} ({quote(name)})"

    def _table_sql(self, model: Model, schema: str, table: str) -> Iterator[str]:
        lines = [f"{quote(name)} {kind}" for name, kind in self._column_types(model).items()]
        yield f"CREATE TABLE {quoted_table(model)} ({', '.join(lines)}, PRIMARY KEY (id))"
        yield from self._index_sql(model, table)
        yield triggers_sql(schema, table, read_write=getattr(model, "sf_access", "") == "read_write")

    def drop_table(self, model: Model) -> None:
        """Remove a mapping: drop its table, and so the triggers on it; its functions stay."""
        query.execute(self.using, f"DROP TABLE IF EXISTS {quoted_table(model)}")

    def drop_schemas(self) -> None:
        """Remove the add-on: drop every mapped schema with all that is in it."""
        for schema in sorted({table_parts(model)[0] for model in self.models}):
            query.execute(self.using, f"DROP SCHEMA IF EXISTS {quote(schema)} CASCADE")

    def recreate_table(self, model: Model) -> int:
        """Drop a table, create it and load its records again. Capture triggers are gone until they are installed again.

        Returns:
            the number of records. No receiver is called for them.
        """
        with self._as_heroku_connect():
            rows = self._all_rows(model)
            self.drop_table(model)
            self.create_table(model)
            self._copy_rows(model, rows)
        return len(rows)

    def add_column(self, model: Model, column: str, kind: str = "varchar(255)", value: Any = None) -> int:
        """Map one more field: ADD COLUMN, then an UPDATE of every row; return the number of rows."""
        with self._as_heroku_connect() as cursor:
            cursor.execute(f"ALTER TABLE {quoted_table(model)} ADD COLUMN {quote(column)} {kind}")
            cursor.execute(f"UPDATE {quoted_table(model)} SET {quote(column)} = %s", [value])
            resynced = int(cursor.rowcount)
        if value is not None and column in mapped_columns(model):
            self.changes += resynced
        return resynced

    def drop_column(self, model: Model, column: str) -> None:
        """Unmap a field: DROP COLUMN."""
        with self._as_heroku_connect() as cursor:
            cursor.execute(f"ALTER TABLE {quoted_table(model)} DROP COLUMN {quote(column)}")


def _has_system_column(model: Model, column: str) -> bool:
    """Return whether the table has a system column; a child's table has it where the model inherits the field."""
    if any(field.column == column for field in model._meta.concrete_fields):
        return True
    from hc_signals.db.models.base import HerokuConnectModelBase  # needs Django to be set up

    # A connected model has a field for each system column of its object. A plain model may leave fields out.
    return column == "createddate" or (column == "systemmodstamp" and not isinstance(model, HerokuConnectModelBase))


def create_hstore(cursor: Any) -> None:
    """Create the type that Heroku Connect's functions use, if it is missing: the extension, or the part they need."""
    cursor.execute("SELECT to_regtype('public.hstore') IS NULL AND to_regtype('hstore') IS NULL")
    if cursor.fetchone()[0]:
        cursor.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'hstore'")
        has_extension = cursor.fetchone()[0]
        cursor.execute("CREATE EXTENSION hstore SCHEMA public" if has_extension else heroku_sql("hstore.sql"))


def triggers_sql(schema: str, table: str, *, read_write: bool) -> str:
    """Return Heroku Connect's own functions and triggers on one mapped table."""
    return heroku_sql(
        "table.sql",
        schema=quote(schema),
        table=quote(table),
        log_sequence=literal(f"{quote(schema)}._trigger_log_id_seq"),
        first_state=literal("NEW" if read_write else "READONLY"),
        ignored_state=literal("IGNORE" if read_write else "READONLY"),
        status_function=quote(fitting(f"hc_{table}_status")),
        logger_function=quote(fitting(f"hc_{table}_logger")),
        status_trigger=quote(fitting(f"hc_{table}_status_trigger")),
        log_trigger=quote(fitting(f"hc_{table}_logtrigger")),
    )


def schema_sql(schema: str) -> str:
    """Return Heroku Connect's own tables and functions in a mapped schema."""
    channel = literal(f"{schema}.hc_trigger_log")
    return (
        heroku_sql("xmlbinary.sql")
        + heroku_sql("schema.sql", schema=quote(schema), channel=channel)
        + (f"\nINSERT INTO {quote(schema)}._hcmeta (hcver, org_id, details) VALUES (1, {literal(_ORG)}, '{{}}');\n")
    )


def heroku_sql(name: str, **places: str) -> str:
    """Return a file of ``sql/`` with its ``{places}`` filled in."""
    text = (_SQL / name).read_text(encoding="utf-8")
    for place, value in places.items():
        text = text.replace(f"{{{place}}}", value)
    return text


def fitting(name: str) -> str:
    """Shorten a name to PostgreSQL's 63 bytes, with a hash, so that two long names stay distinct."""
    if len(name.encode()) <= 63:
        return name
    return name.encode()[:54].decode(errors="ignore") + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
