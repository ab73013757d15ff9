"""Capture triggers: generated from a connected model, rendered through pgtrigger, installed by ourselves.

Unmanaged tables never get triggers through Django's migrations and appear long after ``migrate``, so installing is a
command of its own. The trigger definition names no column: Heroku Connect must stay free to alter its tables.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import pgtrigger
from django.db import OperationalError, connections, models, transaction

from hc_signals.tables import NOISE_COLUMNS, literal, quote, quoted_table, table_label

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
AS $hc_signals$
{body}
$hc_signals$"""

_BODY = """DECLARE
    logged bigint := 0;
    created bigint;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        {log} VALUES ({table}, 'TRUNCATE', {origin}, NULL, NULL, NULL, NULL, NULL);
        logged := 1;
    ELSIF TG_OP = 'INSERT' THEN
        {log} SELECT {table}, 'INSERT', {origin}, n."id"::text, {new_sfid}, NULL, NULL, {new_image} FROM hc_new n;
        GET DIAGNOSTICS logged = ROW_COUNT;
    ELSIF TG_OP = 'DELETE' THEN
        {log} SELECT {table}, 'DELETE', {origin}, o."id"::text, {old_sfid}, NULL, {old_image}, NULL FROM hc_old o;
        GET DIAGNOSTICS logged = ROW_COUNT;
    ELSE
        -- A row whose key changed has no partner: it is a delete here, and a create below, in that order.
        {log} SELECT {table},
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
        {log} SELECT {table}, 'INSERT', {origin}, n."id"::text, {new_sfid}, NULL, NULL, {new_image} FROM hc_new n
        WHERE NOT EXISTS (SELECT FROM hc_old o WHERE o."id" = n."id");
        GET DIAGNOSTICS created = ROW_COUNT;
        logged := logged + created;
    END IF;
    IF logged > 0 THEN
        -- A customer's trigger ran a statement inside this one: its changes were logged first.
        IF pg_catalog.current_setting('hc_signals.nested', true) = '1' THEN
            PERFORM public.hc_signals_settle({table});
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
        IF TG_OP = 'INSERT' THEN
            {log} SELECT {table}, 'INSERT', {origin}, to_json(n)->>'id', to_json(n)->>'sfid',
                NULL, NULL, to_json(n)
            FROM hc_new n;
        ELSIF TG_OP = 'DELETE' THEN
            {log} SELECT {table}, 'DELETE', {origin}, to_json(o)->>'id', to_json(o)->>'sfid',
                NULL, to_json(o), NULL
            FROM hc_old o;
        ELSIF TG_OP = 'UPDATE' THEN
            IF EXISTS (SELECT 1 FROM hc_new n WHERE to_jsonb(n)->>'id' IS NULL) THEN
                RAISE EXCEPTION 'hc_signals: no id to pair old and new rows by';
            END IF;
            {log} SELECT {table}, 'UPDATE', {origin}, n.row->>'id', n.row->>'sfid',
                ARRAY(SELECT e.key FROM jsonb_each(n.row) e WHERE e.value IS DISTINCT FROM o.row->e.key),
                o.row::json, n.row::json
            FROM (SELECT to_jsonb(x) AS row FROM hc_old x) o
            JOIN (SELECT to_jsonb(x) AS row FROM hc_new x) n ON n.row->'id' = o.row->'id'
            WHERE n.row - {noise} IS DISTINCT FROM o.row - {noise};
        ELSE
            RAISE EXCEPTION 'hc_signals: TRUNCATE not logged';
        END IF;
        PERFORM public.hc_signals_ring();
    EXCEPTION WHEN OTHERS THEN
        BEGIN
            -- Survives even where the log is gone; the worker turns it into a gap.
            PERFORM pg_catalog.nextval('public.hc_signals_lost_seq');
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'hc_signals: a change of % was not captured (%)', {table}, SQLSTATE;
        END;
    END;
    RETURN NULL;
END"""

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
    return _BODY.format(
        log=_INSERT_INTO_LOG,
        table=literal(table_label(model)),
        origin=_ORIGIN,
        new_sfid=record_id_sql(columns, "n"),
        old_sfid=record_id_sql(columns, "o"),
        new_image=image_sql(columns, "n"),
        old_image=image_sql(columns, "o"),
        changed=",\n                ".join(f"CASE WHEN {test} THEN {literal(c)} END" for c, test in tests.items()),
        differs="(" + " OR ".join(tests.values() or ["false"]) + ")",
        noise="ARRAY[" + ", ".join(map(literal, NOISE_COLUMNS)) + "]",
    )


class CaptureTrigger(pgtrigger.Trigger):
    """One statement-level trigger of a connected table; four of them share one generated function.

    pgtrigger's own ``prune`` and ``ls`` look for the prefix ``pgtrigger_``; ours is another, hashed from the table and
    not from the class, so they neither remove it nor lose it when a class is renamed.
    """

    when = pgtrigger.After
    level = pgtrigger.Statement

    def __init__(self, operation: str) -> None:
        kind, self.referencing_sql = _OPERATIONS[operation]
        super().__init__(name=operation.lower(), operation=kind)

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
            f"CREATE OR REPLACE TRIGGER {quote(self.get_pgid(model))} AFTER {self.operation} ON {quoted_table(model)} "
            f"{referencing}FOR EACH STATEMENT WHEN (current_setting('xmlbinary') = 'hex') "
            f"EXECUTE FUNCTION {self.render_execute(model)}"
        )


TRIGGERS = tuple(CaptureTrigger(operation) for operation in _OPERATIONS)


def _table_hash(model: type[models.Model]) -> str:
    return hashlib.sha256(table_label(model).encode()).hexdigest()[:16]


def function_name(model: type[models.Model]) -> str:
    """Return the name of the capture function of the model's table."""
    return f"hc_signals_capture_{_table_hash(model)}"


def install_sql(model: type[models.Model]) -> list[str]:
    """Return the statements that install capture on the model's table."""
    function = _FUNCTION.format(name=function_name(model), body=_body(model))
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
        cursor.execute(
            "SELECT prosrc FROM pg_proc WHERE proname = %s AND pronamespace = 'public'::regnamespace",
            [function_name(model)],
        )
        body = cursor.fetchone()
    names = [trigger.get_pgid(model) for trigger in TRIGGERS]
    missing = [trigger.name for trigger in TRIGGERS if trigger.get_pgid(model) not in found]
    if missing:
        return TableStatus(label, "missing", f"no trigger for {', '.join(map(str, missing))}")
    if any(found[name] in ("D", "R") for name in names):
        return TableStatus(label, "disabled", "a trigger is disabled")
    if body is None or body[0].strip() != _body(model).strip():
        return TableStatus(label, "outdated", "the function is of another version of the model")
    return TableStatus(label, "installed")


def install(model: type[models.Model], using: str, attempts: int = 5) -> TableStatus:
    """Install capture on the model's table, if it is not there already.

    Raises:
        OperationalError: the table stayed locked for ``attempts`` times LOCK_TIMEOUT.
    """
    before = status(model, using)
    if before.state in ("installed", "absent"):
        return before
    for attempt in range(attempts):
        try:
            with transaction.atomic(using=using), connections[using].cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                for statement in install_sql(model):
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
