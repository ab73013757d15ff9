"""The loop: take a round over the shards, then sleep. Holds no logic of theirs."""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from django.db import Error, connections
from django.db.models import Model

from hc_signals.conf import Conf
from hc_signals.delivery import fatal_calls
from hc_signals.delivery.ahead import Ahead
from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.listeners import Extras
from hc_signals.delivery.shard import Audience, Outcome, Shard
from hc_signals.delivery.waiting import waiting_shards
from hc_signals.log.claims import Claim, Claims
from hc_signals.log.layout import take_layout
from hc_signals.log.position import LogShard
from hc_signals.log.presence import announce
from hc_signals.log.restoring import RESTORED, moved, take_over
from hc_signals.observing import here
from hc_signals.postgres import wrappers
from hc_signals.postgres.connecting import application_name, fail_fast_at_the_server, lift_limits, show_trouble
from hc_signals.postgres.dates import clamp_dates
from hc_signals.postgres.errors import Kind, kind_of, sqlstate
from hc_signals.postgres.held_lock import HeldLock
from hc_signals.postgres.side_connection import SideConnection
from hc_signals.tables import connected_models, table_label
from hc_signals.worker.doorbell import Doorbell

logger = logging.getLogger("hc_signals")


class Worker:
    """Delivers the changes of one database to this process's receivers. Belongs to one thread.

    Args:
        using: database alias.
        conf: the checked setting.
        models: connected models whose changes are delivered; default: all.
        stopping: set when the loop is to end after the current event.
        first: the shard with which it begins its rounds.
        is_process: it is at work for a process of its own, whose death the next one has to learn of.
    """

    STANDBY_PAUSE = 0.25
    """Seconds between two looks whether a shard that another worker has is free."""

    def __init__(
        self,
        using: str,
        conf: Conf,
        models: Iterable[type[Model]] | None = None,
        *,
        stopping: threading.Event | None = None,
        first: int = 0,
        is_process: bool = False,
    ) -> None:
        models = connected_models() if models is None else list(models)
        self.using, self.conf, self.first = using, conf, first
        self.stopping = threading.Event() if stopping is None else stopping
        self._audience = Audience(
            builders={table_label(model): InstanceBuilder(model, using) for model in models},
            extras=Extras.of(conf, models),
        )
        self.claims = HeldLock(using, application_name(conf.CONSUMER, "claim"))
        """Used where ``ATOMIC`` is False."""
        logs = LogShard.all_of(using, conf.CONSUMER, conf.SHARDS)
        self.side = SideConnection(using, self._prepare_side)
        self.shards = [Shard(log, Claims(self.claims), conf, self._audience, self.stopping) for log in logs]
        self._elsewhere: set[int] = set()
        self._until_retry: float | None = None
        self._prepared: Any = None
        self._took_layout = False
        self._is_process, self._is_standby, self._is_ours = is_process, False, False

    @property
    def delivered(self) -> int:
        """How many changes were delivered so far."""
        return sum(shard.delivered for shard in self.shards)

    @property
    def unheard(self) -> int:
        """How many of them had no receiver."""
        return sum(shard.unheard for shard in self.shards)

    def run(self, bell: Doorbell) -> None:
        """Deliver until stopped; no error of the database ends it."""
        with wrappers.set_aside(self.using), self.reading_ahead(), closing(self.claims):
            while not self.stopping.is_set():
                here().turn()
                wrappers.forget_queries()
                try:
                    self.prepare()
                    self._deliver_and_sleep(bell)
                    here().trouble.ends()
                except Error as error:
                    self._get_over(error, bell)

    def _get_over(self, error: Error, bell: Doorbell) -> None:
        """Wait before the next try, which has a new connection, whatever the error was.

        What the old one's session has is in doubt: its settings, its role, and which server it is on. After a failover
        it may be the one that is read-only now.
        """
        pause = here().trouble.happens(error)
        connection, is_lost = connections[self.using], kind_of(error) is Kind.LOST
        self.side.close()
        self.claims.close()
        if is_lost:
            here().reconnects += 1
            connection.close()
        elif self._is_ours:
            show_trouble(connection, self.conf.CONSUMER, sqlstate(error) or "")
        bell.doze(pause)
        connection.close()

    def deliver_once(self, *, ahead: bool = True) -> None:
        """Deliver what is committed now; a shard that another worker has is left to it.

        Args:
            ahead: read the next page, over a second connection, while receivers are at the present one.
        """
        reading = self.reading_ahead() if ahead else nullcontext()
        with wrappers.set_aside(self.using), reading, closing(self.claims):
            self.prepare()
            for shard in self.shards:
                finished = shard.finished
                while not self.stopping.is_set() and shard.finished == finished:
                    if ahead:  # else it is a test's, which may want to look at them
                        wrappers.forget_queries()
                    if shard.deliver_page() in (Outcome.ELSEWHERE, Outcome.REMOVED, Outcome.MOVED):
                        break

    @contextmanager
    def reading_ahead(self) -> Iterator[None]:
        """For the length of the block, read the next page while receivers are at the present one."""
        for shard in self.shards:
            shard.ahead = Ahead(shard.log, self.side, self._audience.builders)
        try:
            yield
        finally:
            for shard in self.shards:
                shard.ahead = None
            self.side.close()

    def _deliver_and_sleep(self, bell: Doorbell) -> None:
        """Take one round; then sleep, unless there is more."""
        outcomes = self._deliver_round()
        here().ends_round()
        if Outcome.REMOVED in outcomes.values():  # by `hc_consumers remove --force`: start anew, where START_AT says
            self._took_layout = False
            return
        if Outcome.MOVED in outcomes.values():
            return
        self._elsewhere = {number for number, outcome in outcomes.items() if outcome is Outcome.ELSEWHERE}
        self._is_standby = len(self._elsewhere) == len(self.shards)
        if self._is_standby:
            # A standby does not listen: with the bell in its hands, writers would ring although a worker is awake.
            bell.doze(self.STANDBY_PAUSE)
        elif Outcome.MORE not in outcomes.values():
            self.side.close()  # only a backlog has more than one page
            bell.sleep(self._is_waiting, self._until_next_look)

    def _deliver_round(self) -> dict[int, Outcome]:
        """Deliver one page of every shard in which something waits."""
        waiting = {0} if len(self.shards) == 1 else self._waiting()
        outcomes = {}
        for shard in self.shards[self.first :] + self.shards[: self.first]:
            if shard.log.shard in waiting and not self.stopping.is_set():
                self._prepare_connection()
                if self._is_standby:
                    self._mark_calls_of_the_dead()
                outcomes[shard.log.shard] = outcome = shard.deliver_page()
                if outcome is Outcome.MOVED:  # under an open session: promoted, or changed by a pooler
                    self._prepared = None
        return outcomes

    def _is_waiting(self) -> bool:
        """Look whether there is anything to do; what another worker is at counts only at the second look."""
        is_waiting = bool(self._waiting() - self._elsewhere)
        here().trouble.ends()  # the round before was delivered: now it is known that all of this turn works
        return is_waiting

    def _until_next_look(self) -> float:
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
        """At start, once: give a new consumer its position; split the records anew if SHARDS was changed."""
        if self._took_layout:
            return
        self._prepare_connection()
        logs, caution = [shard.log for shard in self.shards], self._audience.caution

        def take() -> bool:
            return take_layout(logs, self.conf.START_AT, self._deliver_old)

        with here().busy_with("the layout of the shards"):
            while not self.stopping.is_set():
                if caution.until_isolated(take, self.conf.BATCH_SIZE):
                    break
        if self._is_process:
            fatal_calls.begin_run(self.using, self.conf.CONSUMER, is_locked=self._is_ours)
            self._mark_calls_of_the_dead()
        self._took_layout = True

    def _mark_calls_of_the_dead(self) -> None:
        """Mark the calls ahead of us if a process has died in one of them, perhaps."""
        if self._is_process and (dead := fatal_calls.take_dead_runs(self.using, self.conf.CONSUMER)):
            for shard in self.shards:
                shard.mark_calls(dead)

    def _deliver_old(self, claim: Claim) -> None:
        conf = replace(self.conf, SHARDS=claim.shard.shards)
        shard = Shard(claim.shard, Claims(), conf, self._audience, self.stopping)
        shard.deliver_claimed(claim)
        self.shards[0].delivered += shard.delivered
        self.shards[0].unheard += shard.unheard

    def _prepare_connection(self) -> None:
        connection = connections[self.using]
        connection.ensure_connection()
        if connection.connection is not self._prepared:  # the first one, or a new one after a loss
            self._is_ours = fail_fast_at_the_server(connection, self.conf.CONSUMER)
            clamp_dates(connection.connection)
            if self._is_ours:  # elsewhere the doorbell shows that a worker is running: see line.py
                announce(self.using, self.conf.CONSUMER)
                if self._is_process:
                    fatal_calls.hold_run(self.using)
            self._take_over_if_moved()
            self._prepared = connection.connection

    def _prepare_side(self, connection: Any) -> None:
        # Without clamp_dates(), which costs a call for each date: images with one beyond Python's are read once more.
        if fail_fast_at_the_server(connection, self.conf.CONSUMER, "ahead"):
            lift_limits(connection)

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
