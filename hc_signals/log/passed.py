"""Records changes that a consumer has no model for, and reports them as a gap once it gets the model."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from django.db import transaction

from hc_signals.log.append import append_gap, wake
from hc_signals.log.change import Change
from hc_signals.log.schema import Cause
from hc_signals.postgres.moments import aware_row
from hc_signals.postgres.query import execute, rows

_RECORD = """
INSERT INTO public.hc_signals_passed (consumer, table_name, since)
SELECT %s, * FROM unnest(%s::text[], %s::timestamptz[]) ON CONFLICT DO NOTHING
"""
_FORGET = """
DELETE FROM public.hc_signals_passed WHERE consumer = %s AND table_name = ANY (%s) RETURNING table_name, since
"""


def record_passed(using: str, consumer: str, changes: Iterable[Change]) -> None:
    """Record that the consumer skips these changes, in the transaction of their page, if it has one.

    An older record of the same table stays.
    """
    since: dict[str, datetime] = {}
    for change in changes:
        since.setdefault(change.table_name, change.captured_at)
    tables = sorted(since)  # in one order, so that two shards cannot wait for each other
    execute(using, _RECORD, [consumer, tables, [since[table] for table in tables]])


def report_passed(using: str, consumer: str, tables: Iterable[str]) -> Mapping[str, datetime]:
    """Append a gap for each of these tables whose changes the consumer has skipped; return since when, by table."""
    with transaction.atomic(using=using):
        found = dict(sorted(map(aware_row, rows(using, _FORGET, [consumer, list(tables)]))))
        for table, since in found.items():
            append_gap(using, table, Cause.MODEL_MISSING, since, consumer)  # other consumers may have had the model
        if found:
            wake(using)
    return found
