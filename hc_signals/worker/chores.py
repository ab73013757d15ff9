"""The chores of a worker process, in a thread of their own: no change waits for them."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from django.db import connections

from hc_signals.capture.reloads import finish_reloads
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import Rereading
from hc_signals.conf import Conf
from hc_signals.delivery.counting import Counting
from hc_signals.log import record
from hc_signals.log.limit import is_due, keep_below, store_limit
from hc_signals.log.rotation import rotate, rotate_calls
from hc_signals.log.schema import BUCKETS
from hc_signals.postgres.limits import own_limits
from hc_signals.postgres.own_connections import own_options, set_up_session
from hc_signals.postgres.query import execute
from hc_signals.postgres.sessions import answers_sync
from hc_signals.postgres.trouble import Trouble
from hc_signals.tables import connected_models
from hc_signals.worker.minutes import Minutes
from hc_signals.worker.threads import Helper, keep_turning
from hc_signals.worker.watchdog import Watchdog

logger = logging.getLogger("hc_signals")

ROTATE_EVERY = 600.0
"""Seconds between two rotations of the log."""
ROTATE_AGAIN = 60.0
"""Seconds until the next rotation if the log is larger than MAX_LOG_MB and nothing could be emptied."""
RELOADS_EVERY = 30.0
"""Seconds between two checks whether a reload is over."""
INDEX_EVERY = 600.0
"""Seconds between two turns of the index of records while the log does not grow."""
INDEX_AGAIN = 30.0
"""Seconds between two turns while it grows."""
REREAD_SECONDS = 5.0
"""Most seconds of reading rows again before the other chores have their turn."""


class Chore:
    """A task that is done from time to time; ``do`` does it and returns the seconds until the next time."""

    def __init__(self, name: str, do: Callable[[], float]) -> None:
        self.name, self.do = name, do
        self.due = 0.0
        """When it is done next, by the monotonic clock."""
        self.trouble = Trouble(f"The {name}", longest=60.0)


class Chores(threading.Thread):
    """Does each chore when it is due. A chore that fails is retried, and keeps no other chore from its turn.

    Every process does all chores. Two processes that do the same one take turns by locks of the chore.
    """

    AFTER_FAILURE = 10.0
    """Least seconds until a chore that failed is retried."""

    def __init__(
        self,
        using: str,
        conf: Conf,
        stopping: threading.Event,
        watchdog: Watchdog | None = None,
        counting: Counting | None = None,
        *,
        others: Iterable[Chore] = (),
    ) -> None:
        super().__init__(name="hc_listen-chores", daemon=True)
        self.using, self.conf, self.stopping, self.watchdog = using, conf, stopping, watchdog
        self.done = 0
        """How many chores were done; shows the watchdog that the thread makes progress."""
        models = connected_models()
        self._repairs, self._rereading = Repairs(using, conf, models), Rereading(using, models)
        self._reloads = Chore("end of reloads", self._finish_reloads)
        # The watch comes first: it also sees whether a reload has to be ended.
        watch, rotation = Chore("watch over capture", self._watch), Chore("rotation of the log", self._rotate)
        self._summarized = [0] * BUCKETS
        """How much of each bucket the index of records has: see :func:`hc_signals.log.record.summarize`."""
        self.chores = [watch, rotation, self._reloads, Chore("index of records", self._index), *others]
        self._minutes = None if counting is None else Minutes(using, conf, counting)
        if self._minutes is not None:
            self.chores.append(Chore("record of minutes", self._minutes.append))
        self._all_delivered = threading.Event()
        self._is_ours = False
        """The session belongs to our connection alone."""

    def run(self) -> None:
        """Do chores until stopped, on one connection: a new one for each chore would cost the server more."""
        own = connections[self.using]
        if self.watchdog is not None:
            self.watchdog.watch("the chores", lambda: own.connection, progress=lambda: self.done)
        with own_options(self.using):
            troubles = [chore.trouble for chore in self.chores]
            keep_turning("chores", self._turn, self.stopping, troubles=troubles)
            if self._minutes is not None:
                self._all_delivered.wait()
                self._minutes.append_last()
            own.close()

    def end(self, timeout: float) -> None:
        """Wait ``timeout`` seconds at most until the thread has ended; call it when all workers have ended."""
        self._all_delivered.set()
        self.join(timeout)

    def _turn(self, helper: Helper) -> float:
        self.do_what_is_due()
        return max(0.0, min(chore.due for chore in self.chores) - time.monotonic())

    def do_what_is_due(self) -> None:
        """Do each chore that is due."""
        for chore in self.chores:
            if chore.due <= time.monotonic() and not self.stopping.is_set():
                self._do(chore)

    def _do(self, chore: Chore) -> None:
        try:
            self._connect()
            pause = chore.do()
        except Exception as error:  # any error: the other chores must have their turn
            pause = max(self.AFTER_FAILURE, chore.trouble.happens(error))
            connections[self.using].close()
        else:
            self.done += 1
            chore.trouble.ends()
        chore.due = time.monotonic() + pause

    def _connect(self) -> None:
        """Reconnect if the connection has ended since the last chore; if it is unresponsive, the watchdog breaks it."""
        connection = connections[self.using]
        if connection.connection is not None and not self._is_usable(connection):
            connection.close()
        if connection.connection is None:
            self._is_ours = set_up_session(connection, self.conf.CONSUMER, "chores")
            if self._is_ours:
                execute(self.using, own_limits(is_local=False))

    def _is_usable(self, connection: Any) -> bool:
        # Django asks by a query. A pooler would answer a bare Sync itself, whatever has become of the server.
        return answers_sync(connection.connection) if self._is_ours else bool(connection.is_usable())

    def _index(self) -> float:
        if not record.exists(self.using):
            return INDEX_EVERY
        rotate_calls(self.using, self.conf.RETENTION_HOURS)
        before, self._summarized = self._summarized, record.summarize(self.using, self._summarized)
        return INDEX_EVERY if self._summarized == before else INDEX_AGAIN

    def _rotate(self) -> float:
        if not is_due(self.using, self.conf.RETENTION_HOURS, self.conf.MAX_LOG_MB):
            return ROTATE_EVERY
        store_limit(self.using, self.conf.MAX_LOG_MB)
        for bucket in rotate(self.using, self.conf.RETENTION_HOURS):
            logger.info("Bucket %s of the change log was emptied.", bucket)
        return ROTATE_EVERY if keep_below(self.using, self.conf.MAX_LOG_MB) else ROTATE_AGAIN

    def _finish_reloads(self) -> float:
        finish_reloads(self.using, self.conf)
        return RELOADS_EVERY

    def _watch(self) -> float:
        pause = self._repairs.run()
        if not self._repairs.is_refilling:
            self._reloads.due = time.monotonic() + RELOADS_EVERY + 1.0  # after the next watch, as a rule
        if self._repairs.is_reread_due and not self._rereading.read_for(REREAD_SECONDS):
            return 0.0
        return pause
