"""Looks now and then at what only the database knows, for the metrics: backlog, deliveries, capture, size.

A thread with a connection of its own: a scrape, and above all a look at the health, never waits for the database.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from django.db import connections, transaction

from hc_signals.capture import triggers
from hc_signals.conf import Conf
from hc_signals.log.backlog import Backlog, backlog
from hc_signals.log.consumers import delivery_counts
from hc_signals.log.positions import shards_of
from hc_signals.log.presence import workers
from hc_signals.log.rotation import size_mb
from hc_signals.postgres.limits import own_limits
from hc_signals.postgres.moments import now
from hc_signals.postgres.own_connections import own_options
from hc_signals.postgres.query import execute
from hc_signals.tables import connected_models
from hc_signals.worker import threads
from hc_signals.worker.threads import Helper, keep_turning
from hc_signals.worker.watchdog import Watchdog

COUNT_LIMIT = 10_000
"""So many undelivered changes are counted: it is done again and again, also where the database has enough to do."""
STATEMENT_TIMEOUT = "5s"
"""No look may take longer: better no figure than a burden."""


@dataclass(frozen=True)
class Survey:
    """What was found, for one consumer."""

    at: float
    """When, as a Unix time."""
    backlogs: Mapping[int, Backlog]
    """By shard."""
    lags: Mapping[int, float]
    """By shard: the age of the oldest undelivered change in seconds, 0 without any."""
    deliveries: Mapping[str, int]
    """Failed ones by state."""
    drift: Mapping[str, bool]
    """By table: whether its capture is not as it should be."""
    log_bytes: float
    workers: int
    """Connections of workers that live, in all processes."""


def survey(using: str, consumer: str) -> Survey:
    """Look once."""
    logs, present = shards_of(using, consumer), now()
    backlogs = {log.shard: backlog([log], COUNT_LIMIT // len(logs)) for log in logs}
    ages = {n: (present - found.since).total_seconds() if found.since else 0.0 for n, found in backlogs.items()}
    models = connected_models()
    states = [triggers.compare(model, found) for model, found in zip(models, triggers.find(models, using), strict=True)]
    return Survey(
        at=time.time(),
        backlogs=backlogs,
        lags={shard: max(0.0, age) for shard, age in ages.items()},
        deliveries=dict.fromkeys(("retry", "parked", "dead"), 0) | delivery_counts(using, consumer),
        drift={status.table: status.state != "installed" for status in states},
        log_bytes=size_mb(using) * 2**20,
        workers=workers(using, consumer),
    )


class Surveyor:
    """Looks every SECONDS in a thread of its own, and keeps the newest survey.

    Args:
        using: database alias.
        conf: the checked setting.
        watchdog: looks after its connection.
    """

    SECONDS = 15.0
    BEFORE_START = 0.5
    """Seconds between two looks whether a worker has begun."""

    def __init__(self, using: str, conf: Conf, watchdog: Watchdog) -> None:
        self.using, self.conf, self.watchdog = using, conf, watchdog
        self.newest: Survey | None = None
        """None before the first and after a look that failed: no figure is better than an old one."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hc_listen-survey", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a look that is under way is not waited for for long."""
        self._stopping.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        own = connections[self.using]
        self.watchdog.watch("the survey", lambda: own.connection, progress=lambda: self.newest)
        with own_options(self.using):
            keep_turning("survey", self._turn, self._stopping)
            own.close()

    def _turn(self, helper: Helper) -> float:
        if not threads.workers():  # where connections are few, the first one is for delivering
            return self.BEFORE_START
        try:
            self.newest = self._look()
        except BaseException:
            self.newest = None
            connections[self.using].close()
            raise
        return self.SECONDS

    def _look(self) -> Survey:
        # In one transaction: limits that are set for longer could stay in the session of a pooler.
        with transaction.atomic(using=self.using):
            execute(self.using, own_limits(is_local=True, statement_timeout=STATEMENT_TIMEOUT))
            return survey(self.using, self.conf.CONSUMER)
