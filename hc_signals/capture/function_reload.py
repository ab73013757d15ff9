"""The parts of a capture function that recognise a reload: a table cleared and filled again, a column filled at last.

A clearing puts the old images into ``hc_signals_cleared`` instead of the log; while they wait there, an inserted row is
compared with its old image. Images and tests are those of the ordinary capture, so both tell the same changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db import models

from hc_signals.conf import chosen, get_conf
from hc_signals.tables import connected_models, quote

CLEARING_ROWS = 10
"""A DELETE of fewer rows is never taken for a clearing: the last records of a small table may well be deleted."""

_KEPT = "'hc_signals.kept_' || TG_RELID"

# Under Heroku Connect's own lock on the table, before it is empty. Rows without sfid could never be recognised.
_BEFORE_TRUNCATE = """IF TG_WHEN = 'BEFORE' THEN
        IF pg_catalog.row_security_active(TG_RELID) THEN
            RETURN NULL;  -- rows may be hidden from us: it will be a gap, as without reloads
        END IF;
        PERFORM public.hc_signals_join_reload(hc_label);
        EXECUTE $hc_reload$INSERT INTO public.hc_signals_cleared (table_name, record_id, record_key, old)
            SELECT $1, o."sfid", o."id"::text, {old_image} FROM $hc_reload$ || TG_RELID::regclass || $hc_reload$ o
            WHERE o."sfid" IS NOT NULL ON CONFLICT DO NOTHING$hc_reload$ USING hc_label;
        GET DIAGNOSTICS kept = ROW_COUNT;
        EXECUTE $hc_reload${log}
            SELECT $1, 'DELETE', {origin}, o."id"::text, NULL, NULL, {old_image}, NULL
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

# What the same transaction deleted in earlier chunks is in the log already, unseen by anyone: it is moved. Joined by
# xid and id, so that it stays linear where the planner expects a single row.
_DELETE = """IF (SELECT pg_catalog.count(*) FROM (SELECT FROM hc_old LIMIT {rows}) few) = {rows}
            AND public.hc_signals_is_empty(TG_RELID) THEN
            PERFORM public.hc_signals_join_reload(hc_label);
            {log} SELECT hc_label, 'DELETE', {origin}, o."id"::text, NULL, NULL, {old_image}, NULL
            FROM hc_old o WHERE o."sfid" IS NULL;
            GET DIAGNOSTICS logged = ROW_COUNT;
            WITH latest AS (
                SELECT DISTINCT ON (l.record_id) l.id, l.operation FROM public.hc_signals_change l
                WHERE l.xid = pg_catalog.pg_current_xact_id() AND l.table_name = hc_label AND l.record_id IS NOT NULL
                ORDER BY l.record_id, l.id DESC
            ), earlier AS (
                DELETE FROM public.hc_signals_change c USING latest l
                WHERE c.xid = pg_catalog.pg_current_xact_id() AND c.id = l.id AND l.operation = 'DELETE'
                RETURNING c.record_id, c.record_key, c.old
            )
            INSERT INTO public.hc_signals_cleared (table_name, record_id, record_key, old)
            SELECT hc_label, o."sfid", o."id"::text, {old_image} FROM hc_old o WHERE o."sfid" IS NOT NULL
            UNION ALL SELECT hc_label, e.record_id, e.record_key, e.old FROM earlier e
            ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS kept = ROW_COUNT;
            INSERT INTO public.hc_signals_reload (table_name, records) VALUES (hc_label, kept);
        ELSE
        """

# Planned anew for each statement: a plan of the first, small one would be slow for a COPY, and the other way round. ANY
# an array is always looked up in the index, and a FULL JOIN never loops, whatever the planner takes for the number of
# rows; all that is back has its partner. COLLATE: Heroku Connect's sfid has a collation of its own; OFFSET 0 keeps the
# comparison from being done twice.
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
                    s.record_key, s.record_id, s.changed, s.old, s.new
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


@dataclass(frozen=True)
class ReloadParts:
    """What goes into the capture function at which place; each part that opens a choice is closed by ``end``."""

    before_truncate: str = "IF TG_WHEN = 'BEFORE' THEN RETURN NULL; END IF;"
    after_truncate: str = ""
    insert: str = ""
    delete: str = ""
    end: str = ""
    resync: str = ""


NO_RELOADS = ReloadParts()
"""Of a model whose reloads are not recognised: a TRUNCATE is a gap, deletions and creations are told as they come."""


def is_aware(model: type[models.Model]) -> bool:
    """Tell whether reloads of the model's table are recognised: RELOAD_AWARE, and an sfid to recognise records by.

    Raises:
        ConfigurationError: the setting names a model that is not connected.
    """
    columns = {str(field.column) for field in model._meta.local_concrete_fields}
    return {"id", "sfid"} <= columns and model in chosen("RELOAD_AWARE", get_conf().RELOAD_AWARE, connected_models())


def reload_parts(pieces: Mapping[str, str], tests: Mapping[str, str], fresh: Sequence[str]) -> ReloadParts:
    """Return the parts.

    Args:
        pieces: of the ordinary capture: ``log``, ``origin``, ``old_image``, ``old_values``, ``new_image``, ``differs``.
        tests: by column, the SQL condition under which it counts as changed.
        fresh: columns that are being filled for the first time.
    """
    compared = {column: test for column, test in tests.items() if column != "id"}  # a reload gives new ids
    named = {**pieces, "kept": _KEPT, "rows": str(CLEARING_ROWS), "changed": changed_columns(compared)}
    filled = " OR ".join(f"(o.{quote(c)} IS NULL AND n.{quote(c)} IS NOT NULL)" for c in fresh)
    return ReloadParts(
        before_truncate=_BEFORE_TRUNCATE.format(**named),
        after_truncate=_AFTER_TRUNCATE.format(**named),
        insert=_INSERT.format(**named),
        delete=_DELETE.format(**named),
        end="END IF;",
        resync=_RESYNC.format(filled=filled, **named) if fresh else "",
    )


def changed_columns(tests: Mapping[str, str]) -> str:
    """Return the elements of an array of the names of those columns whose test is met, NULL for the others."""
    cases = [f"CASE WHEN {test} THEN '{column.replace(chr(39), chr(39) * 2)}' END" for column, test in tests.items()]
    return ",\n                ".join(cases)
