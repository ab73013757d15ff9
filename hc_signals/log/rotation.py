"""The ring of buckets: those whose changes are old and done by every consumer are emptied by TRUNCATE."""

import time

from django.db import OperationalError, connections, transaction

from hc_signals.log.schema import BUCKETS, bucket_table
from hc_signals.postgres.errors import is_lock_timeout

_NEWEST = " UNION ALL ".join(
    f"(SELECT {bucket}, captured_at FROM {bucket_table(bucket)} ORDER BY id DESC LIMIT 1)" for bucket in range(BUCKETS)
)
OLD = f"""
SELECT bucket FROM ({_NEWEST}) newest (bucket, captured_at)
WHERE captured_at < clock_timestamp() - make_interval(secs => %(seconds)s)
"""
"""The buckets that are not empty and whose newest change is older."""
# Everything visible must be visible in what each consumer has seen. ORDER BY holds the planner to the index: it expects
# that xid >= xmax is true for many rows, so it would read the whole bucket for the one that is not there.
_UNREAD = """
SELECT consumer, bool_or(
    (SELECT xid FROM {table} ORDER BY xid DESC, id DESC LIMIT 1) >= pg_snapshot_xmax(p.seen)
    OR EXISTS (
        SELECT 1 FROM pg_snapshot_xip(p.seen) open (x), LATERAL (
            SELECT 1 FROM {table}
            WHERE xid BETWEEN open.x AND open.x ORDER BY xid, id LIMIT 1) found))
FROM public.hc_signals_newest_position p GROUP BY consumer ORDER BY consumer
"""
_NOTE_EMPTIED = """
UPDATE public.hc_signals_control
SET emptied_id = greatest(emptied_id, c.id), emptied_at = greatest(emptied_at, c.captured_at)
FROM (SELECT id, captured_at FROM {table} ORDER BY id DESC LIMIT 1) c
"""
SIZE = """
SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::float8 / 1048576
FROM pg_inherits WHERE inhparent = 'public.hc_signals_change'::regclass
"""
"""What the log takes on disk, in units of 2**20 bytes."""


def rotate(using: str, retention_hours: float) -> list[int]:
    """Empty the buckets whose changes are all older than the retention and done by every consumer.

    TRUNCATE needs its lock at once: a bucket that somebody reads (a backup, say) is left for the next time. Call it
    outside a transaction.

    Returns:
        the buckets that were emptied.
    """
    return [bucket for bucket in _old(using, retention_hours) if rotate_bucket(using, bucket, retention_hours)]


def rotate_bucket(using: str, bucket: int, retention_hours: float, patience: float = 0.0) -> bool:
    """Empty one bucket, as :func:`rotate` does; False if it is empty, younger, not done by everyone, or in use.

    Args:
        patience: seconds for which a moment is sought in which nobody uses it.
    """
    # Looked at before the lock is taken as well: writers of the present bucket should not wait for nothing.
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
    with connections[using].cursor() as cursor:
        cursor.execute(OLD, {"seconds": hours * 3600})
        return [row[0] for row in cursor.fetchall()]


def empty_bucket(using: str, bucket: int, patience: float = 0.0) -> bool:
    """Empty a bucket if everyone is done with it. Belongs into a transaction.

    Args:
        patience: as in :func:`rotate_bucket`.

    Raises:
        OperationalError: somebody uses the bucket (:func:`is_lock_timeout` tells).
    """
    table = bucket_table(bucket)
    lock_free_table(using, table, patience)
    if not is_done(using, bucket):
        return False
    with connections[using].cursor() as cursor:
        cursor.execute(_NOTE_EMPTIED.format(table=table))
        cursor.execute(f"TRUNCATE {table}")
    return True


def lock_free_table(using: str, table: str, patience: float) -> None:
    """Lock a table for this transaction alone, at a moment in which nobody uses it.

    It is tried again and again and never waited for: whoever comes after a waiting TRUNCATE would wait too.

    Args:
        patience: seconds for which such a moment is sought.

    Raises:
        OperationalError: there was none (:func:`is_lock_timeout` tells).
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            with transaction.atomic(using=using), connections[using].cursor() as cursor:
                cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")
                return
        except OperationalError as error:
            if not is_lock_timeout(error) or time.monotonic() >= deadline:
                raise
        time.sleep(0.02)


def unread(using: str, bucket: int) -> dict[str, bool]:
    """Return for every consumer whether the bucket holds something that it is not done with."""
    with connections[using].cursor() as cursor:
        cursor.execute(_UNREAD.format(table=bucket_table(bucket)))
        return dict(cursor.fetchall())


def is_done(using: str, bucket: int) -> bool:
    """Tell whether there are consumers and all are done with the bucket."""
    found = unread(using, bucket)
    return bool(found) and not any(found.values())


def held_up_by(using: str, retention_hours: float) -> set[str]:
    """Return the consumers but for which a bucket could be emptied."""
    found: set[str] = set()
    for bucket in _old(using, retention_hours):
        found |= {consumer for consumer, is_unread in unread(using, bucket).items() if is_unread}
    return found


def size_mb(using: str) -> float:
    """Return the size of the log on disk, indexes and all, in units of 2**20 bytes."""
    with connections[using].cursor() as cursor:
        cursor.execute(SIZE)
        return float(cursor.fetchone()[0])


def filled(using: str) -> list[int]:
    """Return the buckets that are not empty, the one with the oldest change first."""
    oldest = []
    with connections[using].cursor() as cursor:
        for bucket in range(BUCKETS):
            cursor.execute(f"SELECT min(id) FROM {bucket_table(bucket)}")
            oldest.append((cursor.fetchone()[0], bucket))
    return [bucket for first, bucket in sorted(pair for pair in oldest if pair[0] is not None)]
