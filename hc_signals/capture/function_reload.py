"""Generates the parts of a capture function that recognise a reload, and the first values in a new column.

In a reload, a table is cleared and filled again. The function stores the cleared images in ``hc_signals_cleared``, not
in the log. Then it compares each inserted row with its old image, by the same tests as an UPDATE.
"""

from collections.abc import Collection, Mapping, Sequence

from django.db import models

from hc_signals.conf import chosen, get_conf
from hc_signals.postgres.names import literal, quote
from hc_signals.tables import connected_models, is_connected, mapped_columns

CLEARING_ROWS = 10
"""Fewest rows of a DELETE that counts as a clearing; ordinary deletions may empty a small table."""

_KEPT = "'hc_signals.kept_' || TG_RELID"

# Before the TRUNCATE, under its own lock on the table. A row without sfid could not be recognised when it comes back.
_BEFORE_TRUNCATE = """IF TG_WHEN = 'BEFORE' THEN
        IF pg_catalog.row_security_active(TG_RELID) THEN
            RETURN NULL;  -- a policy may hide rows: the TRUNCATE becomes a gap
        END IF;
        PERFORM public.hc_signals_join_reload(hc_label);
        EXECUTE $hc_reload$INSERT INTO public.hc_signals_cleared (table_name, record_id, record_key, old)
            SELECT $1, o."sfid", o."id"::text, {old_json} FROM $hc_reload$ || TG_RELID::regclass || $hc_reload$ o
            WHERE o."sfid" IS NOT NULL ON CONFLICT DO NOTHING$hc_reload$ USING hc_label;
        GET DIAGNOSTICS kept = ROW_COUNT;
        EXECUTE $hc_reload${log}
            SELECT $1, 'DELETE', {origin}, o."id"::text, NULL, NULL, NULL, {images}, {old_image}
            FROM $hc_reload$ || TG_RELID::regclass || $hc_reload$ o WHERE o."sfid" IS NULL$hc_reload$ USING hc_label;
        GET DIAGNOSTICS logged = ROW_COUNT;
        INSERT INTO public.hc_signals_reload (table_name, records) VALUES (hc_label, kept);
        PERFORM pg_catalog.set_config({kept}, '1', true);
        IF logged > 0 THEN
            PERFORM public.hc_signals_ring();
        END IF;
        RETURN NULL;
    END IF;"""

_AFTER_TRUNCATE = """IF pg_catalog.current_setting({kept}, true) = '1' THEN
            PERFORM pg_catalog.set_config({kept}, '', true);
        ELSE
        """

# Deletions of earlier statements of this transaction are in the log, but no worker can see them yet: they are moved.
# The join by xid and id stays linear if the planner expects a single row.
_DELETE = """IF (SELECT pg_catalog.count(*) FROM (SELECT FROM hc_old LIMIT {rows}) few) = {rows}
            AND public.hc_signals_is_empty(TG_RELID) THEN
            PERFORM public.hc_signals_join_reload(hc_label);
            {log} SELECT hc_label, 'DELETE', {origin}, o."id"::text, NULL, NULL, NULL, {images}, {old_image}
            FROM hc_old o WHERE o."sfid" IS NULL;
            GET DIAGNOSTICS logged = ROW_COUNT;
            WITH latest AS (
                SELECT DISTINCT ON (l.record_id) l.id, l.operation FROM public.hc_signals_change l
                WHERE l.xid = pg_catalog.pg_current_xact_id() AND l.table_name = hc_label AND l.record_id IS NOT NULL
                ORDER BY l.record_id, l.id DESC
            ), earlier AS (
                DELETE FROM public.hc_signals_change c USING latest l
                WHERE c.xid = pg_catalog.pg_current_xact_id() AND c.id = l.id AND l.operation = 'DELETE'
                RETURNING c.*
            )
            INSERT INTO public.hc_signals_cleared (table_name, record_id, record_key, old)
            SELECT hc_label, o."sfid", o."id"::text, {old_json} FROM hc_old o WHERE o."sfid" IS NOT NULL
            UNION ALL SELECT hc_label, e.record_id, e.record_key, CASE
                WHEN e.layout IS NULL THEN e.old
                WHEN e.layout = {images} THEN public.hc_signals_unquoted(
                    pg_catalog.json_object({columns}, e.image), (SELECT public.hc_signals_json_columns(TG_RELID)))
                ELSE public.hc_signals_json(hc_label, e.layout, e.image) END
            FROM earlier e
            ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS kept = ROW_COUNT;
            INSERT INTO public.hc_signals_reload (table_name, records) VALUES (hc_label, kept);
        ELSE
        """

# EXECUTE plans each statement: the plan of a first, small one would be slow for a COPY. ANY (ARRAY ...) uses the index
# and a FULL JOIN is no nested loop, for any number of rows that the planner expects. COLLATE, because Heroku Connect's
# sfid has a collation of its own. OFFSET 0 keeps PostgreSQL from comparing twice.
_INSERT = """IF EXISTS (SELECT FROM public.hc_signals_reload r WHERE r.table_name = hc_label)
            AND public.hc_signals_join_reload(hc_label) THEN
            EXECUTE $hc_reload$
            WITH back AS (
                DELETE FROM public.hc_signals_cleared c
                WHERE c.table_name = $1 AND c.record_id = ANY (ARRAY(
                    SELECT n."sfid"::text COLLATE pg_catalog."default" FROM hc_new n))
                RETURNING c.record_id, c.old
            ), seen AS MATERIALIZED (
                SELECT n."id"::text AS record_key, n."sfid" AS record_id, d.changed,
                    CASE WHEN pg_catalog.cardinality(d.changed) > 0 THEN {old_values} END AS old,
                    CASE WHEN d.changed IS NULL OR pg_catalog.cardinality(d.changed) > 0 THEN {new_image} END AS new
                FROM hc_new n
                FULL JOIN back b ON b.record_id = n."sfid" COLLATE pg_catalog."default"
                LEFT JOIN LATERAL pg_catalog.json_populate_record(
                    NULL::$hc_reload$ || TG_RELID::regclass || $hc_reload$, b.old) o ON b.record_id IS NOT NULL
                CROSS JOIN LATERAL (
                    SELECT CASE WHEN b.record_id IS NOT NULL THEN pg_catalog.array_remove(ARRAY[
                        {changed}]::text[], NULL) END
                    OFFSET 0
                ) d (changed)
            ), written AS (
                {log}
                SELECT $1, CASE WHEN s.changed IS NULL THEN 'INSERT' ELSE 'UPDATE' END, {origin},
                    s.record_key, s.record_id, s.changed, s.old, {images}, s.new
                FROM seen s WHERE s.new IS NOT NULL
            )
            INSERT INTO public.hc_signals_refill AS r (table_name, kind, unchanged, changed, created)
            SELECT $1, 'reload', count(*) FILTER (WHERE s.new IS NULL),
                count(*) FILTER (WHERE s.new IS NOT NULL AND s.changed IS NOT NULL),
                count(*) FILTER (WHERE s.changed IS NULL)
            FROM seen s
            RETURNING r.changed + r.created$hc_reload$ INTO logged USING hc_label;
        ELSE
        """

_RESYNC = """SELECT pg_catalog.count(*) INTO resynced FROM hc_old o JOIN hc_new n ON n."id" = o."id"
        WHERE {differs} IS NOT TRUE AND ({filled});
        IF resynced > 0 THEN
            INSERT INTO public.hc_signals_refill (table_name, kind, resynced) VALUES (hc_label, 'resync', resynced);
        END IF;"""


_PLACES = {"after_truncate": _AFTER_TRUNCATE, "insert": _INSERT, "delete": _DELETE, "end": "END IF;"}
"""SQL to insert into the capture function, by place; ``end`` closes the IF of the other parts."""
NO_RELOADS = {
    **dict.fromkeys((*_PLACES, "resync"), ""),
    "before_truncate": "IF TG_WHEN = 'BEFORE' THEN RETURN NULL; END IF;",
}
"""For a model whose reloads are not recognised: a TRUNCATE is a gap, and each deleted or inserted row a change."""


def recognises_reloads(model: type[models.Model], columns: Collection[str] | None = None) -> bool:
    """Return True if RELOAD_AWARE chooses the model, and its records have an sfid: the function recognises reloads.

    ``columns`` are the mapped columns that the table has, by default all. It raises ConfigurationError if
    the setting names a model that is not connected.
    """
    found, choice = mapped_columns(model) if columns is None else columns, get_conf().RELOAD_AWARE
    if not {"id", "sfid"} <= set(found):
        return False
    if isinstance(choice, bool):  # without a search through all models, for each of all models
        return choice and is_connected(model)
    return model in chosen("RELOAD_AWARE", choice, connected_models())


def reload_parts(pieces: Mapping[str, str], tests: Mapping[str, str], fresh: Sequence[str]) -> dict[str, str]:
    """Return the parts of the capture function that recognise a reload, by place.

    Args:
        pieces: SQL by name: ``log``, ``origin``, ``columns``, ``images`` (id of the layout), ``old_image``,
            ``old_json``, ``old_values``, ``new_image``, ``differs``.
        tests: by column, the SQL condition under which it has changed.
        fresh: columns that are being filled for the first time.
    """
    compared = {column: test for column, test in tests.items() if column != "id"}  # a reload gives new ids
    named = {**pieces, "kept": _KEPT, "rows": str(CLEARING_ROWS), "changed": changed_columns(compared)}
    filled = " OR ".join(f"(o.{quote(c)} IS NULL AND n.{quote(c)} IS NOT NULL)" for c in fresh)
    places = {**_PLACES, "before_truncate": _BEFORE_TRUNCATE, "resync": _RESYNC if fresh else ""}
    return {place: sql.format(filled=filled, **named) for place, sql in places.items()}


def changed_columns(tests: Mapping[str, str]) -> str:
    """Return the elements of an SQL array: the name of each column whose test is true, else NULL."""
    cases = [f"CASE WHEN {test} THEN {literal(column)} END" for column, test in tests.items()]
    return ",\n                ".join(cases)
