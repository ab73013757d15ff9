"""The ring of buckets: those whose changes are old and done by every consumer are emptied by TRUNCATE."""

from django.db import OperationalError, connections, transaction

BUCKETS = 8
BUCKET_HOURS = 12
"""As in migrations_sql/0001_change_log.sql: a bucket comes round again after BUCKETS x BUCKET_HOURS."""

_OLD_ENOUGH = """
SELECT captured_at < clock_timestamp() - make_interval(secs => %s) FROM public.hc_signals_change_{bucket}
ORDER BY id DESC LIMIT 1
"""
# Everything visible must be visible in what each consumer has seen: two probes of the index per position.
_UNREAD = """
SELECT consumer, bool_or(
    EXISTS (SELECT 1 FROM public.hc_signals_change_{bucket} WHERE xid >= pg_snapshot_xmax(p.seen))
    OR EXISTS (SELECT 1 FROM public.hc_signals_change_{bucket}
               WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(p.seen)))))
FROM public.hc_signals_newest_position p GROUP BY consumer ORDER BY consumer
"""


def rotate(using: str, retention_hours: float) -> list[int]:
    """Empty the buckets whose changes are all older than the retention and done by every consumer.

    TRUNCATE needs its lock at once: a bucket that somebody reads (a backup, say) is left for the next time. Call it
    outside a transaction.

    Returns:
        the buckets that were emptied.
    """
    return [bucket for bucket in range(BUCKETS) if rotate_bucket(using, bucket, retention_hours)]


def rotate_bucket(using: str, bucket: int, retention_hours: float = 0.0) -> bool:
    """Empty one bucket, as :func:`rotate` does; False if it is empty, younger, not done by everyone, or in use."""
    with connections[using].cursor() as cursor:
        cursor.execute(_OLD_ENOUGH.format(bucket=bucket), [retention_hours * 3600])
        # Looked at before the lock is taken as well: writers of the present bucket should not wait for nothing.
        if cursor.fetchone() != (True,) or not is_done(using, bucket):
            return False
    try:
        with transaction.atomic(using=using):
            return empty_bucket(using, bucket)
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return False


def empty_bucket(using: str, bucket: int) -> bool:
    """Empty a bucket if everyone is done with it. Belongs into a transaction.

    Raises:
        OperationalError: somebody uses the bucket.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(f"LOCK TABLE public.hc_signals_change_{bucket} IN ACCESS EXCLUSIVE MODE NOWAIT")
        if not is_done(using, bucket):
            return False
        cursor.execute(f"TRUNCATE public.hc_signals_change_{bucket}")
        return True


def unread(using: str, bucket: int) -> dict[str, bool]:
    """Return for every consumer whether the bucket holds something that it is not done with."""
    with connections[using].cursor() as cursor:
        cursor.execute(_UNREAD.format(bucket=bucket))
        return dict(cursor.fetchall())


def is_done(using: str, bucket: int) -> bool:
    """Tell whether there are consumers and all are done with the bucket."""
    found = unread(using, bucket)
    return bool(found) and not any(found.values())


def is_lock_timeout(error: OperationalError) -> bool:
    """Tell whether a lock could not be had in time."""
    return getattr(error.__cause__, "sqlstate", None) == "55P03"
