"""The loop of a worker: deliver a page of every shard that has changes, then sleep."""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from django.db import Error, connections
from django.db.models import Model

from hc_signals.conf import Conf
from hc_signals.delivery import fatal_calls
from hc_signals.delivery.ahead import Ahead
from hc_signals.delivery.failures import waiting_shards
from hc_signals.delivery.instances import Builders
from hc_signals.delivery.listeners import Extras
from hc_signals.delivery.pulse import Pulse
from hc_signals.delivery.shard import Audience, Outcome, Shard
from hc_signals.log.claims import Claim, Claims
from hc_signals.log.layout import take_layout
from hc_signals.log.position import LogShard
from hc_signals.log.presence import announce
from hc_signals.log.restoring import RESTORED, moved, take_over
from hc_signals.log.schema import require_current
from hc_signals.postgres import wrappers
from hc_signals.postgres.dates import clamp_dates
from hc_signals.postgres.errors import Kind, kind_of, sqlstate
from hc_signals.postgres.held_lock import HeldLock
from hc_signals.postgres.limits import own_limits
from hc_signals.postgres.own_connections import SERVER, application_name, set_up_session, show_trouble
from hc_signals.postgres.query import execute, row
from hc_signals.postgres.side_connection import SideConnection
from hc_signals.tables import connected_models
from hc_signals.worker.doorbell import Doorbell

logger = logging.getLogger("hc_signals")


class Worker:
    """Delivers the changes of one database to this process's receivers. Belongs to one thread.

    Args:
        models: connected models whose changes are delivered; default: all.
        stopping: set when the loop is to end after the present event.
        first: the shard with which it begins its rounds.
        is_process: the worker runs in a worker process, whose death the next worker must know of.
    """

    STANDBY_PAUSE = 0.25
    """Seconds between two tries to claim a shard that another worker has."""

    def __init__(
        self,
        using: str,
        conf: Conf,
        models: Iterable[type[Model]] | None = None,
        *,
        stopping: threading.Event | None = None,
        first: int = 0,
        is_process: bool = False,
        pulse: Pulse | None = None,
    ) -> None:
        models = connected_models() if models is None else list(models)
        self.using, self.conf, self.first = using, conf, first
        self.stopping = threading.Event() if stopping is None else stopping
        self.pulse = Pulse() if pulse is None else pulse
        self._audience = Audience(
            builders=Builders(models, using),
            extras=Extras.of(conf, models),
        )
        self.claims = HeldLock(using, application_name(conf.CONSUMER, "claim"))
        """Hold the claim of a shard if ``ATOMIC`` is False."""
        self.side = SideConnection(using, self._prepare_side)
        logs = LogShard.all_of(using, conf.CONSUMER, conf.SHARDS)
        self.shards = [self._shard(log, Claims(self.claims), conf) for log in logs]
        self._old_delivered = self._old_unheard = 0
        """Changes delivered from the shards of a layout that was left."""
        self._elsewhere: set[int] = set()
        self._until_retry: float | None = None
        self._prepared: Any = None
        self._took_layout = False
        self._is_process, self._is_standby, self._is_ours = is_process, False, False

    @property
    def delivered(self) -> int:
        """The number of delivered changes."""
        return self._old_delivered + sum(shard.delivered for shard in self.shards)

    @property
    def unheard(self) -> int:
        """The number of delivered changes that have no receiver."""
        return self._old_unheard + sum(shard.unheard for shard in self.shards)

    def run(self, bell: Doorbell) -> None:
        """Deliver until stopped; an error of the database does not end the loop."""
        with wrappers.set_aside(self.using), self.reading_ahead(), closing(self.claims):
            while not self.stopping.is_set():
                self.pulse.turn()
                wrappers.forget_queries()
                try:
                    self.prepare()
                    self._deliver_and_sleep(bell)
                    self.pulse.trouble.ends()
                except Error as error:
                    self._pause_after(error, bell)

    def _pause_after(self, error: Error, bell: Doorbell) -> None:
        """Wait before the next try, which has a new connection, whatever the error was.

        The old session is in doubt: its settings, its role, its server. After a failover its server may be read-only.
        """
        pause = self.pulse.trouble.happens(error)
        connection, is_lost = connections[self.using], kind_of(error) is Kind.LOST
        self.side.close()
        self.claims.close()
        if is_lost:
            self.pulse.reconnects += 1
            connection.close()
        elif self._is_ours:
            show_trouble(connection, self.conf.CONSUMER, sqlstate(error) or "")
        bell.doze(pause, self.pulse)
        connection.close()

    def deliver_once(self, *, ahead: bool = True) -> None:
        """Deliver all changes that are committed now, except those of shards that another worker has."""
        reading = self.reading_ahead() if ahead else nullcontext()
        with wrappers.set_aside(self.using), reading, closing(self.claims):
            self.prepare()
            for shard in self.shards:
                finished = shard.finished
                while not self.stopping.is_set() and shard.finished == finished:
                    if ahead:  # else a test may want to read them
                        wrappers.forget_queries()
                    if shard.deliver_page() in (Outcome.ELSEWHERE, Outcome.REMOVED, Outcome.MOVED):
                        break

    @contextmanager
    def reading_ahead(self) -> Iterator[None]:
        """Read the next page over a second connection while receivers run, during the block."""
        for shard in self.shards:
            shard.ahead = Ahead(shard.log, self.side, self._audience.builders)
        try:
            yield
        finally:
            for shard in self.shards:
                shard.ahead = None
            self.side.close()

    def _deliver_and_sleep(self, bell: Doorbell) -> None:
        """Deliver one round; then sleep, unless there is more."""
        outcomes = self._deliver_round()
        self.pulse.end_round()
        if Outcome.REMOVED in outcomes.values():  # by `hc_consumers remove --force`: restart from START_AT
            self._took_layout = False
        if {Outcome.REMOVED, Outcome.MOVED} & set(outcomes.values()):
            return
        self._elsewhere = {number for number, outcome in outcomes.items() if outcome is Outcome.ELSEWHERE}
        self._is_standby = len(self._elsewhere) == len(self.shards)
        if self._is_standby:
            # A standby must not hold the bell's lock, or writers would notify although a worker is awake.
            bell.doze(self.STANDBY_PAUSE, self.pulse)
        elif Outcome.MORE not in outcomes.values():
            self.side.close()  # only a backlog has more than one page
            bell.sleep(self._is_waiting, self._until_next_read, self.pulse)

    def _deliver_round(self) -> dict[int, Outcome]:
        """Deliver one page of every shard that has something to deliver."""
        waiting = {0} if len(self.shards) == 1 else self._waiting()
        outcomes = {}
        for shard in self.shards[self.first :] + self.shards[: self.first]:
            if shard.log.shard in waiting and not self.stopping.is_set():
                self._prepare_connection()
                if self._is_standby:
                    self._mark_calls_of_dead_processes()
                outcomes[shard.log.shard] = outcome = shard.deliver_page()
                if outcome is Outcome.MOVED:  # under an open session: promoted, or changed by a pooler
                    self._prepared = None
        return outcomes

    def _is_waiting(self) -> bool:
        """Return True if there is anything to deliver; shards that another worker has count from the second read on."""
        is_waiting = bool(self._waiting() - self._elsewhere)
        self.pulse.trouble.ends()  # the last round was delivered, and the database answers
        return is_waiting

    def _until_next_read(self) -> float:
        if self._elsewhere:
            self._elsewhere = set()
            return self.STANDBY_PAUSE
        retry = self.conf.POLL_INTERVAL if self._until_retry is None else self._until_retry
        return min(retry, self.conf.POLL_INTERVAL)

    def _waiting(self) -> set[int]:
        self._prepare_connection()
        waiting, self._until_retry = waiting_shards(self.using, self.conf)
        return waiting

    def prepare(self) -> None:
        """At the start, once: give a new consumer its position, and split the records again if SHARDS was changed."""
        if self._took_layout:
            return
        require_current(self.using)
        self._prepare_connection()
        take = partial(take_layout, [shard.log for shard in self.shards], self.conf.START_AT, self._deliver_old)
        with self.pulse.busy_with("the layout of the shards"):
            while not self.stopping.is_set():
                if self._audience.caution.until_isolated(take, self.conf.BATCH_SIZE):
                    break
        if self._is_process:
            fatal_calls.begin_run(self.using, self.conf.CONSUMER, is_locked=self._is_ours)
            self._mark_calls_of_dead_processes()
        self._took_layout = True

    def _mark_calls_of_dead_processes(self) -> None:
        """Mark the next calls if a process has died, perhaps in one of them."""
        if self._is_process and (dead := fatal_calls.take_dead_runs(self.using, self.conf.CONSUMER)):
            for shard in self.shards:
                shard.mark_calls(dead)

    def _shard(self, log: LogShard, claims: Claims, conf: Conf) -> Shard:
        return Shard(log, claims, conf, self._audience, stopping=self.stopping, pulse=self.pulse)

    def _deliver_old(self, claim: Claim) -> None:
        conf = replace(self.conf, SHARDS=claim.shard.shards)
        shard = self._shard(claim.shard, Claims(), conf)
        shard.deliver_claimed(claim)
        self._old_delivered += shard.delivered
        self._old_unheard += shard.unheard

    def _prepare_connection(self) -> None:
        connection = connections[self.using]
        connection.ensure_connection()
        if connection.connection is not self._prepared:  # the first connection, or a new one
            self._is_ours = set_up_session(connection, self.conf.CONSUMER)
            clamp_dates(connection.connection)
            if self._is_ours:  # behind a pooler the doorbell shows the running worker: see bell_connection.py
                announce(self.using, self.conf.CONSUMER)
                if self._is_process:
                    fatal_calls.hold_run(self.using)
            self._take_over_if_moved()
            self.side.server = self.claims.server = row(self.using, SERVER)[0]
            self._prepared = connection.connection

    def _prepare_side(self, connection: Any) -> None:
        # Without clamp_dates(), which costs a call for each date: an image with a date beyond Python's is read again.
        if set_up_session(connection, self.conf.CONSUMER, "ahead"):
            execute(connection, own_limits(is_local=False))

    def _take_over_if_moved(self) -> None:
        if moved(self.using) is None or (done := take_over(self.using)) is None:
            return
        self._took_layout = False  # a change of SHARDS may not have come along
        if done.cause == RESTORED:
            logger.warning(
                "This database was restored from another server: log and positions now fit this one. %s change(s) were "
                "undelivered and come now%s; gap_detected is sent for every model.",
                done.undelivered,
                ", to each of the consumers, perhaps once more" if done.consumers > 1 else "",
            )
        else:
            logger.warning(
                "This server was promoted or recovered to a point in time: the last changes of the server before it "
                "may be missing, also some that were delivered. gap_detected is sent for every model."
            )
