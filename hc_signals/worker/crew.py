"""The workers of one process: one thread each, with a connection of its own; one doorbell, one thread for chores."""

import threading

from django.db import connections

from hc_signals.conf import Conf
from hc_signals.delivery.fatal_calls import end_run
from hc_signals.observing import as_worker
from hc_signals.postgres.connecting import own_options
from hc_signals.worker.chores import Chores
from hc_signals.worker.doorbell import Doorbell
from hc_signals.worker.loop import Worker
from hc_signals.worker.watchdog import Watchdog


class Crew:
    """Delivers with several threads until stopped.

    Args:
        using: database alias.
        conf: the checked setting.
        size: threads; more than there are shards would have nothing to do.
        stopping: ends all threads when it is set; default: a new one.
    """

    CHORES_TIMEOUT = 3.0
    """Seconds for which a chore may go on after the last event; then its transaction ends with the process."""

    def __init__(self, using: str, conf: Conf, size: int, stopping: threading.Event | None = None) -> None:
        self.using, self.conf, self.size = using, conf, size
        self.stopping = threading.Event() if stopping is None else stopping
        self.delivered = 0
        self.unheard = 0
        """Of the delivered changes, those to which no receiver is connected."""
        self.bell: Doorbell | None = None
        """What all sleep at; None before the start."""
        self.watchdog = Watchdog(using)
        self._guard = threading.Lock()
        self._errors: list[BaseException] = []

    def run(self) -> None:
        """Deliver until ``stopping`` is set.

        Raises:
            BaseException: what a worker could not survive; the others end after their current event.
        """
        bell = Doorbell(self.using, self.stopping.is_set, self.conf.CONSUMER)
        self.watchdog.watch("the doorbell", lambda: bell.connection, progress=lambda: bell.state().heard_at)
        self.watchdog.start()
        try:
            self._run_at(bell)
        finally:
            self.watchdog.end()
            end_run(self.using)
        if self._errors:
            raise self._errors[0]

    def _run_at(self, bell: Doorbell) -> None:
        with bell:
            self.bell = bell
            others = [
                threading.Thread(target=self._work, args=(bell, number), name=f"hc_listen-{number}")
                for number in range(1, self.size)
            ]
            chores = Chores(self.using, self.conf, self.stopping, self.watchdog)
            for thread in (*others, chores):
                thread.start()
            self._work(bell, 0)
            for thread in others:
                thread.join()
            chores.join(timeout=self.CHORES_TIMEOUT)

    def _work(self, bell: Doorbell, number: int) -> None:
        try:
            # As far apart as there is room: who begins right behind another finds his shards claimed, one by one.
            first = number * self.conf.SHARDS // self.size
            worker = Worker(self.using, self.conf, stopping=self.stopping, first=first, is_process=True)
            with as_worker(number) as work, own_options(self.using):
                own = connections[self.using]
                self.watchdog.watch(
                    f"worker {number}",
                    lambda: own.connection,
                    progress=lambda: work.rounds,
                    in_receiver=lambda: work.receiver is not None,
                )
                self.watchdog.watch(
                    f"worker {number}, by which it reads ahead,",
                    lambda: worker.side.awaited,
                    progress=lambda: work.rounds,
                )
                self.watchdog.watch(
                    f"worker {number}, by which it holds its claim,",
                    lambda: worker.claims.awaited,
                    progress=lambda: work.rounds,
                )
                worker.run(bell)
            with self._guard:
                self.delivered += worker.delivered
                self.unheard += worker.unheard
        except BaseException as error:
            self._errors.append(error)
            self.stopping.set()
        finally:
            connections[self.using].close()
