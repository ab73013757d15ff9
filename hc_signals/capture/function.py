"""Generates the capture function of a connected table, from the model and the columns that the table has.

The function compares the mapped columns by their types. If that fails it captures whole rows, and if that fails it
records a gap. It raises no error, because the writer is Heroku Connect.
"""

import hashlib
import json
from collections.abc import Iterable

from django.db import models

from hc_signals.capture.function_columns import Layout
from hc_signals.capture.function_reload import NO_RELOADS, changed_columns, recognises_reloads, reload_parts
from hc_signals.conf import origin_rules
from hc_signals.log.schema import INSERT_AS_JSON, INSERT_CAPTURED
from hc_signals.origins import origin_sql
from hc_signals.postgres.names import literal, quote
from hc_signals.tables import counts_as_change, mapped_columns, table_label

FUNCTION_PREFIX = "hc_signals_capture_"


def function_name(model: type[models.Model]) -> str:
    """Return the name of the capture function of the model's table."""
    return FUNCTION_PREFIX + hashlib.sha256(table_label(model).encode()).hexdigest()[:16]


FUNCTION_CONFIG = [
    "search_path=pg_catalog, pg_temp",
    "lock_timeout=1s",
    # JIT compilation takes a second, and each session compiles for itself.
    "jit=off",
    # The session reuses the plan of its first statement. A nested loop is best to pair one row with one, but takes
    # minutes for some ten thousand rows.
    "enable_nestloop=off",
    "enable_hashjoin=on",
    "enable_indexscan=on",
    "plan_cache_mode=force_generic_plan",
    # The images are texts. With 0 or less, PostgreSQL rounds floating point numbers; other styles are ambiguous.
    "extra_float_digits=1",
    "DateStyle=ISO, MDY",
    "IntervalStyle=postgres",
]
"""Settings of a capture function, as the catalog has them. They end when the function returns."""

# Every name below is qualified.
_FUNCTION = """CREATE OR REPLACE FUNCTION public.{name}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
{settings}
AS {tag}
{body}
{tag}"""

_BODY = """#variable_conflict use_variable
{layout}
DECLARE
    -- The present name: a table in a renamed schema must not log under the name of its successor.
    hc_label text := TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME;
    logged bigint := 0;
    created bigint;
    kept bigint;
    resynced bigint;
    nested text;
BEGIN
    -- Many statements hit no row: they use none of our tables.
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
    {reload[before_truncate]}
    IF TG_OP = 'TRUNCATE' THEN
        {reload[after_truncate]}{log} VALUES (hc_label, 'TRUNCATE', {origin}, NULL, NULL, NULL, NULL, NULL, NULL);
        logged := 1;
        {reload[end]}
    ELSIF TG_OP = 'INSERT' THEN
        {reload[insert]}{log}
        SELECT hc_label, 'INSERT', {origin}, n."id"::text, {new_sfid}, NULL, NULL, {images}, {new_image} FROM hc_new n;
        GET DIAGNOSTICS logged = ROW_COUNT;
        {reload[end]}
    ELSIF TG_OP = 'DELETE' THEN
        {reload[delete]}{log}
        SELECT hc_label, 'DELETE', {origin}, o."id"::text, {old_sfid}, NULL, NULL, {images}, {old_image} FROM hc_old o;
        GET DIAGNOSTICS logged = ROW_COUNT;
        {reload[end]}
    ELSE
        -- A row whose key changed has no partner: it is a DELETE here, and an INSERT below, in that order.
        {log} SELECT hc_label,
            CASE WHEN n."id" IS NULL THEN 'DELETE' ELSE 'UPDATE' END,
            {origin}, o."id"::text,
            CASE WHEN n."id" IS NULL THEN {old_sfid} ELSE {new_sfid} END,
            CASE WHEN n."id" IS NOT NULL THEN pg_catalog.array_remove(ARRAY[
                {changed}]::text[], NULL) END,
            CASE WHEN n."id" IS NOT NULL THEN {old_values} END,
            {images}, CASE WHEN n."id" IS NULL THEN {old_image} ELSE {new_image} END
        FROM hc_old o LEFT JOIN hc_new n ON n."id" = o."id"
        WHERE n."id" IS NULL OR {differs};
        GET DIAGNOSTICS logged = ROW_COUNT;
        -- EXISTS is cheaper than an INSERT without rows.
        IF EXISTS (SELECT FROM hc_new n WHERE NOT EXISTS (SELECT FROM hc_old o WHERE o."id" = n."id")) THEN
            {log} SELECT hc_label, 'INSERT', {origin}, n."id"::text, {new_sfid}, NULL, NULL, {images}, {new_image}
            FROM hc_new n WHERE NOT EXISTS (SELECT FROM hc_old o WHERE o."id" = n."id");
            GET DIAGNOSTICS created = ROW_COUNT;
            logged := logged + created;
        END IF;
        {reload[resync]}
    END IF;
    IF logged > 0 THEN
        IF hc_label <> {own_label} THEN
            PERFORM public.hc_signals_renamed(TG_RELID, {own_label});
        END IF;
        -- Depth of the deepest logged statement that a customer's trigger ran inside another one.
        nested := pg_catalog.current_setting('hc_signals.nested', true);
        IF nested = 'lost' THEN
            RAISE EXCEPTION 'hc_signals: a change inside this one was lost' USING ERRCODE = '53400';
        ELSIF nested <> '' AND nested::integer > pg_catalog.pg_trigger_depth() THEN
            PERFORM public.hc_signals_reorder(hc_label);  -- statements inside this one were logged first
        ELSIF pg_catalog.pg_trigger_depth() > 1 THEN
            PERFORM pg_catalog.set_config('hc_signals.nested', pg_catalog.pg_trigger_depth()::text, true);
        END IF;
        PERFORM public.hc_signals_ring();
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- The writer is Heroku Connect: its statement must succeed.
    BEGIN
        IF TG_WHEN = 'BEFORE' THEN
            RETURN NULL;  -- the old images could not be stored: the TRUNCATE becomes a gap
        ELSIF SQLSTATE IN ('55P03', '53400') THEN
            RAISE;  -- the log is locked or full: a second try would wait again
        ELSIF pg_catalog.pg_trigger_depth() > 1 OR pg_catalog.current_setting('hc_signals.nested', true) <> '' THEN
            RAISE;  -- whole rows cannot follow the order of nested statements
        ELSIF TG_OP = 'INSERT' THEN
            {log_json} SELECT hc_label, 'INSERT', {origin}, n.image->>'id', n.image->>'sfid', NULL, NULL, {new_mapped}
            FROM (SELECT to_json(x.*) AS image FROM hc_new x) n;
        ELSIF TG_OP = 'DELETE' THEN
            {log_json} SELECT hc_label, 'DELETE', {origin}, o.image->>'id', o.image->>'sfid', NULL, {old_mapped}, NULL
            FROM (SELECT to_json(x.*) AS image FROM hc_old x) o;
        ELSIF TG_OP = 'UPDATE' THEN
            IF EXISTS (
                SELECT FROM (SELECT to_jsonb(x.*) AS image FROM hc_new x) n WHERE NOT EXISTS (
                    SELECT FROM (SELECT to_jsonb(x.*) AS image FROM hc_old x) o WHERE {same_key})
            ) THEN
                RAISE EXCEPTION 'hc_signals: old and new rows cannot be paired';
            END IF;
            {log_json} SELECT hc_label, 'UPDATE', {origin}, n.image->>'id', n.image->>'sfid', c.changed,
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
        IF pg_catalog.pg_trigger_depth() > 1 THEN
            -- The statements inside this one are logged without their cause, so the outer statement is a gap as well.
            PERFORM pg_catalog.set_config('hc_signals.nested', 'lost', true);
        END IF;
        BEGIN
            PERFORM public.hc_signals_lose();
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'hc_signals: a change of % was not captured (%)', hc_label, SQLSTATE;
        END;
    END;
    RETURN NULL;
END"""

# Of an image of the whole row, the mapped columns.
_MAPPED_IMAGE = "(SELECT json_object_agg(e.key, e.value) FROM json_each({image}::json) e WHERE e.key = ANY ({columns}))"

# If a table has no id, the sfid identifies its rows.
_SAME_KEY = "coalesce(n.image->>'id', n.image->>'sfid') = coalesce(o.image->>'id', o.image->>'sfid')"


def image_sql(columns: list[str], row: str) -> str:
    """Return the SQL of a row's image that has a layout; ``row`` is the row's alias.

    to_json() takes three times as long: it searches the catalog for the type of each value.
    """
    return f"ARRAY[{', '.join(f'{row}.{quote(c)}::text' for c in columns)}]"


def json_sql(columns: list[str], row: str) -> str:
    """Return the SQL of a row's image as JSON; ``row`` is the row's alias."""
    return f"(SELECT to_json(i) FROM (SELECT {', '.join(f'{row}.{quote(c)}' for c in columns)}) i)"


def old_values_sql(columns: list[str]) -> str:
    """Return the SQL of an updated row's old image, of rows ``o`` and ``n``: the values that differ, also bookkeeping.

    The new image has the other values. This makes the log a third smaller, and capture a quarter faster.
    """
    parts = ", ".join(
        f"CASE WHEN o.{quote(c)} IS DISTINCT FROM n.{quote(c)} "
        f"THEN {literal(json.dumps(c, ensure_ascii=False) + ':')} "
        f"|| coalesce(pg_catalog.to_json(o.{quote(c)}::text)::text, 'null') END"
        for c in columns
    )
    return f"('{{' || pg_catalog.array_to_string(ARRAY[{parts}], ',') || '}}')::json"


def record_id_sql(columns: list[str], row: str) -> str:
    """Return the SQL of the log's record_id of a row."""
    return f"{row}.sfid" if "sfid" in columns else "NULL"


def function_body(model: type[models.Model], layout: Layout | None = None) -> str:
    """Return the source of the capture function; by default for every mapped column, none fresh."""
    layout = layout or Layout(tuple(mapped_columns(model)))
    body = _body(model, layout)
    return f"{body}\n{_MARK}{_digest(body)}"


def is_genuine(source: str) -> bool:
    """Return True if a source is unaltered since any version of this package generated it, for any model."""
    body, _, digest = source.strip().rpartition(f"\n{_MARK}")
    return bool(body) and digest == _digest(body)


_MARK = "-- Unaltered: "
"""Begins the last line, with a digest of all before it."""


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _body(model: type[models.Model], layout: Layout) -> str:
    columns = list(layout.columns)
    watched = [c for c in columns if counts_as_change(c) and c != "sfid"]
    tests = {c: f"o.{quote(c)} IS DISTINCT FROM n.{quote(c)}" for c in watched}
    read_write = getattr(model, "sf_access", "") == "read_write"
    if "sfid" in columns:
        # If the app creates records, the function also logs an sfid that was NULL, for the signal record_linked.
        only_changed = "" if read_write else 'o."sfid" IS NOT NULL AND '
        tests["sfid"] = f'({only_changed}o."sfid" IS DISTINCT FROM n."sfid")'
    if read_write and {"_hc_lastop", "_hc_err"} <= set(columns):
        tests["_hc_err"] = (
            """(n."_hc_lastop" = 'FAILED' AND (o."_hc_lastop" IS DISTINCT FROM n."_hc_lastop" """
            """OR o."_hc_err" IS DISTINCT FROM n."_hc_err"))"""
        )
    every, compared = _text_array(columns), _text_array(watched)
    aware = recognises_reloads(model, columns)
    # The first value in a fresh column is not a change.
    fresh = [c for c in layout.fresh if c in watched and aware]
    counted = {c: f"(o.{quote(c)} IS NOT NULL AND {test})" if c in fresh else test for c, test in tests.items()}
    pieces = {
        "log": INSERT_CAPTURED,
        "log_json": INSERT_AS_JSON,
        "origin": origin_sql(origin_rules()),
        "new_image": image_sql(columns, "n"),
        "old_image": image_sql(columns, "o"),
        "old_json": json_sql(columns, "o"),
        "columns": every,
        "images": f"{layout.id}",
        "old_values": old_values_sql(columns),
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
        own_label=literal(table_label(model)),
    )


def _text_array(names: Iterable[str]) -> str:
    return "ARRAY[" + ", ".join(map(literal, names)) + "]::text[]"


def function_sql(model: type[models.Model], layout: Layout | None = None) -> list[str]:
    """Return the statements that create the capture function, and the layout of the images that it logs."""
    layout = layout or Layout(tuple(mapped_columns(model)))
    body, tag = function_body(model, layout), "$hc_signals$"
    while tag in body:  # a column may have any name
        tag = tag[:-1] + "_$"
    settings = "\n".join(_set(*setting.split("=")) for setting in FUNCTION_CONFIG)
    function = _FUNCTION.format(name=function_name(model), settings=settings, body=body, tag=tag)
    return [
        f"INSERT INTO public.hc_signals_layout (id, columns) VALUES ({layout.id}, {_text_array(layout.columns)}) "
        "ON CONFLICT DO NOTHING",
        function,
        f"REVOKE ALL ON FUNCTION public.{function_name(model)}() FROM PUBLIC",
    ]


def _set(name: str, value: str) -> str:
    return f"SET {name} = {', '.join(map(literal, value.split(', ')))}"
