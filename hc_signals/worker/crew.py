"""The threads of a worker process: its workers, each with a connection of its own; chores and watchdog beside them."""

import threading
from collections.abc import Sequence
from functools import partial

from django.db import connections

from hc_signals.conf import Conf
from hc_signals.delivery.counting import Counting
from hc_signals.delivery.fatal_calls import end_run
from hc_signals.delivery.pulse import Pulse, observe, unobserve
from hc_signals.postgres.own_connections import own_options
from hc_signals.worker.chores import Chore, Chores
from hc_signals.worker.doorbell import Doorbell
from hc_signals.worker.loop import Worker
from hc_signals.worker.threads import as_worker
from hc_signals.worker.watchdog import Watchdog


class Crew:
    """Delivers with several threads until stopped.

    More workers (``size``) than there are shards would have nothing to do. ``chores`` are done beside the worker's own.
    """

    CHORES_TIMEOUT = 3.0
    """Most seconds that a chore may go on after the last event; then its transaction ends with the process."""

    def __init__(
        self,
        using: str,
        conf: Conf,
        size: int,
        stopping: threading.Event | None = None,
        chores: Sequence[Chore] = (),
    ) -> None:
        self.using, self.conf, self.size, self.chores = using, conf, size, chores
        self.stopping = threading.Event() if stopping is None else stopping
        self.bell: Doorbell | None = None
        """None before :meth:`run`."""
        self.watchdog = Watchdog(using)
        self.counting = Counting()
        """Counts the work of the crew while it runs."""
        self._guard = threading.Lock()
        # A worker that ends writes all below, under the guard.
        self.delivered = self.unheard = 0
        """Delivered changes, and those of them that have no receiver."""
        self._errors: list[BaseException] = []

    def run(self) -> None:
        """Deliver until ``stopping`` is set. Raises the error that ended a worker, after the others have ended too."""
        bell = Doorbell(self.using, self.stopping.is_set, self.conf.CONSUMER)
        self.watchdog.watch("the doorbell", lambda: bell.awaited, progress=lambda: bell.state().heard_at)
        self.watchdog.start()
        observe(self.counting)
        try:
            self._run_at(bell)
        finally:
            unobserve(self.counting)
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
            chores = Chores(self.using, self.conf, self.stopping, self.watchdog, self.counting, others=self.chores)
            for thread in (*others, chores):
                thread.start()
            self._work(bell, 0)
            for thread in others:
                thread.join()
            chores.end(self.CHORES_TIMEOUT)

    def _work(self, bell: Doorbell, number: int) -> None:
        try:
            # Spread the first shards: a worker that starts next to another finds one claimed shard after another.
            first = number * self.conf.SHARDS // self.size
            with as_worker(number) as pulse, own_options(self.using):
                worker = Worker(
                    self.using, self.conf, stopping=self.stopping, first=first, is_process=True, pulse=pulse
                )
                self._watch(number, worker, pulse)
                worker.run(bell)
            with self._guard:
                self.delivered += worker.delivered
                self.unheard += worker.unheard
        except BaseException as error:
            with self._guard:
                self._errors.append(error)
            self.stopping.set()
        finally:
            connections[self.using].close()

    def _watch(self, number: int, worker: Worker, pulse: Pulse) -> None:
        own = connections[self.using]
        watch = partial(self.watchdog.watch, progress=lambda: pulse.rounds)
        watch(f"worker {number}", lambda: own.connection, in_receiver=lambda: pulse.receiver is not None)
        watch(f"worker {number} for reading ahead", lambda: worker.side.awaited)
        watch(f"worker {number} for its claim", lambda: worker.claims.awaited)
