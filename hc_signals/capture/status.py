"""Compares the capture triggers and functions in the database with what they should be, without a lock on any table."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from django.db import models

from hc_signals.capture.function import FUNCTION_CONFIG, function_name
from hc_signals.capture.function_columns import Layout
from hc_signals.capture.installed import InstalledFunction, InstalledFunctions, body_digest
from hc_signals.capture.triggers import TRIGGERS
from hc_signals.conf import origin_rules
from hc_signals.origins import labels, labels_of_arguments, trigger_arguments
from hc_signals.postgres.names import truncate_name
from hc_signals.postgres.query import rows
from hc_signals.tables import mapped_columns, table_label, table_parts

logger = logging.getLogger("hc_signals")


@dataclass(frozen=True)
class TableStatus:
    """Whether and how one table is captured."""

    table: str
    """``schema.table``"""
    state: str
    """``installed``, ``missing``, ``outdated``, ``disabled``, ``absent``, ``orphan`` or ``unsupported`` (no table, or
    without a key)."""
    detail: str = ""
    """The reason for the state, for people."""
    aside: str = ""
    """A problem of an installed table: ``partitions``, ``subscription``, or empty."""
    absent_columns: tuple[str, ...] = ()
    """Columns of the model that the table lacks. Neither an event nor the ORM can read a record without them."""
    has_stale_triggers: bool = False
    """The triggers must be replaced, not the function alone: they call another one, or have other rules of ORIGINS."""

    @property
    def is_captured(self) -> bool:
        """True if changes of the table are captured, even by an older function."""
        return self.state in ("installed", "outdated")

    @property
    def is_installable(self) -> bool:
        """True if ``install_capture`` has something to do."""
        return self.state not in ("installed", "absent", "unsupported")

    @property
    def is_drifted(self) -> bool:
        """True if the table exists and its capture is not as it should be."""
        return self.state not in ("installed", "absent")


@dataclass(frozen=True)
class FoundTable:
    """One table and its capture function in the catalog."""

    oid: int | None
    """None if nothing has this name, or a view or something else that is no table."""
    filenode: int | None
    """TRUNCATE and every rewrite of the table give it a new one."""
    kind: str | None
    """``pg_class.relkind``; None if nothing has this name."""
    is_unlogged: bool
    """True if a crash of the server empties the table."""
    is_related: bool
    """True if the table is partitioned, a partition, or has inheritance."""
    is_subscribed: bool
    """True if a subscription of logical replication writes to the table."""
    has_integer_key: bool
    """True if the column ``id`` is an integer."""
    columns: tuple[str, ...]
    triggers: Mapping[str, Sequence[str | None]]
    """Our triggers: by name, ``tgenabled``, the function's name, and the arguments in hexadecimal, each with a NUL."""
    versions: str
    """Row versions of our triggers: DISABLE, ENABLE, DROP and CREATE change them, even if the triggers end up equal."""
    secure: bool
    """True if the capture function is SECURITY DEFINER."""
    config: Sequence[str] | None
    """Settings of the capture function."""
    function: InstalledFunction | None
    """The capture function; None if there is none."""

    @property
    def can_reread(self) -> bool:
        """True if the worker can find the rows that changed since a time, and keep its place among them."""
        return "systemmodstamp" in self.columns and self.has_integer_key

    def arguments(self, trigger: str) -> tuple[str, ...]:
        """Return the arguments of one of our triggers."""
        text = bytes.fromhex(self.triggers[trigger][2] or "").decode(errors="replace")
        return tuple(text.split("\x00")[:-1])

    def layout(self, model: type[models.Model]) -> Layout:
        """Return the columns of the model that the table has."""
        return _layout(model, self.columns)

    def absent_columns(self, model: type[models.Model]) -> tuple[str, ...]:
        """Return the columns of the model that the table lacks."""
        return _absent_columns(model, self.columns)

    @property
    def installed_layout(self) -> Layout | None:
        """The columns of the capture function; None if there is none, or a person has made them unreadable."""
        return self.function.layout if self.function else None


@lru_cache(maxsize=10_000)
def _layout(model: type[models.Model], columns: tuple[str, ...]) -> Layout:
    present = frozenset(columns)
    return Layout(tuple(column for column in mapped_columns(model) if truncate_name(column) in present))


@lru_cache(maxsize=10_000)
def _absent_columns(model: type[models.Model], columns: tuple[str, ...]) -> tuple[str, ...]:
    present = frozenset(_layout(model, columns).columns)
    return tuple(column for column in mapped_columns(model) if column not in present)


# By names in the catalog: to_regclass() needs a right on the schema and waits for a lock on the table.
FIND_TABLES = """
SELECT w.number, CASE WHEN c.relkind IN ('r', 'p') THEN c.oid END AS oid, c.relfilenode, c.relkind::text,
    coalesce(c.relpersistence = 'u', false),
    EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhparent, i.inhrelid)),
    EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = c.oid),
    EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'id'
        AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)),
    ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
    coalesce(t.triggers, '{}'), coalesce(t.versions, '') AS versions,
    coalesce(f.prosecdef, false), f.proconfig, f.version, CASE WHEN f.version IS DISTINCT FROM w.known THEN f.prosrc END
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) WITH ORDINALITY w (schema, name, function, known, number)
LEFT JOIN pg_namespace n ON n.nspname = w.schema
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
LEFT JOIN LATERAL (
    SELECT json_object_agg(t.tgname, json_build_array(t.tgenabled, p.proname, encode(t.tgargs, 'hex'))) AS triggers,
        string_agg(t.oid || ':' || t.xmin, ' ' ORDER BY t.tgname) AS versions
    FROM pg_trigger t LEFT JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = 'public'::regnamespace
    WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgname LIKE 'hc\\_signals\\_%%'
) t ON true
LEFT JOIN LATERAL (
    SELECT p.prosrc, p.prosecdef, p.proconfig, concat_ws(':', p.oid, p.xmin, p.ctid) AS version FROM pg_proc p
    WHERE p.proname = w.function AND p.pronamespace = 'public'::regnamespace AND p.pronargs = 0
) f ON true
"""
"""One row per table: its number, the fields of FoundTable up to ``config``, then version and source of the function.

The source is NULL if this session has read that version. The parameters are those of :func:`find_params`.
"""
FIND_WIDTH = 15
"""Columns of FIND_TABLES."""


def find_params(
    models_of_tables: Sequence[type[models.Model]], functions: InstalledFunctions
) -> list[list[str | None]]:
    """Return schemas, tables, capture functions and their versions that are known, the parameters of FIND_TABLES."""
    parts, names = map(table_parts, models_of_tables), list(map(function_name, models_of_tables))
    schemas, tables = zip(*parts, strict=True) if names else ((), ())
    return [list(schemas), list(tables), [*names], list(map(functions.version, names))]


def found_table(model: type[models.Model], row: Sequence[Any], functions: InstalledFunctions) -> FoundTable:
    """Return the table in a row of FIND_TABLES."""
    values: list[Any] = list(row[1:-2])
    values[_COLUMNS] = tuple(values[_COLUMNS])
    values.append(functions.take(function_name(model), *row[-2:]))
    return FoundTable(*values)


_COLUMNS = 7
"""Index of ``columns`` among the fields of FoundTable."""


def find_tables(models_of_tables: Sequence[type[models.Model]], using: str) -> list[FoundTable]:
    """Find the tables of the models by one query, in the same order. It needs no lock on the tables and no right."""
    functions = InstalledFunctions.of_session(using)
    found = rows(using, FIND_TABLES + "ORDER BY w.number", find_params(models_of_tables, functions))
    return [found_table(model, row, functions) for model, row in zip(models_of_tables, found, strict=True)]


def status_of(model: type[models.Model], using: str) -> TableStatus:
    """Return the status of one table. It needs no lock on the table and no right."""
    return statuses_of([model], using)[0]


def statuses_of(models_of_tables: Sequence[type[models.Model]], using: str) -> list[TableStatus]:
    """Return the status of each table, in the same order, by one query."""
    return [compare(*pair) for pair in zip(models_of_tables, find_tables(models_of_tables, using), strict=True)]


def log_fault(status: TableStatus) -> None:
    """Log that a table is not captured as it should be; nothing if it is."""
    if status.state != "installed":
        logger.warning("Capture on %s: %s (%s).", status.table, status.state, status.detail)


def compare(model: type[models.Model], found: FoundTable) -> TableStatus:
    """Return the status of a table that was found."""
    if found.oid is None:
        return _status_without_table(table_label(model), found.kind)
    if not {"id", "sfid"} & set(found.columns):
        return TableStatus(table_label(model), "unsupported", NO_KEY)
    absent = found.absent_columns(model)
    status = _compare_triggers(model, found, absent)
    return replace(status, absent_columns=absent) if absent else status


def _compare_triggers(model: type[models.Model], found: FoundTable, absent: tuple[str, ...]) -> TableStatus:
    label, function = table_label(model), function_name(model)
    names = [trigger.get_pgid(model) for trigger in TRIGGERS]
    missing = [str(trigger.name) for trigger, name in zip(TRIGGERS, names, strict=True) if name not in found.triggers]
    if missing:
        return TableStatus(label, "missing", f"no trigger for {', '.join(missing)}")
    if any(found.triggers[name][0] in ("D", "R") for name in names):
        return TableStatus(label, "disabled", "a trigger is disabled")
    if any(found.triggers[name][1] != function for name in names):
        detail = "a trigger calls another function: the table had another name"
        return TableStatus(label, "outdated", detail, has_stale_triggers=True)
    rules = origin_rules()
    wanted_arguments = trigger_arguments(rules)
    if any(found.arguments(name) != wanted_arguments for name in names):
        installed = " or ".join(labels_of_arguments(found.arguments(names[0])))
        detail = f"the triggers fit {installed}, ORIGINS has {', '.join(labels(rules))}"
        return TableStatus(label, "outdated", detail, has_stale_triggers=True)
    wanted = body_digest(model, found.layout(model).with_fresh_of(found.installed_layout))
    digest = found.function and found.function.digest
    if (digest, found.secure, found.config) != (wanted, True, FUNCTION_CONFIG):
        return TableStatus(label, "outdated", "the function is of another version of the model or the table")
    notes = [f"missing in the table: {', '.join(absent)}"] if absent else []
    if found.is_related:
        notes.append("partitioned or inherited: statements that name its partition, parent or child are not captured")
    if found.is_subscribed:
        notes.append("a subscription writes to it: PostgreSQL runs no statement triggers for its changes")
    aside = "subscription" if found.is_subscribed else "partitions" if found.is_related else ""
    return TableStatus(label, "installed", "; ".join(notes), aside)


NO_KEY = (
    "it has no column id, by which capture identifies a row: rename the key, or add "
    "`id text GENERATED ALWAYS AS (the_key::text) STORED`"
)
"""Why a table without a key cannot be captured, and what to do."""

_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


def _status_without_table(label: str, kind: str | None) -> TableStatus:
    if kind is None:
        return TableStatus(label, "absent", "the table does not exist yet")
    detail = f"it is {_KINDS.get(kind, 'no table')}: PostgreSQL has no triggers there that could capture it"
    return TableStatus(label, "unsupported", detail)
