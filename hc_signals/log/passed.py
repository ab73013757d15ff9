"""Changes that a consumer had no model for: passed over, noted, and told as a gap when it gets the model (again)."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from django.db import connections, transaction

from hc_signals.log.append import append_gap, wake
from hc_signals.log.change import Change
from hc_signals.log.schema import Cause
from hc_signals.postgres.moments import aware_row

_NOTE = """
INSERT INTO public.hc_signals_passed (consumer, table_name, since)
SELECT %s, * FROM unnest(%s::text[], %s::timestamptz[]) ON CONFLICT DO NOTHING
"""
_FORGET = """
DELETE FROM public.hc_signals_passed WHERE consumer = %s AND table_name = ANY (%s) RETURNING table_name, since
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
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute(_FORGET, [consumer, list(tables)])
        found = dict(sorted(map(aware_row, cursor.fetchall())))
        for table, since in found.items():
            append_gap(using, table, Cause.MODEL_MISSING, since, consumer)  # the others may have had the model
        if found:
            wake(using)
    return found
