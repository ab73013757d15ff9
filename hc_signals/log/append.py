"""Appends the rows that Python writes to the log: gaps, snapshots, missing records, and the ends of reloads.

All other rows come from the capture functions. Every function here belongs into a transaction of its caller.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hc_signals.conf import mirror_origin
from hc_signals.log.schema import Cause
from hc_signals.postgres.query import execute, row

# A time in the future was stored before the server's clock went back.
_GAP = """
INSERT INTO public.hc_signals_change (table_name, operation, origin, note)
SELECT %(table)s, 'GAP', %(origin)s, (%(more)s::jsonb || jsonb_build_object(
    'cause', %(cause)s::text,
    'since', CASE WHEN %(since)s::timestamptz IS NOT NULL THEN least(%(since)s::timestamptz, clock_timestamp()) END,
    'until', clock_timestamp()))::json
"""
_NOTE = """
INSERT INTO public.hc_signals_change (table_name, operation, origin, note)
VALUES (%s, %s, %s, %s::json)
"""
_ROWS = """
WITH page AS MATERIALIZED ({page}), logged AS (
    INSERT INTO public.hc_signals_change (table_name, operation, origin, record_key, record_id, new, note)
    SELECT %(label)s, {operation}, %(origin)s, n."id"::text, {record_id}, {image}, %(note)s::json
    FROM page n ORDER BY n."id"
)
SELECT count(*), (SELECT "id" FROM page ORDER BY "id" DESC LIMIT 1) FROM page
"""
INSERT_MISSING = """
INSERT INTO public.hc_signals_change (table_name, operation, origin, record_key, record_id, old)
SELECT %(table)s, 'DELETE', %(origin)s, record_key, record_id, old FROM missing
"""
"""Part of a statement with a query ``missing``: appends each of its records as deleted, with this ``origin``."""


def append_gap(using: str, table: str, cause: Cause | str, since: datetime | None, consumer: str | None = None) -> None:
    """Append a gap of one table, from ``since`` (None: unknown) until now, for one consumer or for all."""
    more = json.dumps({} if consumer is None else {"consumer": consumer})
    values = {"table": table, "origin": mirror_origin(), "cause": cause, "since": since, "more": more}
    execute(using, _GAP, values)


def append_note(using: str, table: str, operation: str, note: str) -> None:
    """Append the end of a reload (RELOADED) or of a new column's filling (RESYNCED), with its note as JSON."""
    execute(using, _NOTE, [table, operation, mirror_origin(), note])


def append_rows(
    using: str, page: str, *, operation: str, record_id: str, image: str, params: Mapping[str, Any]
) -> tuple[int, int | None]:
    """Append rows of a connected table as they are now; return how many, and the highest ``id`` among them.

    ``page`` is a query of rows ``n`` with an ``id``. ``operation``, ``record_id`` and ``image`` are SQL expressions of
    such a row. ``params``: ``label``, ``origin``, ``note`` (JSON or None), and all that the expressions name.
    """
    count, last = row(using, _ROWS.format(page=page, operation=operation, record_id=record_id, image=image), params)
    return count, last


def wake(using: str) -> None:
    """Notify a sleeping worker, with the commit, that the log has something for it."""
    execute(using, "SELECT public.hc_signals_ring()")
