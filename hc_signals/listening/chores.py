"""What a worker process does now and then beside delivering, in a thread of its own: no change waits for it."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError, connections

from hc_signals.capture.reloads import finish_reloads
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import Rereading
from hc_signals.conf import Conf
from hc_signals.listening.watchdog import Watchdog
from hc_signals.log.log_limit import keep_below, tell_limit
from hc_signals.log.rotation import rotate
from hc_signals.tables import connected_models

logger = logging.getLogger("hc_signals")

ROTATE_EVERY = 600.0
ROTATE_AGAIN = 60.0
"""Seconds until the next try where the log is larger than MAX_LOG_MB and nothing could be freed."""
RELOADS_EVERY = 30.0
REREAD_SECONDS = 5.0
"""For so long pages are read again before the other chores have their turn."""


@dataclass
class Chore:
    """One of them, and when it is done next."""

    name: str
    do: Callable[[], float]
    """Does it and returns the seconds until the next time."""
    due: float = 0.0


class Chores(threading.Thread):
    """Does each chore when its time has come. What fails is logged and tried again.

    Every process does them; those that must be done once take turns by locks of their own.

    Args:
        using: database alias.
        conf: the checked setting.
        stopping: ends the thread.
        watchdog: looks after their connection.
    """

    AFTER_FAILURE = 10.0

    def __init__(self, using: str, conf: Conf, stopping: threading.Event, watchdog: Watchdog | None = None) -> None:
        super().__init__(name="hc_listen-chores", daemon=True)
        self.using, self.conf, self.stopping, self.watchdog = using, conf, stopping, watchdog
        self.done = 0
        models = connected_models()
        self._repairs, self._rereading = Repairs(using, conf, models), Rereading(using, models)
        self.chores = [
            Chore("watch over capture", self._watch),
            Chore("rotation of the log", self._rotate),
            Chore("end of reloads", self._finish_reloads),
        ]

    def run(self) -> None:
        """Do chores until stopped; the connection is closed between them."""
        own = connections[self.using]
        if self.watchdog is not None:
            self.watchdog.watch("the chores", lambda: own.connection, progress=lambda: self.done)
        while not self.stopping.is_set():
            for chore in self.chores:
                if chore.due <= time.monotonic() and not self.stopping.is_set():
                    self._do(chore)
            connections[self.using].close()
            next_due = min(chore.due for chore in self.chores)
            self.stopping.wait(max(0.0, next_due - time.monotonic()))

    def _do(self, chore: Chore) -> None:
        pause = self.AFTER_FAILURE
        try:
            pause = chore.do()
            self.done += 1
        except (DatabaseError, InterfaceError) as error:
            logger.warning("The %s failed (%s); it is tried again.", chore.name, type(error).__name__)
            connections[self.using].close()
        chore.due = time.monotonic() + pause

    def _rotate(self) -> float:
        tell_limit(self.using, self.conf.MAX_LOG_MB)
        for bucket in rotate(self.using, self.conf.RETENTION_HOURS):
            logger.info("Bucket %s of the change log was emptied.", bucket)
        return ROTATE_EVERY if keep_below(self.using, self.conf.MAX_LOG_MB) else ROTATE_AGAIN

    def _finish_reloads(self) -> float:
        for table in finish_reloads(self.using, self.conf):
            logger.info("The reload of %s is over.", table)
        return RELOADS_EVERY

    def _watch(self) -> float:
        pause = self._repairs.look()
        if self._repairs.is_reread_due and not self._rereading.read_for(REREAD_SECONDS):
            return 0.0
        return pause
