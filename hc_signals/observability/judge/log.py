"""The log: gaps in it, its size, and who keeps old changes from being removed."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from django.db import connections

from hc_signals.conf import Conf
from hc_signals.log.consumers import Consumer
from hc_signals.log.limit import newest_bucket
from hc_signals.log.rotation import filled, size_mb
from hc_signals.observability.findings import Finding, fine, problem
from hc_signals.postgres.moments import age, aware_row, now

RECENT_CHANGES = 10_000
"""Gaps are looked for among so many of the newest changes: there is no index that knows them."""
RECENT = timedelta(hours=24)
LARGE = 0.8

# OFFSET 0: the newest are taken first, whatever the planner thinks of looking for gaps by themselves.
_GAPS = """
SELECT table_name, coalesce(note ->> 'cause', lower(operation)), count(*), max(captured_at) FROM (
    SELECT table_name, operation, note, captured_at FROM public.hc_signals_change ORDER BY id DESC LIMIT %s OFFSET 0
) newest WHERE operation IN ('GAP', 'TRUNCATE') AND captured_at > %s GROUP BY 1, 2 ORDER BY 4 DESC
"""
_LOST = """
SELECT CASE WHEN l.is_called THEN l.last_value ELSE 0 END - coalesce(
    (SELECT min(lost) FROM public.hc_signals_newest_position WHERE shard = 0), 0)
FROM public.hc_signals_lost_seq l
"""
_OLDEST = "SELECT captured_at FROM public.hc_signals_change_{bucket} ORDER BY id LIMIT 1"


def gaps(using: str) -> Iterator[Finding]:
    """Look for changes that were missed: those still to be told, and those told of late."""
    ((lost,),) = _rows(using, _LOST, [])
    if lost > 0:
        yield problem("gaps-lost", "gaps", f"{lost} statement(s) were not captured, and it is not told yet", lost=lost)
    found = _rows(using, _GAPS, [RECENT_CHANGES, now() - RECENT])
    for table, cause, count, last in found:
        text = f"{table}: {count} ({cause}), the last {age(last)} ago"
        yield problem("gaps-recent", "gaps", text, table=table, cause=cause, count=count, last=last)
    if not found and lost <= 0:
        yield fine("gaps", f"none in {age(now() - RECENT)}, among the newest {RECENT_CHANGES} changes")


def retention(using: str, found: Sequence[Consumer], conf: Conf) -> Iterator[Finding]:
    """Look at the size of the log, and who holds up its rotation."""
    size, limit = size_mb(using), conf.MAX_LOG_MB
    buckets = filled(using)
    oldest = _rows(using, _OLDEST.format(bucket=buckets[0]), [])[0][0] if buckets else None
    text = f"{size:.1f} of {limit} MB" + (f", the oldest change {age(oldest)} old" if oldest else ", empty")
    facts = {"mb": round(size, 1), "max_mb": limit, "oldest": oldest, "buckets": len(buckets)}
    if size > limit:
        yield problem("log-too-large", "log", text, **facts)
    elif size > LARGE * limit:
        yield problem("log-large", "log", text, **facts)
    else:
        yield fine("log", text, **facts)
    yield from _bucket(using)
    for consumer in found:
        if consumer.holds_up_rotation:
            text = f"{consumer.name} holds up the rotation: changes older than {conf.RETENTION_HOURS:g} h must stay"
            yield problem("log-held-up", "log", text, consumer=consumer.name)


def _bucket(using: str) -> Iterator[Finding]:
    most, size = newest_bucket(using)
    if most and size > most * 0.95:
        text = f"the newest bucket has {size / 2**20:.0f} of {most / 2**20:.0f} MB: capture stops there"
        yield problem("log-bucket-full", "log", text, bytes=size, max_bytes=most)


def _rows(using: str, sql: str, params: Any) -> list[Any]:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, params)
        return [aware_row(row) for row in cursor.fetchall()]
