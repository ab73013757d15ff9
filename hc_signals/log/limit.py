"""Keeps the log below MAX_LOG_MB: first removes delivered changes early, then drops backlogs.

A backlog is dropped only if its space is free at once: one transaction moves the consumers that hold up the oldest
bucket and truncates it. The next delivery of such a consumer reports a gap.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import OperationalError, transaction

from hc_signals.log.backlog import Backlog, backlog
from hc_signals.log.claims import Claim, claim_all
from hc_signals.log.position import LogShard, Position
from hc_signals.log.positions import read_standing, shards_of
from hc_signals.log.rotation import OLD, SIZE, empty_bucket, filled, rotate_bucket, size_mb, unread
from hc_signals.log.schema import Cause
from hc_signals.log.window import close_window, open_window
from hc_signals.postgres.errors import is_lock_timeout
from hc_signals.postgres.moments import now, shown
from hc_signals.postgres.query import execute, row

logger = logging.getLogger("hc_signals")

KEEPING_UP = timedelta(minutes=10)
"""Never drop the backlog of a consumer whose oldest undelivered change is younger than this."""
CLAIM_SECONDS = 5.0
"""Seconds to wait for each shard of a consumer; if it stays busy, nothing is dropped this time."""
PATIENCE = 2.0
"""Seconds to retry LOCK ... NOWAIT on a busy bucket. Writers never queue behind us."""

_IS_DUE = f"""
SELECT EXISTS ({OLD}) OR ({SIZE}) > %(megabytes)s
    OR (SELECT max_bucket_bytes FROM public.hc_signals_control) IS DISTINCT FROM %(limit)s
"""
_SET_LIMIT = """
UPDATE public.hc_signals_control SET max_bucket_bytes = %(limit)s WHERE max_bucket_bytes IS DISTINCT FROM %(limit)s
"""
# The size that hc_signals_admit() compares with the limit.
_NEWEST_BUCKET = """
SELECT c.max_bucket_bytes, pg_relation_size(p.oid) + coalesce(pg_relation_size(nullif(p.reltoastrelid, 0)), 0)
FROM public.hc_signals_control c, pg_class p
WHERE p.oid = to_regclass('public.hc_signals_change_' || public.hc_signals_bucket())
"""


class _NotNow(Exception):
    """The space would not be free now, so nothing changes."""


@dataclass(frozen=True)
class _Dropped:
    consumer: str
    backlog: Backlog
    since: datetime
    until: datetime


def is_due(using: str, retention_hours: float, megabytes: int) -> bool:
    """Return, by one query, whether a bucket may have to be emptied or MAX_LOG_MB to be stored."""
    params = {"seconds": retention_hours * 3600, "megabytes": megabytes, "limit": _bucket_bytes(megabytes)}
    return bool(row(using, _IS_DUE, params)[0])


def _bucket_bytes(megabytes: int) -> int:
    return megabytes * 2**20 // 2


def store_limit(using: str, megabytes: int) -> None:
    """Store MAX_LOG_MB for the capture functions: they keep the newest bucket below half of it without a worker."""
    execute(using, _SET_LIMIT, {"limit": _bucket_bytes(megabytes)})


def newest_bucket(using: str) -> tuple[int | None, int]:
    """Return the bytes at which capture into the newest bucket stops, None without a limit; and its bytes now."""
    limit, size = row(using, _NEWEST_BUCKET) or (None, 0)
    return limit, size


def keep_below(using: str, megabytes: int) -> bool:
    """Free space until the log has no more than MAX_LOG_MB, in units of 2**20 bytes. Call it outside a transaction.

    It returns False if that was not possible: it is logged, and the caller should try again soon.
    """
    while (size := size_mb(using)) > megabytes:
        buckets = filled(using)
        if any(_empty_early(using, bucket, size, megabytes) for bucket in buckets):
            continue
        held_up = next((bucket for bucket in buckets if any(unread(using, bucket).values())), None)
        if held_up is None or not _drop_backlogs(using, held_up, megabytes):
            logger.error(
                "The change log has %.0f MB, more than MAX_LOG_MB = %s, and nothing can be freed now: its oldest "
                "changes are being read or written, or a consumer is at work on them.",
                size,
                megabytes,
            )
            return False
    return True


def _empty_early(using: str, bucket: int, size: float, megabytes: int) -> bool:
    emptied = rotate_bucket(using, bucket, retention_hours=0, patience=PATIENCE)
    if emptied:
        logger.warning(
            "The change log has %.0f MB, more than MAX_LOG_MB = %s: the delivered changes of bucket %s were removed "
            "before RETENTION_HOURS.",
            size,
            megabytes,
            bucket,
        )
    return emptied


def _drop_backlogs(using: str, bucket: int, megabytes: int) -> bool:
    """Move all consumers that hold up a bucket to the present, and empty it; False if that is not possible now."""
    try:
        with transaction.atomic(using=using):
            dropped = _drop(using, bucket)
    except _NotNow:
        return False
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return False
    for each in dropped:
        logger.error(
            "The change log is larger than MAX_LOG_MB = %s: consumer %r has lost its backlog of %s changes, captured "
            "from %s to %s. Its next delivery sends gap_detected for every model.",
            megabytes,
            each.consumer,
            each.backlog,
            shown(each.since),
            shown(each.until),
        )
    return True


def _drop(using: str, bucket: int) -> list[_Dropped]:
    execute(using, "SELECT set_config('lock_timeout', %s, true)", [f"{CLAIM_SECONDS}s"])
    names = [name for name, is_unread in unread(using, bucket).items() if is_unread]
    claims = {name: claim_all(shards_of(using, name)) for name in names}
    if any(not claimed or claimed[0].standing.layout != len(claimed) for claimed in claims.values()):
        raise _NotNow  # removed, or given other shards, while we waited
    # Opened before LOCK TABLE takes a transaction id, and before the backlog is counted: a change that commits in
    # between is counted and is still delivered.
    present = close_window(open_window(using, read_standing(LogShard(using, ""))))
    dropped = [_move(name, claimed, present) for name, claimed in claims.items()]
    if not dropped or not empty_bucket(using, bucket, PATIENCE):
        raise _NotNow  # a change was committed into the bucket since
    return [each for each in dropped if each.backlog.count]


def _move(name: str, claims: list[Claim], present: Position) -> _Dropped:
    found, moment = backlog(claim.shard for claim in claims), now()
    dropped = _Dropped(name, found, found.since or moment, moment)
    if found.count and moment - dropped.since < KEEPING_UP:
        raise _NotNow
    for claim in claims:
        before = claim.standing.position
        gap = _gap(before.gap, dropped) if claim.shard.shard == 0 and found.count else before.gap
        claim.append(replace(present, lost=before.lost, gap=gap))
    return dropped


def _gap(before: Mapping[str, Any] | None, dropped: _Dropped) -> dict[str, Any]:
    """Return the gap to report; an unreported one becomes part of it."""
    since: datetime | None = dropped.since
    if before is not None:
        since = min(dropped.since, datetime.fromisoformat(before["since"])) if before.get("since") else None
    until = dropped.until.isoformat()
    return {"cause": Cause.BACKLOG_DROPPED, "since": since.isoformat() if since else None, "until": until}
