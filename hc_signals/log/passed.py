"""Changes that a consumer had no model for: passed over, noted, and told as a gap when it gets the model (again)."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from django.db import connections

from hc_signals.events import Change
from hc_signals.postgres.moments import aware_row

_NOTE = """
INSERT INTO public.hc_signals_passed (consumer, table_name, since)
SELECT %s, * FROM unnest(%s::text[], %s::timestamptz[]) ON CONFLICT DO NOTHING
"""
# The gap is for this consumer alone: the others may have had the model.
_TELL = """
WITH passed AS (
    DELETE FROM public.hc_signals_passed WHERE consumer = %(consumer)s AND table_name = ANY (%(tables)s)
    RETURNING table_name, since
), told AS (
    INSERT INTO public.hc_signals_change (table_name, operation, origin, note)
    SELECT table_name, 'GAP', 'heroku_connect', json_build_object('cause', 'model_missing', 'since', since,
        'until', clock_timestamp(), 'consumer', %(consumer)s::text)
    FROM passed
)
SELECT table_name, since FROM passed ORDER BY table_name
"""


def note_passed(using: str, consumer: str, changes: Iterable[Change]) -> None:
    """Note that changes are passed over; what is noted of a table already stays as it is.

    In the transaction of the page, if it has one.
    """
    since: dict[str, datetime] = {}
    for change in changes:
        since.setdefault(change.table_name, change.captured_at)
    names = sorted(since)  # two shards that note the same ones wait for each other in one order
    with connections[using].cursor() as cursor:
        cursor.execute(_NOTE, [consumer, names, [since[name] for name in names]])


def tell_passed(using: str, consumer: str, tables: Iterable[str]) -> Mapping[str, datetime]:
    """Write a gap for each of the tables of which the consumer has passed changes over; return since when.

    Args:
        tables: those that it has a model for now.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_TELL, {"consumer": consumer, "tables": list(tables)})
        found = dict(map(aware_row, cursor.fetchall()))
        if found:
            cursor.execute("SELECT public.hc_signals_ring()")
    return found
