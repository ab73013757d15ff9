"""The table of minutes: what the workers did in each of the last 96 hours' minutes.

Each process appends its own rows, so several rows may have the same minute and consumer: :func:`merged` adds them up.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from hc_signals.log.histogram import Histogram
from hc_signals.postgres.moments import aware
from hc_signals.postgres.query import execute, relation_exists, rows

_T = TypeVar("_T")

KEPT_HOURS = 96
"""Hours after which a row is deleted: as many as the log's buckets hold."""

_APPEND = "INSERT INTO public.hc_signals_minute (minute, consumer, figures) VALUES (%s, %s, %s::json)"
_READ = """
SELECT minute, consumer, figures::text FROM public.hc_signals_minute
WHERE minute >= %s AND (%s::timestamptz IS NULL OR minute < %s) ORDER BY minute, id
"""
# DELETE, and no partitions as the log has: that is a row or two per minute and process. A snapshot that someone holds
# for a day leaves some thousand dead rows in a table that is read by an index of times.
_FORGET = "DELETE FROM public.hc_signals_minute WHERE minute < clock_timestamp() - make_interval(hours => %s)"
_FRESH = """
SELECT (figures -> 'freshness')::text FROM public.hc_signals_minute
WHERE minute >= %s AND figures -> 'freshness' IS NOT NULL
"""
_NEWEST = """
SELECT key, max(value::float8) FROM public.hc_signals_minute, json_each_text(figures -> 'newest') GROUP BY key
"""
_FORGET_CONSUMER = "DELETE FROM public.hc_signals_minute WHERE consumer = %s"


class ReceiverMinute(NamedTuple):
    """The calls of one receiver in one minute, also those in pages that were not committed."""

    calls: int = 0
    failures: int = 0
    """Calls that raised."""
    seconds: float = 0.0
    """Duration of all calls together."""


@dataclass(frozen=True)
class Minute:
    """What one consumer's workers did in one minute: in one process, or in several after :func:`merged`."""

    at: datetime
    """Start of the minute, aware."""
    consumer: str
    changes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Delivered changes, by table (as the log names it), then by operation (as the log has it)."""
    latency: Histogram = field(default_factory=Histogram)
    """Seconds from the capture of these changes to the call of their receivers."""
    receivers: Mapping[str, ReceiverMinute] = field(default_factory=dict)
    """By the receiver's name."""
    lag: float | None = None
    """Age in seconds of the oldest undelivered change at the end of the minute, 0 without any; None: not read."""
    log_bytes: int | None = None
    """Size of the log on disk at the end of the minute; None: not read."""
    freshness: Mapping[str, Histogram] = field(default_factory=dict)
    """By table: seconds from Salesforce's systemmodstamp to the capture, of a sample of the delivered changes."""
    newest: Mapping[str, float] = field(default_factory=dict)
    """By table: the newest systemmodstamp that the samples have had, as Unix time."""


def exists(using: str) -> bool:
    """Return whether the database has the table: it has none until migration 0003 has run."""
    return relation_exists(using, "public.hc_signals_minute")


def append(using: str, minute: Minute) -> None:
    """Append one row."""
    execute(using, _APPEND, [minute.at, minute.consumer, json.dumps(_stored(minute), separators=(",", ":"))])


def read(using: str, since: datetime, until: datetime | None = None) -> list[Minute]:
    """Return the minutes that began at ``since`` or later and before ``until``, of all processes, ordered by time."""
    return [_restored(aware(at), *row) for at, *row in rows(using, _READ, [since, until, until])]


def freshness(using: str, since: datetime) -> dict[str, Histogram]:
    """Return ``freshness`` of all minutes since then, by table, of all consumers and processes together."""
    found = (
        {t: Histogram.restored(h) for t, h in json.loads(text).items()} for (text,) in rows(using, _FRESH, [since])
    )
    return {table: Histogram.merged(each) for table, each in _by_key(found)}


def newest_stamps(using: str) -> dict[str, float]:
    """Return ``newest`` of all minutes, by table the highest."""
    return dict(rows(using, _NEWEST))


def forget_old(using: str) -> int:
    """Delete the rows that are older than KEPT_HOURS; return how many."""
    return execute(using, _FORGET, [KEPT_HOURS])


def forget_consumer(using: str, consumer: str) -> None:
    """Delete the rows of a consumer that is removed; a database without the table has none."""
    if exists(using):
        execute(using, _FORGET_CONSUMER, [consumer])


def merged(minutes: Iterable[Minute], step: timedelta) -> list[Minute]:
    """Return one minute per step and consumer, ordered by time; its ``at`` is the start of the step.

    Counts are added up. ``lag`` is the highest of the step, ``log_bytes`` the newest.
    """

    def key(minute: Minute) -> tuple[datetime, str]:
        return datetime.fromtimestamp(minute.at.timestamp() // seconds * seconds, UTC), minute.consumer

    seconds = step.total_seconds()
    found = sorted(minutes, key=attrgetter("at"))
    return [_sum(list(group), *start) for start, group in groupby(sorted(found, key=key), key)]


def _sum(minutes: list[Minute], at: datetime, consumer: str) -> Minute:
    lags = [each.lag for each in minutes if each.lag is not None]
    sizes = [each.log_bytes for each in minutes if each.log_bytes is not None]
    return Minute(
        at,
        consumer,
        changes={table: _sum_of_counts(each) for table, each in _by_key(each.changes for each in minutes)},
        latency=Histogram.merged(each.latency for each in minutes),
        receivers={name: _sum_of_calls(calls) for name, calls in _by_key(each.receivers for each in minutes)},
        lag=max(lags, default=None),
        log_bytes=sizes[-1] if sizes else None,
        freshness={table: Histogram.merged(each) for table, each in _by_key(each.freshness for each in minutes)},
        newest={table: max(stamps) for table, stamps in _by_key(each.newest for each in minutes)},
    )


def _sum_of_counts(found: list[Mapping[str, int]]) -> dict[str, int]:
    return {operation: sum(counts) for operation, counts in _by_key(found)}


def _sum_of_calls(found: list[ReceiverMinute]) -> ReceiverMinute:
    return ReceiverMinute(
        sum(each.calls for each in found), sum(each.failures for each in found), sum(each.seconds for each in found)
    )


def _by_key(mappings: Iterable[Mapping[str, _T]]) -> Iterable[tuple[str, list[_T]]]:
    """Return each key of the mappings with its values."""
    found: dict[str, list[_T]] = defaultdict(list)
    for mapping in mappings:
        for key, value in mapping.items():
            found[key].append(value)
    return found.items()


def _stored(minute: Minute) -> dict[str, Any]:
    """Return the figures as JSON, without those that are empty."""
    figures = {
        "changes": minute.changes,
        "latency": minute.latency.stored() if minute.latency.count else None,
        "receivers": {name: [c.calls, c.failures, round(c.seconds, 6)] for name, c in minute.receivers.items()},
        "lag": None if minute.lag is None else round(minute.lag, 3),
        "log_bytes": minute.log_bytes,
        "freshness": {table: histogram.stored() for table, histogram in minute.freshness.items()},
        "newest": minute.newest,
    }
    return {name: value for name, value in figures.items() if value not in (None, {})}


def _restored(at: datetime, consumer: str, text: str) -> Minute:
    figures = json.loads(text)
    return Minute(
        at,
        consumer,
        changes=figures.get("changes", {}),
        latency=Histogram.restored(figures["latency"]) if "latency" in figures else Histogram(),
        receivers={name: ReceiverMinute(*calls) for name, calls in figures.get("receivers", {}).items()},
        lag=figures.get("lag"),
        log_bytes=figures.get("log_bytes"),
        freshness={table: Histogram.restored(stored) for table, stored in figures.get("freshness", {}).items()},
        newest=figures.get("newest", {}),
    )
