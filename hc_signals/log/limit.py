"""Keeps the log below MAX_LOG_MB: delivered changes go before their time, then the backlog of who is furthest behind.

A backlog is only dropped where its space comes back at once: new positions and TRUNCATE of the oldest bucket that it
holds up are one transaction. What was dropped is told as a gap by the consumer's next delivery.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import OperationalError, connections, transaction

from hc_signals.log.backlog import Backlog, backlog
from hc_signals.log.changelog import ChangeLog
from hc_signals.log.consumers import shards_of
from hc_signals.log.position import Position
from hc_signals.log.rotation import (
    OLD,
    SIZE,
    empty_bucket,
    filled,
    rotate_bucket,
    size_mb,
    unread,
)
from hc_signals.postgres.errors import is_lock_timeout
from hc_signals.postgres.moments import now, shown

logger = logging.getLogger("hc_signals")

IN_HAND = timedelta(minutes=10)
"""A consumer whose oldest undelivered change is younger is at work: its backlog is not what fills the disk."""
CLAIM_SECONDS = 5.0
"""For so long each shard of a consumer is waited for; if it is busy even then, nothing is dropped this time."""
PATIENCE = 2.0
"""For so many seconds a moment is sought in which nobody uses the bucket; nobody has to wait meanwhile."""


_IS_DUE = f"""
SELECT EXISTS ({OLD}) OR ({SIZE}) > %(megabytes)s
    OR (SELECT max_bucket_bytes FROM public.hc_signals_control) IS DISTINCT FROM %(limit)s
"""


class _NotNow(Exception):
    """The space would not come back now: everything stays as it is."""


@dataclass(frozen=True)
class _Dropped:
    consumer: str
    backlog: Backlog
    since: datetime
    until: datetime


def is_due(using: str, retention_hours: float, megabytes: int) -> bool:
    """Tell in one query whether there is anything to be emptied, or a new limit to be told."""
    params = {"seconds": retention_hours * 3600, "megabytes": megabytes, "limit": _bucket_bytes(megabytes)}
    with connections[using].cursor() as cursor:
        cursor.execute(_IS_DUE, params)
        return bool(cursor.fetchone()[0])


def _bucket_bytes(megabytes: int) -> int:
    return megabytes * 2**20 // 2


def tell_limit(using: str, megabytes: int) -> None:
    """Tell the capture functions, which keep the newest bucket below half of the limit whether or not a worker lives.

    Args:
        megabytes: MAX_LOG_MB.
    """
    limit = _bucket_bytes(megabytes)
    with connections[using].cursor() as cursor:
        cursor.execute(
            "UPDATE public.hc_signals_control SET max_bucket_bytes = %s WHERE max_bucket_bytes IS DISTINCT FROM %s",
            [limit, limit],
        )


def keep_below(using: str, megabytes: int) -> bool:
    """Free space until the log is no larger than the limit. Call it outside a transaction.

    Args:
        megabytes: MAX_LOG_MB, in units of 2**20 bytes.

    Returns:
        whether that was possible; if not, it was logged and is worth another look soon.
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
    """Move all who hold up a bucket to the present, and empty it; False if that cannot be now."""
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
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{CLAIM_SECONDS}s"])
    names = [name for name, is_unread in unread(using, bucket).items() if is_unread]
    shards = {name: shards_of(using, name) for name in names}
    for logs in shards.values():
        for log in logs:
            log.claim(wait=True)
        if not logs or logs[0].standing().layout != len(logs):
            raise _NotNow  # removed or split anew while we waited
    # Before LOCK TABLE, which takes a transaction id, and before the backlog is looked at: what is committed in between
    # is counted and still comes.
    log = ChangeLog(using, "")
    present = log.close_window(log.open_window(log.standing()))
    dropped = [_move(name, logs, present) for name, logs in shards.items()]
    if not dropped or not empty_bucket(using, bucket, PATIENCE):
        raise _NotNow  # something was committed into it since
    return [each for each in dropped if each.backlog.count]


def _move(name: str, logs: list[ChangeLog], present: Position) -> _Dropped:
    found, moment = backlog(logs), now()
    dropped = _Dropped(name, found, found.since or moment, moment)
    if found.count and moment - dropped.since < IN_HAND:
        raise _NotNow
    for log in logs:
        before = log.standing().position
        gap = _gap(before.gap, dropped) if log.shard == 0 and found.count else before.gap
        log.append(replace(present, lost=before.lost, gap=gap))
    return dropped


def _gap(before: Mapping[str, Any] | None, dropped: _Dropped) -> dict[str, Any]:
    """Return the gap to tell; one that is still to be told becomes part of it."""
    since: datetime | None = dropped.since
    if before is not None:
        since = min(dropped.since, datetime.fromisoformat(before["since"])) if before.get("since") else None
    return {
        "cause": "backlog_dropped",
        "since": since.isoformat() if since else None,
        "until": dropped.until.isoformat(),
    }
