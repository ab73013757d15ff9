"""Empties old buckets of the log by TRUNCATE, once every consumer has got their changes."""

import time

from django.db import OperationalError, transaction

from hc_signals.log.schema import BUCKET_SECONDS, BUCKETS, bucket_table
from hc_signals.postgres.errors import is_lock_timeout
from hc_signals.postgres.query import execute, row, rows

RETRY_SECONDS = 0.02
"""Seconds between two attempts to lock a busy table."""

_NEWEST = " UNION ALL ".join(
    f"(SELECT {bucket}, captured_at FROM {bucket_table(bucket)} ORDER BY id DESC LIMIT 1)" for bucket in range(BUCKETS)
)
OLD = f"""
SELECT bucket FROM ({_NEWEST}) newest (bucket, captured_at)
WHERE captured_at < clock_timestamp() - make_interval(secs => %(seconds)s)
"""
"""The buckets with changes, all of them older than ``seconds``."""
# Each change visible now must be visible in what each consumer has seen. ORDER BY holds the planner to the index. It
# expects many rows with xid >= xmax, and would read the whole bucket to find none.
_UNREAD = """
SELECT consumer, bool_or(
    (SELECT xid FROM {table} ORDER BY xid DESC, id DESC LIMIT 1) >= pg_snapshot_xmax(p.seen)
    OR EXISTS (
        SELECT 1 FROM pg_snapshot_xip(p.seen) open (x), LATERAL (
            SELECT 1 FROM {table}
            WHERE xid BETWEEN open.x AND open.x ORDER BY xid, id LIMIT 1) found))
FROM public.hc_signals_newest_position p GROUP BY consumer ORDER BY consumer
"""
_RECORD_EMPTIED = """
UPDATE public.hc_signals_control
SET emptied_id = greatest(emptied_id, c.id), emptied_at = greatest(emptied_at, c.captured_at)
FROM (SELECT id, captured_at FROM {table} ORDER BY id DESC LIMIT 1) c
"""
SIZE = """
SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::float8 / 1048576
FROM pg_inherits WHERE inhparent IN ('public.hc_signals_change'::regclass, to_regclass('public.hc_signals_heard'))
"""
"""The log's size on disk, with indexes and the calls of receivers, in units of 2**20 bytes."""
_MAY_EMPTY = """
SELECT coalesce(pg_relation_size(to_regclass(%(table)s)) > 0
                AND has_table_privilege(to_regclass(%(table)s), 'TRUNCATE'), false)
"""


def rotate(using: str, retention_hours: float) -> list[int]:
    """Empty and return the buckets whose changes are all older than the retention and delivered to every consumer.

    Call it outside a transaction. TRUNCATE never waits for its lock, so a bucket that a backup reads, say, stays until
    the next time.
    """
    return [bucket for bucket in _old(using, retention_hours) if rotate_bucket(using, bucket, retention_hours)]


def rotate_bucket(using: str, bucket: int, retention_hours: float, patience: float = 0.0) -> bool:
    """Empty one bucket as :func:`rotate` does; False if it is young, undelivered, or busy for ``patience`` seconds."""
    # Checked before the lock is taken as well, so that writers of the newest bucket do not wait for nothing.
    if bucket not in _old(using, retention_hours) or not is_done(using, bucket):
        return False
    try:
        with transaction.atomic(using=using):
            return empty_bucket(using, bucket, patience)
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return False


def _old(using: str, hours: float) -> list[int]:
    return [bucket for (bucket,) in rows(using, OLD, {"seconds": hours * 3600})]


def rotate_calls(using: str, retention_hours: float) -> list[int]:
    """Empty and return the buckets of calls that are older than the retention; a busy one stays until the next time.

    Most are emptied with the same bucket of the log; this one had no change. Call it outside a transaction.
    """
    (now,) = row(using, "SELECT extract(epoch FROM clock_timestamp())::float8")
    present = int(now // BUCKET_SECONDS)
    ended = {slot % BUCKETS: now - (slot + 1) * BUCKET_SECONDS for slot in range(present - BUCKETS + 1, present)}
    return [bucket for bucket in sorted(ended) if ended[bucket] >= retention_hours * 3600 and _rotated(using, bucket)]


def _rotated(using: str, bucket: int) -> bool:
    try:
        with transaction.atomic(using=using):
            return _empty_calls(using, bucket, patience=0.0)
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return False


def _empty_calls(using: str, bucket: int, patience: float) -> bool:
    """Empty a bucket of calls, inside a transaction; False if it is empty, or this role may not."""
    table = f"public.hc_signals_heard_{bucket}"
    if not row(using, _MAY_EMPTY, {"table": table})[0]:
        return False
    lock_free_table(using, table, patience)
    execute(using, f"TRUNCATE {table}")
    return True


def empty_bucket(using: str, bucket: int, patience: float = 0.0) -> bool:
    """Empty a bucket, inside a transaction; False if a consumer has not got all of it. See :func:`lock_free_table`.

    The same bucket of calls goes with it: a receiver hears of a change after its capture, so they are about this bucket
    and older ones.
    """
    table = bucket_table(bucket)
    lock_free_table(using, table, patience)
    if not is_done(using, bucket):
        return False
    execute(using, _RECORD_EMPTIED.format(table=table))
    execute(using, f"TRUNCATE {table}")
    _empty_calls(using, bucket, patience)
    return True


def lock_free_table(using: str, table: str, patience: float) -> None:
    """Lock a table for this transaction alone, by LOCK ... NOWAIT: writers would queue behind a lock that waits.

    It retries for ``patience`` seconds, and raises OperationalError (:func:`is_lock_timeout`) if the table stays busy.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            with transaction.atomic(using=using):
                execute(using, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")
                return
        except OperationalError as error:
            if not is_lock_timeout(error) or time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_SECONDS)


def unread(using: str, bucket: int) -> dict[str, bool]:
    """Return for every consumer whether the bucket has a change that it has not got."""
    return dict(rows(using, _UNREAD.format(table=bucket_table(bucket))))


def is_done(using: str, bucket: int) -> bool:
    """Return whether there are consumers and all have got the whole bucket."""
    found = unread(using, bucket)
    return bool(found) and not any(found.values())


def held_up_by(using: str, retention_hours: float) -> set[str]:
    """Return the consumers that keep an old bucket from being emptied."""
    found: set[str] = set()
    for bucket in _old(using, retention_hours):
        found |= {consumer for consumer, is_unread in unread(using, bucket).items() if is_unread}
    return found


def size_mb(using: str) -> float:
    """Return the log's size on disk, with indexes and the calls of receivers, in units of 2**20 bytes."""
    return float(row(using, SIZE)[0])


def filled(using: str) -> list[int]:
    """Return the buckets that are not empty, in order of their oldest changes."""
    oldest = [(row(using, f"SELECT min(id) FROM {bucket_table(bucket)}")[0], bucket) for bucket in range(BUCKETS)]
    return [bucket for first, bucket in sorted(pair for pair in oldest if pair[0] is not None)]
