"""Capture triggers: rendered through pgtrigger, installed, inspected and removed by ourselves.

Unmanaged tables never get triggers through Django's migrations and appear long after ``migrate``, so installing is a
command of its own. The trigger definition names no column: Heroku Connect must stay free to alter its tables.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pgtrigger
from django.db import OperationalError, connections, models, transaction

from hc_signals.capture.function import FUNCTION_CONFIG, function_body, function_name, function_sql, mapped_columns
from hc_signals.capture.function_columns import Layout, read_layout
from hc_signals.postgres.locks import INSTALLER
from hc_signals.tables import as_stored, literal, quote, quoted_table, table_label, table_parts

LOCK_TIMEOUT = "2s"
"""A waiting CREATE TRIGGER makes new writers queue behind it: never wait longer than this."""

_OPERATIONS = {
    "INSERT": (pgtrigger.Insert, "NEW TABLE AS hc_new"),
    "UPDATE": (pgtrigger.Update, "OLD TABLE AS hc_old NEW TABLE AS hc_new"),
    "DELETE": (pgtrigger.Delete, "OLD TABLE AS hc_old"),
    "TRUNCATE": (pgtrigger.Truncate, ""),
}


class CaptureTrigger(pgtrigger.Trigger):
    """One statement-level trigger of a connected table; all of them share one generated function.

    pgtrigger's own ``prune`` and ``ls`` look for the prefix ``pgtrigger_``; ours is another, so they do not remove it.
    The name is the same on every table: whatever became of class, table or schema, no table can have two of a kind.
    """

    level = pgtrigger.Statement

    def __init__(self, operation: str, when: Any = pgtrigger.After, name: str = "") -> None:
        kind, self.referencing_sql = _OPERATIONS[operation]
        super().__init__(name=name or operation.lower(), operation=kind, when=when)

    def get_pgid(self, model: Any) -> str:
        return f"hc_signals_{self.name}"

    def get_func(self, model: Any) -> str:
        return function_body(model)

    def render_execute(self, model: Any) -> str:
        return f"public.{function_name(model)}()"

    def create_sql(self, model: Any) -> str:
        """Return CREATE OR REPLACE TRIGGER: unlike DROP and CREATE it passes an open SELECT and leaves no window."""
        referencing = f"REFERENCING {self.referencing_sql} " if self.referencing_sql else ""
        return (
            f"CREATE OR REPLACE TRIGGER {quote(self.get_pgid(model))} {self.when} {self.operation} "
            f"ON {quoted_table(model)} {referencing}FOR EACH STATEMENT WHEN (current_setting('xmlbinary') = 'hex') "
            f"EXECUTE FUNCTION {self.render_execute(model)}"
        )


TRIGGERS = (
    *(CaptureTrigger(operation) for operation in _OPERATIONS),
    # Before it: what a reload takes away can still be read.
    CaptureTrigger("TRUNCATE", pgtrigger.Before, "clear"),
)


def _turn_sql() -> list[str]:
    """Return the statements that let what follows neither wait for long nor run beside another installer."""
    turn = f"SELECT pg_catalog.pg_advisory_xact_lock({INSTALLER[0]}, {INSTALLER[1]})"
    return [f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'", turn]


def install_sql(model: type[models.Model], layout: Layout | None = None) -> list[str]:
    """Return the statements that install capture on the model's table, to be run in one transaction.

    Args:
        layout: default: the table has every mapped column, and none is fresh.
    """
    return [*_turn_sql(), *_capture_sql(model, layout)]


def _capture_sql(model: type[models.Model], layout: Layout | None) -> list[str]:
    return function_sql(model, layout) + [trigger.create_sql(model) for trigger in TRIGGERS] + [_always_sql(model)]


def _always_sql(model: type[models.Model]) -> str:
    """Return the statement that lets the triggers fire under ``session_replication_role = replica`` as well.

    Only the owner of a table may say so: for others it does nothing.
    """
    table = quoted_table(model)
    enable = ", ".join(f"ENABLE ALWAYS TRIGGER {quote(trigger.get_pgid(model))}" for trigger in TRIGGERS)
    body = (
        f"BEGIN IF pg_catalog.pg_has_role((SELECT relowner FROM pg_catalog.pg_class "
        f"WHERE oid = {literal(table)}::pg_catalog.regclass), 'USAGE') THEN ALTER TABLE {table} {enable}; END IF; END"
    )
    return f"DO {literal(body)}"


def drop_function_sql(name: str) -> str:
    """Return the statement that drops a capture function with its triggers.

    CASCADE reaches nothing but triggers, and needs no ownership of their tables as DROP TRIGGER does.
    """
    return f"DROP FUNCTION IF EXISTS public.{quote(name)}() CASCADE"


@dataclass(frozen=True)
class TableStatus:
    """What was found on one table.

    ``installed``, ``missing``, ``outdated``, ``disabled``, ``absent``, ``unsupported`` (no table) or ``orphan``.
    """

    table: str
    state: str
    detail: str = ""
    aside: str = ""
    """What is not well although it is installed: ``partitions``."""
    absent_columns: tuple[str, ...] = ()
    """Columns of the model that the table lacks: neither an event nor the ORM can read a record of it."""


@dataclass(frozen=True)
class Found:
    """What the catalog says of one table and its capture function."""

    oid: int | None
    """None: there is no such table, or something that is none."""
    filenode: int | None
    """Another one after TRUNCATE and after every rewrite of the table."""
    kind: str | None
    """``relkind`` of what has the table's name."""
    is_unlogged: bool
    """A crash of the server empties it."""
    is_related: bool
    """It is partitioned, or a partition, or there is inheritance."""
    columns: tuple[str, ...]
    triggers: Mapping[str, tuple[str, str]]
    """Of ours, by name: whether it is enabled (``tgenabled``), and the function that it calls."""
    versions: str
    """Of the rows of our triggers: other ones after each DISABLE, ENABLE, DROP and CREATE, although all looks right."""
    source: str
    secure: bool
    config: Sequence[str] | None

    def layout(self, model: type[models.Model]) -> Layout:
        """Return the mapped columns that the table has."""
        return Layout(tuple(column for column in mapped_columns(model) if as_stored(column) in self.columns))


# By names in the catalog, not by to_regclass(), which needs a right on the schema and waits for a lock on the table.
FIND = """
SELECT w.number, CASE WHEN c.relkind IN ('r', 'p') THEN c.oid END AS oid, c.relfilenode, c.relkind::text,
    c.relpersistence = 'u', EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhparent, i.inhrelid)),
    ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
    (SELECT json_object_agg(t.tgname, json_build_array(t.tgenabled, p.proname)) FROM pg_trigger t
     LEFT JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = 'public'::regnamespace
     WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgname LIKE 'hc\\_signals\\_%%'),
    (SELECT string_agg(t.oid || ':' || t.xmin, ' ' ORDER BY t.tgname) FROM pg_trigger t
     WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgname LIKE 'hc\\_signals\\_%%') AS versions,
    coalesce(f.prosrc, ''), coalesce(f.prosecdef, false), f.proconfig
FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY w (schema, name, function, number)
LEFT JOIN pg_namespace n ON n.nspname = w.schema
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
LEFT JOIN pg_proc f ON f.proname = w.function AND f.pronamespace = 'public'::regnamespace AND f.pronargs = 0
"""
"""One row per table, the first column its number; takes what :func:`names_of` returns."""


def names_of(models_of_tables: Sequence[type[models.Model]]) -> tuple[list[str], list[str], list[str]]:
    """Return schemas, tables and capture functions, for FIND."""
    parts = [table_parts(model) for model in models_of_tables]
    return [schema for schema, _ in parts], [name for _, name in parts], list(map(function_name, models_of_tables))


def found_of(row: Sequence[Any]) -> Found:
    """Return what a row of FIND says."""
    _, oid, filenode, kind, is_unlogged, is_related, columns, found, versions, source, secure, config = row
    found = {name: tuple(of) for name, of in (found or {}).items()}
    traits = kind, bool(is_unlogged), is_related
    return Found(oid, filenode, *traits, tuple(columns), found, versions or "", source, secure, config)


def find(models_of_tables: Sequence[type[models.Model]], using: str) -> list[Found]:
    """Look all tables up in one query; takes no lock on them and needs no right on them."""
    with connections[using].cursor() as cursor:
        cursor.execute(FIND + "ORDER BY w.number", names_of(models_of_tables))
        return [found_of(row) for row in cursor.fetchall()]


def status(model: type[models.Model], using: str) -> TableStatus:
    """Compare triggers and function with what they should be; takes no lock on the table and needs no right on it."""
    return statuses([model], using)[0]


def statuses(models_of_tables: Sequence[type[models.Model]], using: str) -> list[TableStatus]:
    """Return the status of several tables, from one look-up."""
    return [compare(*pair) for pair in zip(models_of_tables, find(models_of_tables, using), strict=True)]


def compare(model: type[models.Model], found: Found) -> TableStatus:
    """Return the status of a table that was looked up."""
    if found.oid is None:
        return TableStatus(table_label(model), *_instead_of_a_table(found.kind))
    known = found.layout(model).columns
    absent = tuple(column for column in mapped_columns(model) if column not in known)
    return replace(_compare_triggers(model, found, absent), absent_columns=absent)


def _compare_triggers(model: type[models.Model], found: Found, absent: tuple[str, ...]) -> TableStatus:
    label, function = table_label(model), function_name(model)
    names = [trigger.get_pgid(model) for trigger in TRIGGERS]
    missing = [str(trigger.name) for trigger in TRIGGERS if trigger.get_pgid(model) not in found.triggers]
    if missing:
        return TableStatus(label, "missing", f"no trigger for {', '.join(missing)}")
    if any(found.triggers[name][0] in ("D", "R") for name in names):
        return TableStatus(label, "disabled", "a trigger is disabled")
    if any(found.triggers[name][1] != function for name in names):
        return TableStatus(label, "outdated", _OTHER_FUNCTION)
    wanted = found.layout(model).with_fresh_of(read_layout(found.source))
    body = function_body(model, wanted).strip()
    if (found.source.strip(), found.secure, found.config) != (body, True, FUNCTION_CONFIG):
        return TableStatus(label, "outdated", "the function is of another version of the model or the table")
    said = [f"missing in the table: {', '.join(absent)}"] if absent else []
    aside = ""
    if found.is_related:
        aside = "partitions"
        said.append(_RELATED)
    return TableStatus(label, "installed", "; ".join(said), aside)


_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


def _instead_of_a_table(kind: str | None) -> tuple[str, str]:
    """Return state and detail where there is no table of the name."""
    if kind is None:
        return "absent", "the table does not exist yet"
    return (
        "unsupported",
        f"it is {_KINDS.get(kind, 'no table')}: PostgreSQL has no triggers there that could capture it",
    )


_RELATED = "partitioned or inherited: statements that name its partition, parent or child are not captured"
_OTHER_FUNCTION = "a trigger calls another function: the table had another name"


def install(
    model: type[models.Model], using: str, attempts: int = 5, settled: bool = False, thorough: bool = False
) -> TableStatus:
    """Install capture on the model's table, if it is not there already.

    Where only the function is of another version, the table itself is not touched. CREATE OR REPLACE also enables a
    trigger that is disabled.

    Args:
        settled: also where it is there but still waits for fresh columns to be filled: it does so no more.
        thorough: never the function alone. It waits for whoever is writing to the table: afterwards nobody has
            anything uncommitted that was written under the former triggers.

    Raises:
        OperationalError: the table stayed locked for ``attempts`` times LOCK_TIMEOUT.
    """
    before = status(model, using)
    if before.state in ("absent", "unsupported") or (before.state == "installed" and not settled):
        return before
    run_patiently(using, lambda: _needed_sql(model, using, settled, thorough), attempts)
    return status(model, using)


def _needed_sql(model: type[models.Model], using: str, settled: bool, thorough: bool) -> list[str]:
    """Look again, at our turn: triggers that another installer has made, made anew, would be taken for drift."""
    before = status(model, using)
    if before.state in ("absent", "unsupported") or (before.state == "installed" and not settled):
        return []
    only_function = before.state == "installed" or (before.state == "outdated" and before.detail != _OTHER_FUNCTION)
    layout = next_layout(model, using, settled)
    return function_sql(model, layout) if only_function and not thorough else _capture_sql(model, layout)


def next_layout(model: type[models.Model], using: str, settled: bool = False) -> Layout:
    """Return the layout to install: columns that the installed function does not know are fresh, unless settled.

    Of a table that does not exist yet: every mapped column.
    """
    found = find([model], using)[0]
    layout = found.layout(model) if found.oid is not None else Layout(tuple(mapped_columns(model)))
    if settled:
        return layout
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_json(clock_timestamp())#>>'{}'")
        return layout.after(read_layout(found.source), cursor.fetchone()[0])


def uninstall(model: type[models.Model], using: str, note: Callable[[], None] | None = None) -> None:
    """Remove capture from the model's table, and what is kept of a reload of it.

    Args:
        note: notes it, in the same transaction.

    Raises:
        OperationalError: the table stayed locked for five times LOCK_TIMEOUT.
    """

    def needed() -> list[str]:
        if note is not None:
            note()
        return [drop_function_sql(function_name(model)), *_forget_reload_sql(model, using)]

    run_patiently(using, needed)


def _forget_reload_sql(model: type[models.Model], using: str) -> list[str]:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.hc_signals_reload') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return []
    table = literal(table_label(model))
    return [
        f"DELETE FROM public.hc_signals_{name} WHERE table_name = {table}" for name in ("cleared", "reload", "refill")
    ]


def run_patiently(using: str, needed: Callable[[], list[str]], attempts: int = 5) -> None:
    """Run what is needed in one transaction, behind other installers; again, if it ran into a lock.

    Args:
        needed: returns the statements; asked when it is our turn.

    Raises:
        OperationalError: it did so ``attempts`` times.
    """
    for attempt in range(attempts):
        try:
            with transaction.atomic(using=using), connections[using].cursor() as cursor:
                for turn in _turn_sql():
                    cursor.execute(turn)
                for statement in needed():
                    cursor.execute(statement)
            return
        except OperationalError:
            if attempt + 1 == attempts:
                raise
