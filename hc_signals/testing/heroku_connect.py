"""Plays Heroku Connect: its tables, functions and triggers, and its way of writing."""

import datetime
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connections, models, transaction

from hc_signals.capture.reload_sql import CLEARING_ROWS, is_aware
from hc_signals.exceptions import HCSignalsError
from hc_signals.tables import (
    NOISE_COLUMNS,
    WITHOUT_IS_DELETED,
    connected_models,
    literal,
    quote,
    quoted_table,
    table_parts,
)
from hc_signals.testing.records import invent, salesforce_id

_SQL = Path(__file__).parent / "sql"

Model = type[models.Model]

POLL_SIZE = 300
"""Records of one poll batch: Heroku Connect's log shows hundreds per statement."""


_ORG = "simulated"
"""The organisation in ``_hcmeta`` of a simulated schema."""


class RealHerokuConnectError(HCSignalsError):
    """The schema belongs to a real Heroku Connect."""

    def __init__(self, schema: str) -> None:
        super().__init__(
            f"The schema {schema!r} belongs to a real Heroku Connect (its _hcmeta names another organisation); "
            "invented records must never get in there. Use a database of its own for the simulator."
        )


@dataclass(frozen=True)
class Step:
    """What one step of :meth:`HerokuConnect.play` did."""

    action: str
    model: Model
    records: int
    """Rows that it wrote, whether or not anything in them changed."""


class HerokuConnect:
    """A Heroku Connect for tests and development, on real tables of a real server.

    Records are given and named by the model's field names (or column names). What is written follows Heroku Connect's
    habits: ``xmlbinary = hex`` for its own work, all mapped columns in one UPDATE, a hard DELETE for a record deleted
    in Salesforce, an sfid write-back and an echo for what the app wrote. Its own triggers are on every table.

    Args:
        using: database alias.
        models: the connected models to play; default: all of the project.
        seed: the same seed on the same (empty) tables plays the same records in the same order.
        clock: gives ``systemmodstamp`` and ``createddate``; default: now, in UTC.
    """

    def __init__(
        self,
        using: str = "default",
        *,
        models: Iterable[Model] | None = None,
        seed: int = 0,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self.using = using
        self.models = list(connected_models() if models is None else models)
        self.chance = random.Random(seed)
        self.clock = clock
        self.changes = 0
        """Changes written so far that a receiver must hear of: no bookkeeping, no no-ops, no writes of the app."""
        self._numbers: dict[Model, int] = {}

    def __repr__(self) -> str:
        return f"<HerokuConnect using={self.using!r} models={[model._meta.label for model in self.models]}>"

    # -- tables ------------------------------------------------------------------------------------------------------

    def create_tables(self) -> None:
        """Create schema, functions, trigger log and the tables of all models; what exists stays as it is."""
        with self._cursor() as cursor:
            cursor.execute("SELECT to_regtype('public.hstore') IS NULL, to_regtype('hstore') IS NULL")
            if all(cursor.fetchone()):
                cursor.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'hstore'")
                has_extension = cursor.fetchone()[0]
                hstore = "CREATE EXTENSION hstore SCHEMA public" if has_extension else _read("hstore.sql")
                cursor.execute(hstore)
        for model in self.models:
            self.create_table(model)

    def create_table(self, model: Model) -> None:
        """Create the table of one mapping, with Heroku Connect's own indexes, functions and triggers."""
        schema, table = table_parts(model)
        with self._cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s)", [f"{quote(schema)}._hcmeta"])
            if cursor.fetchone()[0] is None:
                channel = literal(f"{schema}.hc_trigger_log")
                cursor.execute(_filled("schema.sql", schema=quote(schema), channel=channel))
                cursor.execute(
                    f"INSERT INTO {quote(schema)}._hcmeta (hcver, org_id, details) VALUES (1, %s, '{{}}')", [_ORG]
                )
            cursor.execute(f"SELECT org_id FROM {quote(schema)}._hcmeta ORDER BY id LIMIT 1")
            if cursor.fetchone() != (_ORG,):
                raise RealHerokuConnectError(schema)
            cursor.execute("SELECT to_regclass(%s)", [quoted_table(model)])
            if cursor.fetchone()[0] is None:
                for statement in self._table_sql(model, schema, table):
                    cursor.execute(statement)

    def _encoding(self) -> str:
        with self._cursor() as cursor:
            cursor.execute("SHOW server_encoding")
            return str(cursor.fetchone()[0])

    def _table_sql(self, model: Model, schema: str, table: str) -> Iterator[str]:
        connection = connections[self.using]
        # Heroku Connect's own collation, which only databases in UTF8 have.
        collation = "ucs_basic" if self._encoding() == "UTF8" else "C"
        columns = {"id": "serial"}
        for field in model._meta.local_concrete_fields:
            if field is not model._meta.auto_field:
                columns[str(field.column)] = str(field.db_type(connection))
        # Heroku Connect maps these also where the model does not have them (a child of another connected model).
        columns |= {"sfid": f'varchar(18) COLLATE "{collation}"', "systemmodstamp": "timestamp without time zone"}
        columns.setdefault("createddate", "timestamp without time zone")
        if self._object_name(model) not in WITHOUT_IS_DELETED:
            columns["isdeleted"] = "boolean"
        bookkeeping = {"_hc_lastop": "varchar(32)", "_hc_err": "text"}
        lines = [f"{quote(name)} {kind}" for name, kind in ({**columns, **bookkeeping}).items()]
        yield f"CREATE TABLE {quoted_table(model)} ({', '.join(lines)}, PRIMARY KEY (id))"
        unique = {str(f.column) for f in model._meta.local_concrete_fields if f.unique and not f.primary_key} | {"sfid"}
        plain = {str(f.column) for f in model._meta.local_concrete_fields if getattr(f, "db_index", False)} - unique
        for prefix, kind, names in (("hcu_idx", "UNIQUE INDEX", unique), ("hc_idx", "INDEX", plain)):
            for name in sorted(names):
                index = quote(_fitting(f"{prefix}_{table}_{name}"))
                yield f"CREATE {kind} {index} ON {quoted_table(model)} ({quote(name)})"
        read_write = getattr(model, "sf_access", "") == "read_write"
        yield _filled(
            "table.sql",
            schema=quote(schema),
            table=quote(table),
            log_sequence=literal(f"{quote(schema)}._trigger_log_id_seq"),
            first_state=literal("NEW" if read_write else "READONLY"),
            ignored_state=literal("IGNORE" if read_write else "READONLY"),
            status_function=quote(_fitting(f"hc_{table}_status")),
            logger_function=quote(_fitting(f"hc_{table}_logger")),
            status_trigger=quote(_fitting(f"hc_{table}_status_trigger")),
            log_trigger=quote(_fitting(f"hc_{table}_logtrigger")),
        )

    def drop_table(self, model: Model) -> None:
        """Remove a mapping: its table goes, with every trigger on it; functions stay."""
        with self._cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {quoted_table(model)}")

    def drop_schemas(self) -> None:
        """Remove the add-on: every mapped schema goes with all that is in it."""
        with self._cursor() as cursor:
            for schema in sorted({table_parts(model)[0] for model in self.models}):
                cursor.execute(f"DROP SCHEMA IF EXISTS {quote(schema)} CASCADE")

    def recreate_table(self, model: Model) -> int:
        """Drop and re-create a table and load its records again; foreign triggers are gone after it.

        Returns:
            the number of records loaded; no receiver hears of them until capture is installed again.
        """
        with self._as_heroku_connect():
            rows = self._all_rows(model)
            self.drop_table(model)
            self.create_table(model)
            self._copy_rows(model, rows)
        return len(rows)

    def add_column(self, model: Model, column: str, kind: str = "varchar(255)", value: Any = None) -> int:
        """Map one more field: ADD COLUMN, then a resync that writes every row; return the number of rows."""
        with self._as_heroku_connect() as cursor:
            cursor.execute(f"ALTER TABLE {quoted_table(model)} ADD COLUMN {quote(column)} {kind}")
            cursor.execute(f"UPDATE {quoted_table(model)} SET {quote(column)} = %s", [value])
            resynced = int(cursor.rowcount)
        if value is not None and column in self._mapped(model):
            self.changes += resynced
        return resynced

    def drop_column(self, model: Model, column: str) -> None:
        """Unmap a field: DROP COLUMN."""
        with self._as_heroku_connect() as cursor:
            cursor.execute(f"ALTER TABLE {quoted_table(model)} DROP COLUMN {quote(column)}")

    # -- what happens in Salesforce ----------------------------------------------------------------------------------

    def insert(self, model: Model, *records: Mapping[str, Any], **values: Any) -> list[str]:
        """New records in Salesforce, read in one poll; return their sfids.

        Args:
            records: values by field name; or, for one record, as keyword arguments. An ``sf_id`` may be given.
        """
        rows = [self._columns(model, record) for record in (*records, *([values] if values or not records else []))]
        for row in rows:
            row.setdefault("sfid", self._next_sfid(model))
            row |= {"systemmodstamp": self._now(), "createddate": self._now(), "isdeleted": False}
        with self._as_heroku_connect():
            self._insert_rows(model, rows)
        self.changes += len(rows)
        return [row["sfid"] for row in rows]

    def create(self, model: Model, count: int = 1) -> list[str]:
        """Insert ``count`` invented records in one poll; return their sfids."""
        return self.insert(model, *(self._invented(model) for _ in range(count))) if count else []

    def update(self, model: Model, sfid: str, **values: Any) -> bool:
        """One record was edited in Salesforce and is polled; tell whether anything that counts changed."""
        return bool(self.poll(model, [{"sf_id": sfid, **values}]))

    def poll(self, model: Model, records: Sequence[Mapping[str, Any]]) -> int:
        """Read records as a poll does: matched by sfid, then by the upsert field, they are updated, else inserted.

        Args:
            records: each with its ``sf_id`` and the values that the poll brought.

        Returns:
            the number of changes in it that count; a record read again unchanged is none.
        """
        rows = [self._columns(model, record) for record in records]
        before = self.changes
        stamps = {"systemmodstamp": self._now(), "createddate": self._now(), "isdeleted": False}
        new = []
        known = set(self.sfids(model, [row["sfid"] for row in rows]))
        with self._as_heroku_connect():
            for row in rows:
                key = "sfid" if row["sfid"] in known else self._unlinked_by(model, row)
                if key is None:
                    new.append(stamps | row)
                else:
                    self.changes += self._update_row(model, row, key)
            self._insert_rows(model, new)
            self.changes += len(new)
        return self.changes - before

    def _unlinked_by(self, model: Model, row: dict[str, Any]) -> str | None:
        """Return the upsert column if it finds a row that has no sfid yet: the echo came before the write-back."""
        for field in model._meta.local_concrete_fields:
            column = str(field.column)
            if getattr(field, "upsert", False) and row.get(column) is not None:
                unlinked = f"SELECT 1 FROM {quoted_table(model)} WHERE {quote(column)} = %s AND sfid IS NULL"
                with self._cursor() as cursor:
                    cursor.execute(unlinked, [row[column]])
                    if cursor.fetchone():
                        return column
        return None

    def _update_row(self, model: Model, row: dict[str, Any], key: str) -> int:
        """Update one row and tell by its old values, not by any trigger, whether a change that counts was made."""
        row = {"systemmodstamp": self._now(), **row}
        mapped, existing = self._mapped(model), self._existing(model)
        watched = [name for name in row if name not in NOISE_COLUMNS and name in mapped]
        differs = " OR ".join(f"t.{quote(n)} IS DISTINCT FROM b.{quote(n)}" for n in watched) or "false"
        names = [name for name in row if name != key and name in existing]
        with self._cursor() as cursor:
            cursor.execute(
                f"UPDATE {quoted_table(model)} t SET {', '.join(f'{quote(n)} = %s' for n in names) or 'sfid = t.sfid'} "
                f"FROM {quoted_table(model)} b WHERE b.id = t.id AND t.{quote(key)} = %s RETURNING {differs}",
                [*(row[name] for name in names), row[key]],
            )
            return sum(1 for (differed,) in cursor.fetchall() if differed)

    def delete(self, model: Model, *sfids: str) -> int:
        """Records were deleted in Salesforce: a hard DELETE; return how many rows went."""
        with self._as_heroku_connect() as cursor:
            cursor.execute(f"DELETE FROM {quoted_table(model)} WHERE sfid = ANY(%s)", [list(sfids)])
            self.changes += cursor.rowcount
            return int(cursor.rowcount)

    def bulk_load(self, model: Model, count: int) -> int:
        """Load ``count`` invented records by COPY, as after a mass import in Salesforce; return the count."""
        rows = [self._invented(model) | {"sfid": self._next_sfid(model)} for _ in range(count)]
        stamp = {"systemmodstamp": self._now(), "createddate": self._now(), "isdeleted": False}
        with self._as_heroku_connect():
            self._copy_rows(model, [self._columns(model, row) | stamp for row in rows])
        self.changes += count
        return count

    def reload(self, model: Model, clear: str = "truncate") -> int:
        """Clear the table and fill it again with the same records under new ids; return how many.

        Args:
            clear: ``truncate``, ``delete``, or ``silent``: as ``truncate``, with every trigger switched off. Which of
                them Heroku Connect uses is documented nowhere.
        """
        statement = "DELETE FROM" if clear == "delete" else "TRUNCATE"
        with self._as_heroku_connect() as cursor:
            rows = self._all_rows(model)
            if clear == "silent":
                cursor.execute(f"ALTER TABLE {quoted_table(model)} DISABLE TRIGGER USER")
            cursor.execute(f"{statement} {quoted_table(model)}")
        with self._as_heroku_connect() as cursor:
            self._copy_rows(model, rows)
            if clear == "silent":
                cursor.execute(f"ALTER TABLE {quoted_table(model)} ENABLE TRIGGER USER")
        self.changes += self._changes_of_reload(model, rows, clear)
        return len(rows)

    def _changes_of_reload(self, model: Model, rows: Sequence[Mapping[str, Any]], clear: str) -> int:
        """Return how many changes receivers hear of, for a table filled with the very rows that were in it."""
        if clear == "silent":
            return 0
        if not is_aware(model):
            return len(rows) * (1 if clear == "truncate" else 2)
        if clear == "delete" and len(rows) < CLEARING_ROWS:
            return 2 * len(rows)
        return 2 * sum(1 for row in rows if row["sfid"] is None)

    # -- what the app writes, and Heroku Connect's answer --------------------------------------------------------------

    def app_insert(self, model: Model, **values: Any) -> int:
        """The app makes a record: no sfid yet, PENDING, in the trigger log; return the row's id."""
        row = self._columns(model, values)
        with transaction.atomic(using=self.using):
            return self._insert_rows(model, [row])[0]

    def app_update(self, model: Model, row_id: int, **values: Any) -> None:
        """The app edits a record."""
        row = self._columns(model, values)
        names = ", ".join(f"{quote(name)} = %s" for name in row)
        with transaction.atomic(using=self.using), self._cursor() as cursor:
            cursor.execute(f"UPDATE {quoted_table(model)} SET {names} WHERE id = %s", [*row.values(), row_id])

    def send_app_writes(self, refuse: str = "") -> int:
        """Take what is NEW in the trigger log to Salesforce and write the answer back; return how many entries.

        Accepted inserts get their sfid and INSERTED, updates UPDATED; with ``refuse`` (an error message) FAILED.
        """
        done = 0
        by_table = {table_parts(model): model for model in self.models}
        for schema in sorted({schema for schema, _ in by_table}):
            log = f"{quote(schema)}._trigger_log"
            with self._as_heroku_connect() as cursor:
                cursor.execute(f"SELECT id, table_name, record_id, action FROM {log} WHERE state = 'NEW' ORDER BY id")
                for log_id, table, row_id, action in cursor.fetchall():
                    self._answer(by_table.get((schema, table)), row_id, action, refuse)
                    cursor.execute(
                        f"UPDATE {log} SET state = %s, sf_message = %s, updated_at = clock_timestamp(), "
                        "processed_at = clock_timestamp(), processed_tx = txid_current() WHERE id = %s",
                        ["FAILED" if refuse else "SUCCESS", refuse or None, log_id],
                    )
                    done += 1
        return done

    def _answer(self, model: Model | None, row_id: int, action: str, refuse: str) -> None:
        if model is None or action == "DELETE":
            return
        if refuse:
            answer: dict[str, Any] = {"_hc_lastop": "FAILED", "_hc_err": f'{{"msg": "{refuse}"}}'}
        elif action == "INSERT":
            answer = {"_hc_lastop": "INSERTED", "sfid": self._next_sfid(model)}
        else:
            answer = {"_hc_lastop": "UPDATED"}
        names = ", ".join(f"{quote(name)} = %s" for name in answer)
        with self._cursor() as cursor:
            cursor.execute(f"UPDATE {quoted_table(model)} SET {names} WHERE id = %s", [*answer.values(), row_id])

    def echo(self, model: Model, **computed: Any) -> int:
        """The next poll reads what the app wrote: SYNCED, new stamps, and values that Salesforce computed.

        Returns:
            the number of rows read back.
        """
        values = {"isdeleted": False} | self._columns(model, computed)
        with self._as_heroku_connect() as cursor:
            cursor.execute(
                f"SELECT id FROM {quoted_table(model)} WHERE _hc_lastop IN ('INSERTED', 'UPDATED') ORDER BY id"
            )
            ids = [row[0] for row in cursor.fetchall()]
            for row_id in ids:
                row = {"id": row_id, "createddate": self._now(), "_hc_lastop": "SYNCED", **values}
                self.changes += self._update_row(model, row, key="id")
        return len(ids)

    # -- traffic -------------------------------------------------------------------------------------------------------

    ACTIONS = {"poll": 4, "edit": 12, "app": 3, "delete": 2, "bulk": 1, "reload": 1, "recreate": 1, "columns": 1}
    """All kinds of step, and how often each is taken beside the others."""
    EVERYDAY = ("poll", "edit", "app", "delete", "bulk")
    """The kinds of ordinary days: tables stay as they are."""

    def play(self, actions: Sequence[str] = EVERYDAY, poll_size: int = POLL_SIZE) -> Iterator[Step]:
        """Do one random step of everyday traffic after another, for ever; stop by leaving the loop.

        Args:
            actions: which kinds of step; see EVERYDAY.
            poll_size: largest number of records of one poll or bulk load.
        """
        weights = [self.ACTIONS[action] for action in actions]
        while True:
            action = self.chance.choices(list(actions), weights)[0]
            model = self.chance.choice(self.models)
            if action == "app" and getattr(model, "sf_access", "") != "read_write":
                action = "edit"
            records = int(getattr(self, f"_play_{action}")(model, poll_size))
            if not records:  # there was nothing to edit or delete
                action, records = "create", len(self.create(model))
            yield Step(action, model, records)

    def _play_poll(self, model: Model, poll_size: int) -> int:
        """A batch of edited, unchanged and new records."""
        size = self.chance.randint(1, poll_size)
        records = []
        for sfid in self._some(model, size):
            edited = self._invented(model) if self.chance.random() < 0.7 else {}
            records.append({"sf_id": sfid, **{name: value for name, value in edited.items() if name != "sf_id"}})
        new = max(1, size // 10)
        records += [{"sf_id": self._next_sfid(model), **self._invented(model)} for _ in range(new)]
        self.poll(model, records)
        return len(records)

    def _play_edit(self, model: Model, poll_size: int) -> int:
        for sfid in self._some(model, 1):
            record = self._invented(model)
            name = self.chance.choice(sorted(record)) if record else None
            self.update(model, sfid, **({name: record[name]} if name else {}))
            return 1
        return len(self.create(model))

    def _play_app(self, model: Model, poll_size: int) -> int:
        """The app writes, Heroku Connect writes the sfid back, the next poll brings the echo."""
        self.app_insert(model, **self._invented(model))
        self.send_app_writes()
        return self.echo(model)

    def _play_delete(self, model: Model, poll_size: int) -> int:
        return self.delete(model, *self._some(model, self.chance.randint(1, 3)))

    def _play_bulk(self, model: Model, poll_size: int) -> int:
        return self.bulk_load(model, poll_size)

    def _play_reload(self, model: Model, poll_size: int) -> int:
        return self.reload(model, self.chance.choice(["truncate", "delete"]))

    def _play_recreate(self, model: Model, poll_size: int) -> int:
        return self.recreate_table(model)

    def _play_columns(self, model: Model, poll_size: int) -> int:
        rows = self.add_column(model, "simulated__c")
        self.drop_column(model, "simulated__c")
        return rows

    # -- rows ----------------------------------------------------------------------------------------------------------

    def sfids(self, model: Model, among: Sequence[str] | None = None) -> list[str]:
        """Return the sfids in the table, sorted; of those given, if given."""
        where = "sfid IS NOT NULL" if among is None else "sfid = ANY(%s)"
        with self._cursor() as cursor:
            cursor.execute(
                f"SELECT sfid FROM {quoted_table(model)} WHERE {where} ORDER BY sfid",
                None if among is None else [list(among)],
            )
            return [row[0] for row in cursor.fetchall()]

    def _some(self, model: Model, count: int) -> list[str]:
        """Return up to ``count`` random sfids; cheap on a large table: neighbours of one random place."""
        start = salesforce_id(self._object_name(model), self.chance.randint(0, self._numbers.get(model, 1)))
        with self._cursor() as cursor:
            cursor.execute(
                f"SELECT sfid FROM {quoted_table(model)} WHERE sfid >= %s ORDER BY sfid LIMIT %s", [start, count]
            )
            return [row[0] for row in cursor.fetchall()]

    def _invented(self, model: Model) -> dict[str, Any]:
        own = {"sfid", "systemmodstamp", "isdeleted", "_hc_lastop", "_hc_err"}
        values = {}
        for field in model._meta.local_concrete_fields:
            if field is model._meta.auto_field or str(field.column) in own:
                continue
            values[field.attname] = self._related(field) if field.is_relation else invent(field, self.chance)
        return values

    def _related(self, field: Any) -> Any:
        """Return the key of a random record of the other table, if that is played too."""
        other = field.related_model
        if other not in self.models or field.target_field.column != "sfid":
            return None
        return next(iter(self._some(other, 1)), None)

    def _next_sfid(self, model: Model) -> str:
        if model not in self._numbers:
            with self._cursor() as cursor:
                cursor.execute(f"SELECT coalesce(max(id), 0) FROM {quoted_table(model)}")
                self._numbers[model] = cursor.fetchone()[0]
        self._numbers[model] += 1
        return salesforce_id(self._object_name(model), self._numbers[model])

    def _object_name(self, model: Model) -> str:
        return str(getattr(model, "sf_object_name", model.__name__))

    def _now(self) -> datetime.datetime:
        return self.clock().astimezone(datetime.UTC).replace(tzinfo=None)

    def _columns(self, model: Model, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values by column, as the database wants them.

        Raises:
            LookupError: the model has no such field; the known ones are named.
        """
        by_name = {name: f for f in model._meta.local_concrete_fields for name in (f.name, f.attname, str(f.column))}
        row = {}
        for name, value in record.items():
            if name in ("sf_id", "sfid"):  # every mapped table has it, also where the model inherits the field
                row["sfid"] = value
                continue
            if name not in by_name:
                known = ", ".join(sorted({field.name for field in by_name.values()}))
                raise LookupError(f"{model._meta.label} has no field {name!r}; its fields: {known}.")
            field = by_name[name]
            row[str(field.column)] = field.get_db_prep_save(value, connections[self.using])
        return row

    def _mapped(self, model: Model) -> set[str]:
        return {str(field.column) for field in model._meta.local_concrete_fields}

    def _existing(self, model: Model) -> set[str]:
        """Return the table's columns as it is now: some mappings lack createddate, systemmodstamp, isdeleted."""
        with self._cursor() as cursor:
            cursor.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                [quoted_table(model)],
            )
            return {row[0] for row in cursor.fetchall()}

    def _insert_rows(self, model: Model, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Insert the rows in one statement; return their ids."""
        if not rows:
            return []
        existing = self._existing(model)
        names = [name for name in dict.fromkeys(name for row in rows for name in row) if name in existing]
        marks = f"({', '.join(['%s'] * len(names))})"
        with self._cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {quoted_table(model)} ({', '.join(map(quote, names))}) "
                f"VALUES {', '.join([marks] * len(rows))} RETURNING id",
                [row.get(name) for row in rows for name in names],
            )
            return [row[0] for row in cursor.fetchall()]

    def _copy_rows(self, model: Model, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        existing = self._existing(model)
        names = [name for name in rows[0] if name in existing]
        with self._cursor() as cursor:
            statement = f"COPY {quoted_table(model)} ({', '.join(map(quote, names))}) FROM STDIN"
            with cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row([row[name] for name in names])

    def _all_rows(self, model: Model) -> list[dict[str, Any]]:
        """Return all rows without their ids: Heroku Connect hands out new ones whenever it fills a table."""
        with self._cursor() as cursor:
            cursor.execute(f"SELECT * FROM {quoted_table(model)} ORDER BY id")
            names = [column.name for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return [{name: value for name, value in row.items() if name != "id"} for row in rows]

    def _cursor(self) -> Any:
        return connections[self.using].cursor()

    @contextmanager
    def _as_heroku_connect(self) -> Iterator[Any]:
        """A transaction under ``xmlbinary = hex``; the app's value is back afterwards, also inside an outer one."""
        with transaction.atomic(using=self.using), self._cursor() as cursor:
            cursor.execute("SELECT current_setting('xmlbinary'), set_config('xmlbinary', 'hex', true)")
            before = cursor.fetchone()[0]
            yield cursor
            cursor.execute("SELECT set_config('xmlbinary', %s, true)", [before])


def _read(name: str) -> str:
    return (_SQL / name).read_text(encoding="utf-8")


def _filled(name: str, **places: str) -> str:
    text = _read(name)
    for place, value in places.items():
        text = text.replace(f"{{{place}}}", value)
    return text


def _fitting(name: str) -> str:
    """Shorten a name to PostgreSQL's 63 bytes; a hash keeps two long ones apart."""
    if len(name.encode()) <= 63:
        return name
    return name.encode()[:54].decode(errors="ignore") + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
