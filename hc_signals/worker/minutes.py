"""Appends to the table of minutes what this process has counted, with gauges and freshness that the database knows."""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from django.db import DatabaseError, transaction

from hc_signals.capture.reloads import under_way
from hc_signals.conf import Conf
from hc_signals.delivery.counting import MINUTE, Counting, Counts, this_minute
from hc_signals.log import minutes
from hc_signals.log.backlog import backlog
from hc_signals.log.freshness import Freshness, Stamped, stamped
from hc_signals.log.minutes import Minute, ReceiverMinute
from hc_signals.log.positions import shards_of
from hc_signals.log.rotation import size_mb
from hc_signals.postgres.errors import prevents_reading
from hc_signals.postgres.limits import own_limits
from hc_signals.postgres.moments import now
from hc_signals.postgres.query import execute

logger = logging.getLogger("hc_signals")

FORGET_EVERY = 600.0
"""Seconds between two deletions of old minutes."""
STATEMENT_TIMEOUT, LOCK_TIMEOUT = "5s", "1s"
"""Longest that a statement may take, and wait for a lock: the other chores, or the end of the process, wait for it."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Gauges:
    """What the database says at the end of a minute; see :class:`~hc_signals.log.minutes.Minute`."""

    lag: float
    log_bytes: int


class Minutes:
    """Appends the minutes of one process to the table. It is used in the thread of the chores."""

    def __init__(self, using: str, conf: Conf, counting: Counting) -> None:
        self.using, self.conf, self.counting = using, conf, counting
        self._freshness: Freshness | None = None
        """None until the first sample."""
        self._gauges: Gauges | None = None
        """Those of the last row; at the start, those of the start."""
        self._forget_at = 0.0
        """When old minutes are deleted next, by the monotonic clock."""

    def append(self) -> float:
        """Append the minutes that are over; return the seconds until the next one is. Errors of the database go on."""
        self._append(before=this_minute())
        if time.monotonic() >= self._forget_at:
            minutes.forget_old(self.using)
            self._forget_at = time.monotonic() + FORGET_EVERY
        # Several processes need not come at the same time.
        return MINUTE - time.time() % MINUTE + random.uniform(0.5, 3.0)  # noqa: S311  (not for secrets)

    def append_last(self) -> None:
        """Append the present minute too, at the end of the process. No error keeps it from ending."""
        try:
            self._append(before=this_minute() + MINUTE)
        except Exception as error:
            logger.debug("The last minute could not be stored (%s).", type(error).__name__)

    def _append(self, before: int) -> None:
        gauges = self._read(self._find_gauges)
        waiting = self.counting.waiting(before)
        for minute, counts in waiting:
            if counts.sample:
                self._read(partial(self._measure, minute, counts))
        is_news = not waiting and self._gauges not in (None, gauges)
        counted = [(before - MINUTE, Counts())] if is_news else waiting
        found = [self._minute(*pair, gauges if pair is counted[-1] else None) for pair in counted]
        if found:  # an idle worker has nothing to append
            with self._limited():
                for each in found:
                    minutes.append(self.using, each)
        self._gauges = gauges
        for minute, _ in waiting:
            self.counting.done(minute)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        with transaction.atomic(using=self.using):
            execute(
                self.using, own_limits(is_local=True, statement_timeout=STATEMENT_TIMEOUT, lock_timeout=LOCK_TIMEOUT)
            )
            yield

    def _read(self, find: Callable[[], _T]) -> _T | None:
        """Return what ``find`` reads; None if the server is too busy, or the role lacks a right."""
        try:
            with self._limited():
                return find()
        except DatabaseError as error:
            if not prevents_reading(error):
                raise
            return None

    def _find_gauges(self) -> Gauges:
        oldest = (backlog([shard], 1).since for shard in shards_of(self.using, self.conf.CONSUMER))
        since = min(filter(None, oldest), default=None)
        lag = max(0.0, (now() - since).total_seconds()) if since else 0.0
        return Gauges(lag, round(size_mb(self.using) * 2**20))

    def _measure(self, minute: int, counts: Counts) -> None:
        """Read the freshness of a minute's sample."""
        if self._freshness is None:
            self._freshness = Freshness(minutes.newest_stamps(self.using))
        ids = [number for sample in counts.sample.values() for number in sample.ids]
        reloads = {reload.table: reload.since.timestamp() for reload in under_way(self.using)}
        found = self._freshness.of(each for each in stamped(self.using, ids) if not _is_reloaded(each, reloads))
        self.counting.measured(minute, found, {table: self._freshness.newest[table] for table in found})

    def _minute(self, minute: int, counts: Counts, gauges: Gauges | None) -> Minute:
        changes: dict[str, dict[str, int]] = {}
        for (table, operation), count in counts.changes.items():
            changes.setdefault(table, {})[operation] = count
        return Minute(
            datetime.fromtimestamp(minute, UTC),
            self.conf.CONSUMER,
            changes=changes,
            latency=counts.latency,
            receivers={
                name: ReceiverMinute(each.count, counts.failures[name], each.sum)
                for name, each in counts.receivers.items()
            },
            lag=gauges.lag if gauges else None,
            log_bytes=gauges.log_bytes if gauges else None,
            freshness=counts.freshness,
            newest=counts.newest,
        )


def _is_reloaded(change: Stamped, reloads: Mapping[str, float]) -> bool:
    """Return whether the change was captured while its table was being filled again."""
    return change.captured >= reloads.get(change.table, float("inf"))
