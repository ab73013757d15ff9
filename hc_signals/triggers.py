"""Capture triggers: generated from a connected model, rendered through pgtrigger, installed by ourselves.

Unmanaged tables never get triggers through Django's migrations and appear long after ``migrate``, so installing is a
command of its own. The trigger definition names no column: Heroku Connect must stay free to alter its tables.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import pgtrigger
from django.db import OperationalError, connections, models, transaction

from hc_signals.fresh import Layout, read_layout
from hc_signals.reload_sql import NO_RELOADS, changed_columns, is_aware, reload_parts
from hc_signals.tables import NOISE_COLUMNS, literal, quote, quoted_table, table_label

LOCK_TIMEOUT = "2s"
"""A waiting CREATE TRIGGER makes new writers queue behind it: never wait longer than this."""


def mapped_columns(model: type[models.Model]) -> list[str]:
    """Return the columns that the log keeps, where the table has them: all of the model's own table."""
    return [str(field.column) for field in model._meta.local_concrete_fields]


_OPERATIONS = {
    "INSERT": (pgtrigger.Insert, "NEW TABLE AS hc_new"),
    "UPDATE": (pgtrigger.Update, "OLD TABLE AS hc_old NEW TABLE AS hc_new"),
    "DELETE": (pgtrigger.Delete, "OLD TABLE AS hc_old"),
    "TRUNCATE": (pgtrigger.Truncate, ""),
}

_INSERT_INTO_LOG = (
    "INSERT INTO public.hc_signals_change (table_name, operation, origin, record_key, record_id, changed, old, new)"
)

# A function's own SET restores the writer's values when it returns; every name below is qualified all the same.
_FUNCTION = """CREATE OR REPLACE FUNCTION public.{name}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $hc_signals$
{body}
$hc_signals$"""

_BODY = """#variable_conflict use_variable
{layout}
DECLARE
    -- Not the name at installation: a table in a renamed schema must not go on speaking for its successor.
    hc_label text := TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME;
    logged bigint := 0;
    created bigint;
    kept bigint;
    resynced bigint;
BEGIN
    -- Many statements hit no row: they touch nothing of ours.
    IF TG_OP = 'DELETE' THEN
        PERFORM FROM hc_old LIMIT 1;
    ELSIF TG_OP <> 'TRUNCATE' THEN
        PERFORM FROM hc_new LIMIT 1;
    END IF;
    IF TG_OP <> 'TRUNCATE' AND NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF NOT public.hc_signals_admit() THEN
        RETURN NULL;
    END IF;
    {reload.before_truncate}
    IF TG_OP = 'TRUNCATE' THEN
        {reload.after_truncate}{log} VALUES (hc_label, 'TRUNCATE', {origin}, NULL, NULL, NULL, NULL, NULL);
        logged := 1;
        {reload.end}
    ELSIF TG_OP = 'INSERT' THEN
        {reload.insert}{log}
        SELECT hc_label, 'INSERT', {origin}, n."id"::text, {new_sfid}, NULL, NULL, {new_image} FROM hc_new n;
        GET DIAGNOSTICS logged = ROW_COUNT;
        {reload.end}
    ELSIF TG_OP = 'DELETE' THEN
        {reload.delete}{log}
        SELECT hc_label, 'DELETE', {origin}, o."id"::text, {old_sfid}, NULL, {old_image}, NULL FROM hc_old o;
        GET DIAGNOSTICS logged = ROW_COUNT;
        {reload.end}
    ELSE
        -- A row whose key changed has no partner: it is a delete here, and a create below, in that order.
        {log} SELECT hc_label,
            CASE WHEN n."id" IS NULL THEN 'DELETE' ELSE 'UPDATE' END,
            {origin}, o."id"::text,
            CASE WHEN n."id" IS NULL THEN {old_sfid} ELSE {new_sfid} END,
            CASE WHEN n."id" IS NOT NULL THEN pg_catalog.array_remove(ARRAY[
                {changed}]::text[], NULL) END,
            {old_image},
            CASE WHEN n."id" IS NOT NULL THEN {new_image} END
        FROM hc_old o LEFT JOIN hc_new n ON n."id" = o."id"
        WHERE n."id" IS NULL OR {differs};
        GET DIAGNOSTICS logged = ROW_COUNT;
        {log} SELECT hc_label, 'INSERT', {origin}, n."id"::text, {new_sfid}, NULL, NULL, {new_image} FROM hc_new n
        WHERE NOT EXISTS (SELECT FROM hc_old o WHERE o."id" = n."id");
        GET DIAGNOSTICS created = ROW_COUNT;
        logged := logged + created;
        {reload.resync}
    END IF;
    IF logged > 0 THEN
        -- A customer's trigger ran a statement inside this one: its changes were logged first.
        IF pg_catalog.current_setting('hc_signals.nested', true) = '1' THEN
            PERFORM public.hc_signals_settle(hc_label);
        END IF;
        IF pg_catalog.pg_trigger_depth() > 1 THEN
            PERFORM pg_catalog.set_config('hc_signals.nested', '1', true);
        END IF;
        PERFORM public.hc_signals_ring();
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- The writer is Heroku Connect: whatever went wrong here, its statement goes on.
    BEGIN
        IF TG_WHEN = 'BEFORE' THEN
            RETURN NULL;  -- the old images could not be kept: after the TRUNCATE it is a gap
        ELSIF SQLSTATE IN ('55P03', '53400') THEN
            RAISE;  -- the log is locked or full: a second try would only wait again
        ELSIF TG_OP = 'INSERT' THEN
            {log} SELECT hc_label, 'INSERT', {origin}, n.image->>'id', n.image->>'sfid', NULL, NULL, {new_mapped}
            FROM (SELECT to_json(x.*) AS image FROM hc_new x) n;
        ELSIF TG_OP = 'DELETE' THEN
            {log} SELECT hc_label, 'DELETE', {origin}, o.image->>'id', o.image->>'sfid', NULL, {old_mapped}, NULL
            FROM (SELECT to_json(x.*) AS image FROM hc_old x) o;
        ELSIF TG_OP = 'UPDATE' THEN
            IF EXISTS (
                SELECT FROM (SELECT to_jsonb(x.*) AS image FROM hc_new x) n WHERE NOT EXISTS (
                    SELECT FROM (SELECT to_jsonb(x.*) AS image FROM hc_old x) o WHERE {same_key})
            ) THEN
                RAISE EXCEPTION 'hc_signals: old and new rows cannot be paired';
            END IF;
            {log} SELECT hc_label, 'UPDATE', {origin}, n.image->>'id', n.image->>'sfid', c.changed,
                {old_mapped}, {new_mapped}
            FROM (SELECT to_jsonb(x.*) AS image FROM hc_old x) o
            JOIN (SELECT to_jsonb(x.*) AS image FROM hc_new x) n ON {same_key}
            CROSS JOIN LATERAL (SELECT ARRAY(
                SELECT w FROM unnest({watched}) w WHERE n.image->w IS DISTINCT FROM o.image->w
            )) c (changed)
            WHERE cardinality(c.changed) > 0;
        ELSE
            RAISE EXCEPTION 'hc_signals: TRUNCATE not logged';
        END IF;
        PERFORM public.hc_signals_ring();
    EXCEPTION WHEN OTHERS THEN
        BEGIN
            PERFORM public.hc_signals_lose();
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'hc_signals: a change of % was not captured (%)', hc_label, SQLSTATE;
        END;
    END;
    RETURN NULL;
END"""

# The image of the whole row, of the mapped columns that are still there.
_MAPPED_IMAGE = "(SELECT json_object_agg(e.key, e.value) FROM json_each({image}::json) e WHERE e.key = ANY ({columns}))"

# Where a table has no id, the sfid tells its rows apart.
_SAME_KEY = "coalesce(n.image->>'id', n.image->>'sfid') = coalesce(o.image->>'id', o.image->>'sfid')"
_ORIGIN = "CASE pg_catalog.current_setting('xmlbinary') WHEN 'hex' THEN 'heroku_connect' ELSE 'app' END"


def image_sql(columns: list[str], row: str) -> str:
    """Return the SQL of a row's image as the log keeps it; ``row`` is the row's alias."""
    return f"(SELECT to_json(i) FROM (SELECT {', '.join(f'{row}.{quote(c)}' for c in columns)}) i)"


def record_id_sql(columns: list[str], row: str) -> str:
    """Return the SQL of the sfid under which the log knows a row."""
    return f"{row}.sfid" if "sfid" in columns else "NULL"


def _body(model: type[models.Model], layout: Layout | None = None) -> str:
    layout = layout or Layout(tuple(mapped_columns(model)))
    columns = list(layout.columns)
    watched = [c for c in columns if c not in NOISE_COLUMNS]
    tests = {c: f"o.{quote(c)} IS DISTINCT FROM n.{quote(c)}" for c in watched}
    read_write = getattr(model, "sf_access", "") == "read_write"
    if "sfid" in columns:
        # From NULL to its value only where the app makes records: that is no change, but record_linked tells it.
        only_changed = "" if read_write else 'o."sfid" IS NOT NULL AND '
        tests["sfid"] = f'({only_changed}o."sfid" IS DISTINCT FROM n."sfid")'
    if read_write and {"_hc_lastop", "_hc_err"} <= set(columns):
        tests["_hc_err"] = (
            """(n."_hc_lastop" = 'FAILED' AND (o."_hc_lastop" IS DISTINCT FROM n."_hc_lastop" """
            """OR o."_hc_err" IS DISTINCT FROM n."_hc_err"))"""
        )
    every, compared = _text_array(columns), _text_array(watched)
    aware = is_aware(model) and {"id", "sfid"} <= set(columns)
    # A fresh column that gets its first value is no change.
    fresh = [c for c in layout.fresh if c in watched and aware]
    counted = {c: f"(o.{quote(c)} IS NOT NULL AND {test})" if c in fresh else test for c, test in tests.items()}
    pieces = {
        "log": _INSERT_INTO_LOG,
        "origin": _ORIGIN,
        "new_image": image_sql(columns, "n"),
        "old_image": image_sql(columns, "o"),
        "differs": "(" + " OR ".join(counted.values() or ["false"]) + ")",
    }
    return _BODY.format(
        **pieces,
        layout=layout.comment(),
        reload=reload_parts(pieces, tests, fresh) if aware else NO_RELOADS,
        new_sfid=record_id_sql(columns, "n"),
        old_sfid=record_id_sql(columns, "o"),
        changed=changed_columns(tests),
        new_mapped=_MAPPED_IMAGE.format(image="n.image", columns=every),
        old_mapped=_MAPPED_IMAGE.format(image="o.image", columns=every),
        watched=compared,
        same_key=_SAME_KEY,
    )


def _text_array(names: list[str]) -> str:
    return "ARRAY[" + ", ".join(map(literal, names)) + "]::text[]"


class CaptureTrigger(pgtrigger.Trigger):
    """One statement-level trigger of a connected table; all of them share one generated function.

    pgtrigger's own ``prune`` and ``ls`` look for the prefix ``pgtrigger_``; ours is another, hashed from the table and
    not from the class, so they neither remove it nor lose it when a class is renamed.
    """

    level = pgtrigger.Statement

    def __init__(self, operation: str, when: Any = pgtrigger.After, name: str = "") -> None:
        kind, self.referencing_sql = _OPERATIONS[operation]
        super().__init__(name=name or operation.lower(), operation=kind, when=when)

    def get_pgid(self, model: Any) -> str:
        return f"hc_signals_{self.name}_{_table_hash(model)}"

    def get_func(self, model: Any) -> str:
        return _body(model)

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


def _table_hash(model: type[models.Model]) -> str:
    return hashlib.sha256(table_label(model).encode()).hexdigest()[:16]


def function_name(model: type[models.Model]) -> str:
    """Return the name of the capture function of the model's table."""
    return f"hc_signals_capture_{_table_hash(model)}"


def install_sql(model: type[models.Model], layout: Layout | None = None) -> list[str]:
    """Return the statements that install capture on the model's table.

    Args:
        layout: default: the table has every mapped column, and none is fresh.
    """
    function = _FUNCTION.format(name=function_name(model), body=_body(model, layout))
    revoke = f"REVOKE ALL ON FUNCTION public.{function_name(model)}() FROM PUBLIC"
    return [function, revoke, *(trigger.create_sql(model) for trigger in TRIGGERS)]


@dataclass(frozen=True)
class TableStatus:
    """What was found on one table: ``installed``, ``missing``, ``outdated``, ``disabled`` or ``absent``."""

    table: str
    state: str
    detail: str = ""


def status(model: type[models.Model], using: str) -> TableStatus:
    """Compare triggers and function body with what they should be; takes no lock on the table."""
    label = table_label(model)
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)::oid", [quoted_table(model)])
        oid = cursor.fetchone()[0]
        if oid is None:
            return TableStatus(label, "absent", "the table does not exist yet")
        cursor.execute("SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = %s AND NOT tgisinternal", [oid])
        found = dict(cursor.fetchall())
        source = _installed_source(model, cursor)
        wanted = _layout_in_table(model, cursor).with_fresh_of(read_layout(source))
    names = [trigger.get_pgid(model) for trigger in TRIGGERS]
    missing = [trigger.name for trigger in TRIGGERS if trigger.get_pgid(model) not in found]
    if missing:
        return TableStatus(label, "missing", f"no trigger for {', '.join(map(str, missing))}")
    if any(found[name] in ("D", "R") for name in names):
        return TableStatus(label, "disabled", "a trigger is disabled")
    if source.strip() != _body(model, wanted).strip():
        return TableStatus(label, "outdated", "the function is of another version of the model or the table")
    absent = [column for column in mapped_columns(model) if column not in wanted.columns]
    return TableStatus(label, "installed", f"missing in the table: {', '.join(absent)}" if absent else "")


def _layout_in_table(model: type[models.Model], cursor: Any) -> Layout:
    """Return the mapped columns that the table has."""
    cursor.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [quoted_table(model)],
    )
    found = {row[0] for row in cursor.fetchall()}
    return Layout(tuple(column for column in mapped_columns(model) if column in found))


def _installed_source(model: type[models.Model], cursor: Any) -> str:
    cursor.execute(
        "SELECT prosrc FROM pg_proc WHERE proname = %s AND pronamespace = 'public'::regnamespace",
        [function_name(model)],
    )
    row = cursor.fetchone()
    return row[0] if row else ""


def _next_layout(model: type[models.Model], cursor: Any, settled: bool) -> Layout:
    """Return the layout to install: columns that the installed function does not know are fresh, unless settled."""
    layout = _layout_in_table(model, cursor)
    if settled:
        return layout
    installed = read_layout(_installed_source(model, cursor))
    cursor.execute("SELECT to_json(clock_timestamp())#>>'{}'")
    return layout.after(installed, cursor.fetchone()[0])


def install(model: type[models.Model], using: str, attempts: int = 5, settled: bool = False) -> TableStatus:
    """Install capture on the model's table, if it is not there already.

    Args:
        settled: also where it is there but still waits for fresh columns to be filled: it does so no more.

    Raises:
        OperationalError: the table stayed locked for ``attempts`` times LOCK_TIMEOUT.
    """
    before = status(model, using)
    if before.state == "absent" or (before.state == "installed" and not settled):
        return before
    for attempt in range(attempts):
        try:
            with transaction.atomic(using=using), connections[using].cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                for statement in install_sql(model, _next_layout(model, cursor, settled)):
                    cursor.execute(statement)
                if before.state == "disabled":
                    for trigger in TRIGGERS:
                        name = quote(trigger.get_pgid(model))
                        cursor.execute(f"ALTER TABLE {quoted_table(model)} ENABLE TRIGGER {name}")
            break
        except OperationalError:
            if attempt + 1 == attempts:
                raise
    return status(model, using)


def uninstall(model: type[models.Model], using: str) -> None:
    """Remove capture from the model's table."""
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        cursor.execute("SELECT to_regclass(%s)", [quoted_table(model)])
        if cursor.fetchone()[0] is not None:
            for trigger in TRIGGERS:
                cursor.execute(f"DROP TRIGGER IF EXISTS {quote(trigger.get_pgid(model))} ON {quoted_table(model)}")
        cursor.execute(f"DROP FUNCTION IF EXISTS public.{function_name(model)}()")
        cursor.execute("SELECT to_regclass('public.hc_signals_reload') IS NOT NULL")
        if cursor.fetchone()[0]:
            for name in ("cleared", "reload", "refill"):
                cursor.execute(f"DELETE FROM public.hc_signals_{name} WHERE table_name = %s", [table_label(model)])
