"""Reads and writes rows of connected tables as Heroku Connect does: by column, without the ORM."""

import datetime
import inspect
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from django.db import connections, models, transaction

from hc_signals.conf import origin_rules
from hc_signals.exceptions import ConfigurationError
from hc_signals.origins import labels
from hc_signals.postgres import query
from hc_signals.postgres.moments import now
from hc_signals.postgres.names import quote
from hc_signals.tables import connected_models, quoted_table
from hc_signals.testing.field_names import unknown_field
from hc_signals.testing.salesforce_ids import id_range, number_of, salesforce_id

Model = type[models.Model]


class Rows:
    """The state of the simulator, and the statements that every part of it uses. See HerokuConnect for arguments."""

    def __init__(
        self,
        using: str = "default",
        *,
        models: Iterable[Model] | None = None,
        seed: int = 0,
        clock: Callable[[], datetime.datetime] = now,
    ) -> None:
        self.using = using
        self.models = list(connected_models() if models is None else models)
        self.chance = random.Random(seed)
        self.clock = clock
        self.changes = 0
        """Number of changes written so far that receivers are called for.

        It leaves out what the app wrote, changes of bookkeeping columns alone, and updates that changed nothing.
        """
        self._numbers: dict[Model, int] = {}
        """Number of the last record that this simulator made, by model."""
        self._creating: set[Model] = set()
        """Models whose records are being created now, so that a relation cannot create records in a circle."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} using={self.using!r} models={[model._meta.label for model in self.models]}>"

    def sfids(self, model: Model, among: Sequence[str] | None = None) -> list[str]:
        """Return the sfids in the table, sorted; with ``among``, those of them that the table has."""
        where = "sfid IS NOT NULL" if among is None else "sfid = ANY(%s)"
        params = None if among is None else [list(among)]
        found = query.rows(self.using, f"SELECT sfid FROM {quoted_table(model)} WHERE {where} ORDER BY sfid", params)
        return [sfid for (sfid,) in found]

    def _some(self, model: Model, count: int) -> list[str]:
        """Return up to ``count`` random sfids. They are neighbours, which is cheap to read in a large table."""
        last = self._numbers.get(model) or self._largest_number(model)
        start = salesforce_id(self._object_name(model), self.chance.randint(0, last or 1))
        sql = f"SELECT sfid FROM {quoted_table(model)} WHERE sfid >= %s ORDER BY sfid LIMIT %s"
        return [sfid for (sfid,) in query.rows(self.using, sql, [start, count])]

    def _next_sfids(self, model: Model, count: int) -> list[str]:
        """Return sfids above all that the table has, or that this simulator has made; another one may have written."""
        first = max(self._numbers.get(model, 0), self._largest_number(model)) + 1
        self._numbers[model] = first + count - 1
        return [salesforce_id(self._object_name(model), number) for number in range(first, first + count)]

    def _largest_number(self, model: Model) -> int:
        """Return the highest number among the ids that :func:`salesforce_id` made; 0 if there is none."""
        found = query.row(
            self.using,
            f"SELECT sfid FROM {quoted_table(model)} WHERE sfid >= %s AND sfid < %s "
            "AND sfid ~ '^[0-9A-Za-z]{18}$' ORDER BY sfid DESC LIMIT 1",
            id_range(self._object_name(model)),
        )
        return number_of(found[0]) if found else 0

    def _object_name(self, model: Model) -> str:
        return str(getattr(model, "sf_object_name", model.__name__))

    def _now(self) -> datetime.datetime:
        return self.clock().astimezone(datetime.UTC).replace(tzinfo=None)

    def _stamps(self) -> dict[str, Any]:
        """Return the values that Salesforce sets in every new record."""
        return {"systemmodstamp": self._now(), "createddate": self._now(), "isdeleted": False}

    def _columns(self, model: Model, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values by column, as parameters of a statement.

        Raises:
            LookupError: the model has no such field. The message names the known ones.
        """
        by_name = {name: f for f in model._meta.local_concrete_fields for name in (f.name, f.attname, str(f.column))}
        row = {}
        for given, whole in record.items():
            if given in ("sf_id", "sfid"):  # every mapped table has this column, even if the model inherits the field
                row["sfid"] = whole
                continue
            parts = {given: whole} if given in by_name else _parts(model, given, whole)
            for name, value in parts.items():
                if name not in by_name:
                    known = {field.name for field in by_name.values()}
                    raise LookupError(unknown_field(model._meta.label, given, known))
                field: Any = by_name[name]
                is_record = field.is_relation and isinstance(value, models.Model)
                key = getattr(value, field.target_field.attname) if is_record else value
                row[str(field.column)] = field.get_db_prep_save(key, connections[self.using])
        return row

    def _existing(self, model: Model) -> set[str]:
        """Return the columns of the table, without generated ones.

        Some tables lack createddate, systemmodstamp or isdeleted.
        """
        found = query.rows(
            self.using,
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
            "AND attgenerated = '' AND attidentity <> 'a'",
            [quoted_table(model)],
        )
        return {column for (column,) in found}

    def _insert_rows(self, model: Model, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Insert the rows in one statement; return their ids."""
        if not rows:
            return []
        existing = self._existing(model)
        names = [name for name in dict.fromkeys(name for row in rows for name in row) if name in existing]
        if not names:  # the table has only bookkeeping columns
            names = ["_hc_err"]
        marks = f"({', '.join(['%s'] * len(names))})"
        inserted = query.rows(
            self.using,
            f"INSERT INTO {quoted_table(model)} ({', '.join(map(quote, names))}) "
            f"VALUES {', '.join([marks] * len(rows))} RETURNING id",
            [row.get(name) for row in rows for name in names],
        )
        return [row_id for (row_id,) in inserted]

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
        """Return all rows without their ids: Heroku Connect assigns new ones whenever it fills a table."""
        with self._cursor() as cursor:
            cursor.execute(f"SELECT * FROM {quoted_table(model)} ORDER BY id")
            names = [column.name for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return [{name: value for name, value in row.items() if name != "id"} for row in rows]

    def _cursor(self) -> Any:
        return connections[self.using].cursor()

    @contextmanager
    def _as_heroku_connect(self) -> Iterator[Any]:
        """Run a transaction with ``xmlbinary = hex``; restore the app's value at the end, for an outer transaction.

        If ORIGINS has other rules, the session also takes on the first one that it can, and gives it back.

        Raises:
            ConfigurationError: every rule needs the login of another role.
        """
        with transaction.atomic(using=self.using), self._cursor() as cursor:
            settings = {"xmlbinary": "hex"} | self._settings_of_rule()
            before = {}
            for name, value in settings.items():
                cursor.execute("SELECT current_setting(%s, true), set_config(%s, %s, true)", [name, name, value])
                before[name] = cursor.fetchone()[0]
            yield cursor
            for name, value in before.items():
                cursor.execute("SELECT set_config(%s, %s, true)", [name, value or ""])

    def _settings_of_rule(self) -> dict[str, str]:
        rules = origin_rules()
        for rule in rules:
            if rule.setting != "session_authorization":
                return {rule.setting: rule.value}
            login = query.row(self.using, f"SELECT {rule.condition}")[0]
            if login:
                return {}
        raise ConfigurationError(
            f"The simulator cannot write as {' or '.join(labels(rules))}, because PostgreSQL fixes a session's role at "
            "login. Use a database alias that logs in as this role, or add 'heroku_connect' to HC_SIGNALS['ORIGINS'] "
            "in the settings of the tests."
        )


def _parts(model: Model, name: str, value: Any) -> dict[str, Any]:
    """Return the fields that a property of the model sets, by name: the two halves of a Geolocation."""
    attribute = inspect.getattr_static(model, name, None)
    instead = SimpleNamespace()
    if isinstance(attribute, property) and attribute.fset and name != "pk":
        attribute.fset(instead, value)
    return vars(instead) or {name: value}
