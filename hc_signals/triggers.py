"""Capture triggers: generated from a connected model, rendered through pgtrigger, installed by ourselves.

Unmanaged tables never get triggers through Django's migrations and appear long after ``migrate``, so installing is a
command of its own. The trigger definition names no column: Heroku Connect must stay free to alter its tables.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import pgtrigger
from django.db import OperationalError, connections, models, transaction

from hc_signals.tables import NOISE_COLUMNS, literal, quote, quoted_table, table_label, table_parts

LOCK_TIMEOUT = "2s"
"""A waiting CREATE TRIGGER makes new writers queue behind it: never wait longer than this."""


def mapped_columns(model: type[models.Model]) -> list[str]:
    """Return the columns that the log keeps: those of the model's own table."""
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
AS {tag}
{body}
{tag}"""
_FUNCTION_CONFIG = ["search_path=pg_catalog, pg_temp", "lock_timeout=1s"]

_BODY = """#variable_conflict use_variable
DECLARE
    -- Not the name at installation: a table in a renamed schema must not go on speaking for its successor.
    hc_label text := TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME;
    logged bigint := 0;
    created bigint;
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
    IF TG_OP = 'TRUNCATE' THEN
        {log} VALUES (hc_label, 'TRUNCATE', {origin}, NULL, NULL, NULL, NULL, NULL);
        logged := 1;
    ELSIF TG_OP = 'INSERT' THEN
        {log} SELECT hc_label, 'INSERT', {origin}, n."id"::text, {new_sfid}, NULL, NULL, {new_image} FROM hc_new n;
        GET DIAGNOSTICS logged = ROW_COUNT;
    ELSIF TG_OP = 'DELETE' THEN
        {log} SELECT hc_label, 'DELETE', {origin}, o."id"::text, {old_sfid}, NULL, {old_image}, NULL FROM hc_old o;
        GET DIAGNOSTICS logged = ROW_COUNT;
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
        IF SQLSTATE IN ('55P03', '53400') THEN
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


def _body(model: type[models.Model]) -> str:
    columns = mapped_columns(model)
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
    return _BODY.format(
        log=_INSERT_INTO_LOG,
        origin=_ORIGIN,
        new_sfid=record_id_sql(columns, "n"),
        old_sfid=record_id_sql(columns, "o"),
        new_image=image_sql(columns, "n"),
        old_image=image_sql(columns, "o"),
        changed=",\n                ".join(f"CASE WHEN {test} THEN {literal(c)} END" for c, test in tests.items()),
        differs="(" + " OR ".join(tests.values() or ["false"]) + ")",
        new_mapped=_MAPPED_IMAGE.format(image="n.image", columns=every),
        old_mapped=_MAPPED_IMAGE.format(image="o.image", columns=every),
        watched=compared,
        same_key=_SAME_KEY,
    )


def _text_array(names: list[str]) -> str:
    return "ARRAY[" + ", ".join(map(literal, names)) + "]::text[]"


class CaptureTrigger(pgtrigger.Trigger):
    """One statement-level trigger of a connected table; four of them share one generated function.

    pgtrigger's own ``prune`` and ``ls`` look for the prefix ``pgtrigger_``; ours is another, so they do not remove it.
    The name is the same on every table: whatever became of class, table or schema, no table can have two of a kind.
    """

    when = pgtrigger.After
    level = pgtrigger.Statement

    def __init__(self, operation: str) -> None:
        kind, self.referencing_sql = _OPERATIONS[operation]
        super().__init__(name=operation.lower(), operation=kind)

    def get_pgid(self, model: Any) -> str:
        return f"hc_signals_{self.name}"

    def get_func(self, model: Any) -> str:
        return _body(model)

    def render_execute(self, model: Any) -> str:
        return f"public.{function_name(model)}()"

    def create_sql(self, model: Any) -> str:
        """Return CREATE OR REPLACE TRIGGER: unlike DROP and CREATE it passes an open SELECT and leaves no window."""
        referencing = f"REFERENCING {self.referencing_sql} " if self.referencing_sql else ""
        return (
            f"CREATE OR REPLACE TRIGGER {quote(self.get_pgid(model))} AFTER {self.operation} ON {quoted_table(model)} "
            f"{referencing}FOR EACH STATEMENT WHEN (current_setting('xmlbinary') = 'hex') "
            f"EXECUTE FUNCTION {self.render_execute(model)}"
        )


TRIGGERS = tuple(CaptureTrigger(operation) for operation in _OPERATIONS)

FUNCTION_PREFIX = "hc_signals_capture_"


def function_name(model: type[models.Model]) -> str:
    """Return the name of the capture function of the model's table."""
    return FUNCTION_PREFIX + hashlib.sha256(table_label(model).encode()).hexdigest()[:16]


def _function_sql(model: type[models.Model]) -> list[str]:
    body, tag = _body(model), "$hc_signals$"
    while tag in body:  # a column may be called anything
        tag = tag[:-1] + "_$"
    function = _FUNCTION.format(name=function_name(model), body=body, tag=tag)
    return [function, f"REVOKE ALL ON FUNCTION public.{function_name(model)}() FROM PUBLIC"]


def careful(statements: list[str]) -> list[str]:
    """Return the statements behind those that let them neither wait for long nor run beside another installer."""
    return [
        f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'",
        "SELECT pg_catalog.pg_advisory_xact_lock(1212372819, 3)",
        *statements,
    ]


def install_sql(model: type[models.Model]) -> list[str]:
    """Return the statements that install capture on the model's table, to be run in one transaction."""
    return careful(_function_sql(model) + [trigger.create_sql(model) for trigger in TRIGGERS])


def uninstall_sql(model: type[models.Model]) -> list[str]:
    """Return the statements that remove capture from the model's table, to be run in one transaction."""
    return careful([drop_function_sql(function_name(model))])


def drop_function_sql(name: str) -> str:
    """Return the statement that drops a capture function with its triggers.

    CASCADE reaches nothing but triggers, and needs no ownership of their tables as DROP TRIGGER does.
    """
    return f"DROP FUNCTION IF EXISTS public.{quote(name)}() CASCADE"


@dataclass(frozen=True)
class TableStatus:
    """What was found on one table: ``installed``, ``missing``, ``outdated``, ``disabled``, ``absent`` or ``orphan``."""

    table: str
    state: str
    detail: str = ""


# By names in the catalog, not by to_regclass(): that needs a right on the schema.
_TRIGGERS_OF = """
SELECT c.oid, t.tgname, t.tgenabled, p.proname FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
LEFT JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = 'public'::regnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
"""
_FUNCTION_OF = """
SELECT prosrc, prosecdef, proconfig FROM pg_proc WHERE proname = %s AND pronamespace = 'public'::regnamespace
"""


def status(model: type[models.Model], using: str) -> TableStatus:
    """Compare triggers and function with what they should be; takes no lock on the table and needs no right on it."""
    label, function = table_label(model), function_name(model)
    with connections[using].cursor() as cursor:
        cursor.execute(_TRIGGERS_OF, table_parts(model))
        rows = cursor.fetchall()
        cursor.execute(_FUNCTION_OF, [function])
        stored = cursor.fetchone()
    if not rows:
        return TableStatus(label, "absent", "the table does not exist yet")
    found = {name: (enabled, called) for _, name, enabled, called in rows}
    names = [trigger.get_pgid(model) for trigger in TRIGGERS]
    missing = [trigger.name for trigger in TRIGGERS if trigger.get_pgid(model) not in found]
    if missing:
        return TableStatus(label, "missing", f"no trigger for {', '.join(map(str, missing))}")
    if any(found[name][0] in ("D", "R") for name in names):
        return TableStatus(label, "disabled", "a trigger is disabled")
    if any(found[name][1] != function for name in names):
        return TableStatus(label, "outdated", _OTHER_FUNCTION)
    if stored is None or (stored[0].strip(), *stored[1:]) != (_body(model).strip(), True, _FUNCTION_CONFIG):
        return TableStatus(label, "outdated", "the function is of another version of the model")
    return TableStatus(label, "installed")


_OTHER_FUNCTION = "a trigger calls another function: the table had another name"


def install(model: type[models.Model], using: str, attempts: int = 5) -> TableStatus:
    """Install capture on the model's table, if it is not there already.

    Where only the function is of another version, the table itself is not touched. CREATE OR REPLACE also enables a
    trigger that is disabled.

    Raises:
        OperationalError: the table stayed locked for ``attempts`` times LOCK_TIMEOUT.
    """
    before = status(model, using)
    if before.state in ("installed", "absent"):
        return before
    only_function = before.state == "outdated" and before.detail != _OTHER_FUNCTION
    run_patiently(using, careful(_function_sql(model)) if only_function else install_sql(model), attempts)
    return status(model, using)


def uninstall(model: type[models.Model], using: str, attempts: int = 5) -> None:
    """Remove capture from the model's table.

    Raises:
        OperationalError: the table stayed locked for ``attempts`` times LOCK_TIMEOUT.
    """
    run_patiently(using, uninstall_sql(model), attempts)


def run_patiently(using: str, statements: list[str], attempts: int = 5) -> None:
    """Run the statements in one transaction; again, if they ran into a lock.

    Raises:
        OperationalError: they did so ``attempts`` times.
    """
    for attempt in range(attempts):
        try:
            with transaction.atomic(using=using), connections[using].cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
            return
        except OperationalError:
            if attempt + 1 == attempts:
                raise
