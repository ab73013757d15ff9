"""Reads the figures for the metrics that only the database knows: backlog, deliveries, capture, size of the log.

A thread with a connection of its own does so: neither a scrape nor ``/healthz`` waits for the database.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from django.db import connections

from hc_signals.conf import Conf
from hc_signals.observability.survey import Consumer, Survey, limited
from hc_signals.postgres.own_connections import own_options
from hc_signals.worker import threads
from hc_signals.worker.threads import Helper, keep_turning
from hc_signals.worker.watchdog import Watchdog

COUNT_LIMIT = 10_000
"""Most undelivered changes that are counted: the count is repeated, also while the database is busy."""


@dataclass(frozen=True)
class Figures:
    """The figures of one consumer and its database at one time."""

    at: float
    """Unix time."""
    consumer: Consumer
    drift: Mapping[str, bool]
    """By table: True if its capture is not as it should be."""
    log_bytes: float

    @property
    def lags(self) -> list[float]:
        """Seconds since the capture of each shard's oldest undelivered change; 0 without any."""
        return [max(0.0, self.at - each.since.timestamp()) if each.since else 0.0 for each in self.consumer.by_shard]


def figures(using: str, conf: Conf) -> Figures:
    """Read the figures of the configured consumer."""
    survey = Survey(using, conf, COUNT_LIMIT)
    return Figures(
        at=time.time(),
        consumer=survey.consumer(conf.CONSUMER),
        drift={status.table: status.state != "installed" for status in survey.statuses},
        log_bytes=survey.log_mb * 2**20,
    )


class Surveyor:
    """Reads the figures every SECONDS in a thread of its own, and keeps the newest; ``watchdog`` watches it."""

    SECONDS = 15.0
    """Seconds between two readings."""
    BEFORE_START = 0.5
    """Seconds between two checks whether a worker has begun."""

    def __init__(self, using: str, conf: Conf, watchdog: Watchdog) -> None:
        self.using, self.conf, self.watchdog = using, conf, watchdog
        self.newest: Figures | None = None
        """None before the first reading and after one that failed: no figures are better than old ones."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hc_listen-survey", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; a reading that is running has one second to end."""
        self._stopping.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        own = connections[self.using]
        self.watchdog.watch("the survey", lambda: own.connection, progress=lambda: self.newest)
        with own_options(self.using):
            keep_turning("survey", self._turn, self._stopping)
            own.close()

    def _turn(self, helper: Helper) -> float:
        if not threads.workers():  # if connections are few, the first one is for delivering
            return self.BEFORE_START
        try:
            self.newest = self._look()
        except BaseException:
            self.newest = None
            connections[self.using].close()
            raise
        return self.SECONDS

    def _look(self) -> Figures:
        with limited(self.using):
            return figures(self.using, self.conf)
