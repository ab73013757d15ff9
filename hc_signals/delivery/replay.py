"""Sends past changes of the log again, in order, to chosen receivers. No position moves.

A snapshot at the start fixes which changes are replayed. Each page is one transaction, unless ``ATOMIC`` is False. The
order of a record's changes holds inside the replay: hc_listen keeps running, so a receiver may get a new change between
two replayed, older ones.
"""

from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from datetime import datetime
from time import monotonic
from typing import Any

from django.db import OperationalError, models, transaction

from hc_signals.conf import Conf
from hc_signals.delivery.dispatch import Dispatcher
from hc_signals.delivery.failures import FailureStore
from hc_signals.delivery.instances import Builders
from hc_signals.delivery.isolation.careful import Caution
from hc_signals.delivery.isolation.transaction import Isolation, room
from hc_signals.delivery.listeners import APPLY_ON_DELETE, Extras, Listeners
from hc_signals.delivery.page import Page
from hc_signals.delivery.pulse import Pulse
from hc_signals.delivery.sending import SignalSender
from hc_signals.log.append import wake
from hc_signals.log.change import Change
from hc_signals.log.claims import lock_all
from hc_signals.log.heard import Heard, append_calls, may_append
from hc_signals.log.images import stored_images
from hc_signals.log.past import Bound, PastChanges
from hc_signals.log.position import LogShard
from hc_signals.log.positions import read_standing
from hc_signals.postgres.errors import is_deadlock
from hc_signals.tables import connected_models

ATTEMPTS = 3
"""How many times a page is tried that PostgreSQL ends because of a deadlock with the worker."""


class Replay:
    """Which changes are replayed to which receivers.

    Args:
        receivers: names of receivers; default: all. The rules of APPLY_ON_DELETE are a receiver too, which is called
            only if it is named: a record that was deleted may be back.
    """

    def __init__(
        self, using: str, conf: Conf, models: Iterable[type[models.Model]], receivers: Collection[str] | None = None
    ) -> None:
        self.using, self.conf, self.models = using, conf, list(models)
        self.extras = Extras.of(conf, connected_models())
        known = self.known_receivers()
        self.receivers = frozenset(receivers or known - {APPLY_ON_DELETE})

    def known_receivers(self) -> set[str]:
        """Return the names of the receivers that are connected to the models."""
        listeners = Listeners(self.extras)
        return {name for model in self.models for name in listeners.names(model)}

    def start(self, first: Bound, last: Bound = None) -> "ReplayRun":
        """Fix which changes are replayed, from the first to the last one asked for.

        Raises:
            ReplayError: a bound is of another database or outside of the log; nothing was done.
        """
        return ReplayRun(self, first, last)


class ReplayRun:
    """One run of a replay, page by page. Made by :meth:`Replay.start`."""

    def __init__(self, replay: Replay, first: Bound, last: Bound) -> None:
        self._replay, self._using, self._conf = replay, replay.using, replay.conf
        self._builders = Builders(replay.models, replay.using)
        self._past = PastChanges(replay.using, first, last, list(self._builders))
        self._after, self._limit, self._caution = self._past.before, replay.conf.BATCH_SIZE, Caution()
        self._records_calls = replay.conf.RECORD_CALLS and may_append(replay.using)
        self.finished = False

    def count(self, limit: int) -> int:
        """Return how many changes are replayed; the count ends at ``limit``."""
        return self._past.count(limit)

    @property
    def rest(self) -> tuple[str, str]:
        """The replay ids of the first and the last change that is not replayed yet."""
        return self._past.replay_id(self._after + 1), self._past.replay_id(self._past.last)

    def page(self, stopping: Callable[[], bool] = lambda: False) -> int:
        """Send the next page and commit; return how many changes were sent, fewer if ``stopping`` returns True.

        Raises:
            ReplayError: changes that were still to be replayed have been emptied from the log.
        """
        for attempt in range(ATTEMPTS):
            try:
                store, done, is_last = self._caution.until_isolated(
                    lambda: self._send_page(stopping), self._conf.BATCH_SIZE, self._take_small_pages
                )
                break
            except OperationalError as error:
                if not is_deadlock(error) or attempt + 1 == ATTEMPTS:
                    raise
        self._after, self.finished = done[-1].id if done else self._after, is_last
        if store.has_claimed:  # the worker may have found its shard claimed, and does not know of the new deliveries
            wake(self._using)
        return len(done)

    def _send_page(self, stopping: Callable[[], bool]) -> tuple["ReplayFailureStore", list[Change], bool]:
        """Return the store, the changes that were sent, and whether they were the last."""
        is_atomic = self._conf.ATOMIC
        isolation = Isolation(self._using, atomic=is_atomic, is_careful=self._caution.is_careful)
        with isolation.opened(), transaction.atomic(using=self._using) if is_atomic else nullcontext():
            changes, has_more = self._past.page(self._after, self._limit)
            # A stored delivery keeps the note as well, so its retries are replayed too.
            changes = [change._replace(note={**(change.note or {}), "replayed": True}) for change in changes]
            # Without a transaction no lock keeps the images in the log until a failed delivery is stored.
            images = {} if is_atomic else stored_images(self._using, [change.id for change in changes])
            store = ReplayFailureStore(self._using, self._conf, 0, images)
            heard = Heard(self._using, self._conf.CONSUMER, 0)
            dispatcher = Dispatcher(isolation, Pulse(), heard=heard if self._records_calls else None)
            done = self._send(changes, store, dispatcher, stopping)
            isolation.finish(lambda: append_calls(heard))
        self._caution.note_committed(done)
        self._limit = min(4 * self._limit, room(done, isolation.subtransactions, self._conf.BATCH_SIZE))
        return store, changes[:done], done == len(changes) and not has_more

    def _take_small_pages(self) -> None:
        """Commit the changes of a lost page one by one, then by a few."""
        self._limit = 1

    def _send(
        self, changes: list[Change], store: "ReplayFailureStore", dispatcher: Dispatcher, stopping: Callable[[], bool]
    ) -> int:
        """Send changes until the time is up or the replay is stopped; return how many were sent."""
        deadline = monotonic() + self._conf.MAX_TRANSACTION_SECONDS
        listeners = Listeners(self._replay.extras, self._replay.receivers)
        sender = SignalSender(store, listeners, dispatcher)
        if store.any_waiting():
            sender.block(changes)
        page = Page(sender, changes, self._builders)
        self._past.refuse_loss(self._after)  # after the images were read: a loss before that is found now
        done = 0
        for change in changes:
            if done and (stopping() or monotonic() > deadline or dispatcher.isolation.is_full):
                break
            page.deliver(change)
            done += 1
        page.deliver_bulk()
        return done


class ReplayFailureStore(FailureStore):
    """Stores the failures of a replay: it claims the shards when it stores the first one.

    Without the claim, deliveries of a record could be lost or reordered while a page is replayed:

    * the worker finishes the delivery behind which the replay parks another one, which would then wait for ever;
    * the worker stores a failure of the same record, so two deliveries are retried and neither waits.

    So the store reads again, under the claim, whether the record waits for an earlier delivery.
    """

    has_claimed = False

    def _insert(self, change: Change, **values: Any) -> tuple[int, datetime | None]:
        if values["state"] == "dead":
            return super()._insert(change, **values)
        with transaction.atomic(using=self.using, savepoint=False):
            self._claim()
            is_first = (values["receiver"], change.table_name, change.record) not in self.blocked([change])
            if is_first and values["state"] == "parked":
                values |= {"state": "retry", "delay": 0}
            elif not is_first:
                values |= {"state": "parked", "delay": None}
            return super()._insert(change, **values)

    def _claim(self) -> None:
        if self.has_claimed and self.conf.ATOMIC:  # the claim is held to the end of the page
            return
        layout = read_standing(LogShard(self.using, self.conf.CONSUMER)).layout or 1
        lock_all(LogShard.all_of(self.using, self.conf.CONSUMER, max(layout, self.conf.SHARDS)))
        self.has_claimed = True
