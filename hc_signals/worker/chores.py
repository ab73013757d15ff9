"""What a worker process does now and then beside delivering, in a thread of its own: no change waits for it."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import connections

from hc_signals.capture.reloads import finish_reloads
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import Rereading
from hc_signals.conf import Conf
from hc_signals.log.limit import is_due, keep_below, store_limit
from hc_signals.log.rotation import rotate
from hc_signals.observing import Helper
from hc_signals.postgres.connecting import answers, fail_fast_at_the_server, lift_limits, own_options
from hc_signals.postgres.trouble import Trouble
from hc_signals.tables import connected_models
from hc_signals.worker.helper_threads import keep_turning
from hc_signals.worker.watchdog import Watchdog

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
    trouble: Trouble = field(init=False)

    def __post_init__(self) -> None:
        self.trouble = Trouble(f"The {self.name}", longest=60.0)


class Chores(threading.Thread):
    """Does each chore when its time has come. One that fails is tried again, and keeps no other from its turn.

    Every process does them; those that must be done once take turns by locks of their own.

    Args:
        using: database alias.
        conf: the checked setting.
        stopping: ends the thread.
        watchdog: looks after their connection.
    """

    AFTER_FAILURE = 10.0
    """Least seconds until a chore that failed is tried again."""
    ANSWER_SECONDS = 5.0

    def __init__(self, using: str, conf: Conf, stopping: threading.Event, watchdog: Watchdog | None = None) -> None:
        super().__init__(name="hc_listen-chores", daemon=True)
        self.using, self.conf, self.stopping, self.watchdog = using, conf, stopping, watchdog
        self.done = 0
        models = connected_models()
        self._repairs, self._rereading = Repairs(using, conf, models), Rereading(using, models)
        self._reloads = Chore("end of reloads", self._finish_reloads)
        # The watch comes first: it sees as well whether there is a reload to be ended.
        self.chores = [
            Chore("watch over capture", self._watch),
            Chore("rotation of the log", self._rotate),
            self._reloads,
        ]

    def run(self) -> None:
        """Do chores until stopped, on one connection: a new one costs the server more than what is done with it."""
        own = connections[self.using]
        if self.watchdog is not None:
            self.watchdog.watch("the chores", lambda: own.connection, progress=lambda: self.done)
        with own_options(self.using):
            keep_turning("chores", self._turn, self.stopping)
            own.close()

    def _turn(self, helper: Helper) -> float:
        if len(helper.troubles) == 1:  # its loop's own
            helper.troubles += [chore.trouble for chore in self.chores]
        self.do_what_is_due()
        return max(0.0, min(chore.due for chore in self.chores) - time.monotonic())

    def do_what_is_due(self) -> None:
        """Do each chore whose time has come."""
        for chore in self.chores:
            if chore.due <= time.monotonic() and not self.stopping.is_set():
                self._do(chore)

    def _do(self, chore: Chore) -> None:
        try:
            self._connect()
            pause = chore.do()
        except Exception as error:  # whatever it is, the other chores have their turn
            pause = max(self.AFTER_FAILURE, chore.trouble.happens(error))
            connections[self.using].close()
        else:
            self.done += 1
            chore.trouble.ends()
        chore.due = time.monotonic() + pause

    def _connect(self) -> None:
        """Have a connection that answers: one that was kept may have ended, or say nothing any more."""
        connection = connections[self.using]
        if connection.connection is not None and not answers(self.using, self.ANSWER_SECONDS):
            connection.close()
        if connection.connection is None and fail_fast_at_the_server(connection, self.conf.CONSUMER, "chores"):
            lift_limits(connection)

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
        pause = self._repairs.look()
        if not self._repairs.is_refilling:
            self._reloads.due = time.monotonic() + RELOADS_EVERY + 1.0  # behind the next look, as a rule
        if self._repairs.is_reread_due and not self._rereading.read_for(REREAD_SECONDS):
            return 0.0
        return pause
