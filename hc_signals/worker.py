"""The loop: read a page, hand it to the receivers, keep failures, advance, sleep. Holds no logic of theirs."""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db import InterfaceError, OperationalError, connections, transaction
from django.db.models import Model
from django.utils import timezone

from hc_signals import signals
from hc_signals.adapters import clamp_dates
from hc_signals.changelog import ChangeLog, rotate
from hc_signals.conf import Conf, chosen
from hc_signals.deliveries import Deliveries
from hc_signals.dispatch import receivers_of, send
from hc_signals.doorbell import Doorbell
from hc_signals.events import Change, ChangeEvent
from hc_signals.instances import InstanceBuilder
from hc_signals.listeners import Extras, Listeners
from hc_signals.page import Page
from hc_signals.redelivery import redeliver
from hc_signals.resharding import reshard
from hc_signals.restoring import is_restored, rebase
from hc_signals.tables import connected_models, table_label

logger = logging.getLogger("hc_signals")


class Worker:
    """Delivers the changes of one database to this process's receivers.

    Args:
        using: database alias.
        conf: the checked setting.
        models: connected models whose changes are delivered; default: all.
    """

    MAX_BACKOFF = 10.0
    ROTATE_EVERY = 600.0
    """Seconds between two looks for buckets that can be emptied."""

    def __init__(self, using: str, conf: Conf, models: Iterable[type[Model]] | None = None) -> None:
        models = connected_models() if models is None else list(models)
        self.using, self.conf = using, conf
        self.stopping = False
        self.delivered = 0
        self.logs = [ChangeLog(using, conf.CONSUMER, shard, conf.SHARDS) for shard in range(conf.SHARDS)]
        self._builders = {table_label(model): InstanceBuilder(model, using) for model in models}
        self.deliveries = [Deliveries(using, conf, log.shard) for log in self.logs]
        self._extras = Extras(
            django_signals=chosen("DJANGO_SIGNALS", conf.DJANGO_SIGNALS, models),
            on_delete=chosen("APPLY_ON_DELETE", conf.APPLY_ON_DELETE, models),
        )
        self._unknown: set[str] = set()
        self._prepared: Any = None
        self._rotate_at = 0.0
        self._took_layout = self._has_own_layout = False

    def stop(self) -> None:
        """Ask the loop to end after the current event."""
        self.stopping = True

    def run(self) -> None:
        """Deliver until stopped; survives the loss of the database connection."""
        failures = 0
        with Doorbell(self.using, lambda: self.stopping) as bell:
            if not bell.heard:
                logger.warning(
                    "LISTEN is swallowed: nothing came back from a ping to ourselves, so a transaction pooler is in "
                    "the way. Polling every %s s; use a direct connection for hc_listen.",
                    self.conf.POLL_INTERVAL,
                )
            while not self.stopping:
                try:
                    self._take_layout()
                    self._rotate()
                    if not self.deliver_round():
                        bell.sleep(self.deliver_round, self._until_next_look())
                    failures = 0
                except (OperationalError, InterfaceError) as error:
                    failures += 1
                    pause = min(self.MAX_BACKOFF, 0.1 * 2**failures)
                    logger.warning("Database connection lost (%s); trying again.", type(error).__name__)
                    connections[self.using].close()
                    self._pause(pause)

    def _until_next_look(self) -> float:
        until_retry = self.deliveries[0].seconds_until_due()
        return self.conf.POLL_INTERVAL if until_retry is None else min(until_retry, self.conf.POLL_INTERVAL)

    def _rotate(self) -> None:
        if time.monotonic() >= self._rotate_at:
            self._rotate_at = time.monotonic() + self.ROTATE_EVERY
            for bucket in rotate(self.using, self.conf.RETENTION_HOURS):
                logger.info("Bucket %s of the change log was emptied.", bucket)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < deadline:
            time.sleep(0.05)

    def deliver_once(self) -> None:
        """Deliver what is committed now; a shard that another worker has is left to it."""
        self._take_layout()
        for log in self.logs:
            finished = log.finished
            while not self.stopping and log.finished == finished and self.deliver_page(log):
                pass

    def deliver_round(self) -> bool:
        """Deliver one page of every shard that is free; tell whether there may be more."""
        found = [self.deliver_page(log) for log in self.logs if not self.stopping]
        return any(found)

    def deliver_page(self, log: ChangeLog) -> bool:
        """Deliver one page; receivers' writes and the new position commit together. False when nothing was there."""
        self._prepare_connection()
        with transaction.atomic(using=self.using):
            if not log.claim() or not self._fits(log):
                return False
            return self._deliver_claimed(log, self.deliveries[log.shard])

    def _deliver_claimed(self, log: ChangeLog, deliveries: Deliveries) -> bool:
        position = log.position()
        # An open window whose last page was full ends with an empty page: that must move the position too.
        was_open = position.target is not None
        if not was_open:
            position = log.open_window(position)
            log.opened = position.target
        lost = log.lost(position.lost) if log.shard == 0 else position.lost
        missed, position = lost > position.lost, replace(position, lost=lost)
        retried = self._retry(log, deliveries)
        changes = log.page(position, self.conf.BATCH_SIZE)
        if missed:
            logger.error("A change could not be written to the log; gap_detected is sent for every connected model.")
            self._tell_gap({"cause": "capture_failed"})
        if position.gap is not None:
            self._tell_gap(position.gap)
            missed, position = True, replace(position, gap=None)
        done = self._deliver(log, deliveries, changes)
        if done < len(changes):
            position = replace(position, last_id=changes[done - 1].id) if done else position
        elif len(changes) == self.conf.BATCH_SIZE:
            position = replace(position, last_id=changes[-1].id)
        else:
            log.finished += position.target == log.opened
            position = log.close_window(position)
        if changes or missed or was_open:
            log.append(position)
        # One receiver's on_commit hook must not take the others' with it.
        connection = connections[self.using]
        hooks: list[Any] = list(connection.run_on_commit)
        connection.run_on_commit = [(sids, hook, True) for sids, hook, _ in hooks]  # type: ignore[misc]
        self.delivered += done
        return bool(done) or was_open or retried

    def _fits(self, log: ChangeLog) -> bool:
        """Tell whether the consumer's records are split as we think; if not, somebody with other settings took over."""
        layout = log.layout()
        if layout in (None, log.shards):
            return True
        if self._has_own_layout:
            logger.warning(
                "Another worker of consumer %r has taken over with SHARDS = %s; this one has %s and delivers nothing "
                "until it is restarted with the same number.",
                log.consumer,
                layout,
                log.shards,
            )
            self._has_own_layout = False
        return False

    def _take_layout(self) -> None:
        """At start, once: if the records are split over another number of shards, finish those and split anew."""
        if self._took_layout:
            return
        self._prepare_connection()
        while not self.stopping and not reshard(self.logs, self._deliver_old):
            pass
        self._has_own_layout = self._took_layout = True

    def _deliver_old(self, log: ChangeLog) -> None:
        conf = replace(self.conf, SHARDS=log.shards)
        self._deliver_claimed(log, Deliveries(self.using, conf, log.shard))

    def _prepare_connection(self) -> None:
        connection = connections[self.using]
        connection.ensure_connection()
        if connection.connection is not self._prepared:  # the first one, or a new one after a loss
            clamp_dates(connection.connection)
            self._prepared = connection.connection
            self._rebase_if_restored()

    def _rebase_if_restored(self) -> None:
        if not is_restored(self.using):
            return
        undelivered, consumers = rebase(self.using)
        logger.warning(
            "This database was restored from another server: log and positions now fit this one. %s change(s) were "
            "undelivered and come now%s; gap_detected is sent for every model.",
            undelivered,
            ", to each of the consumers, perhaps once more" if consumers > 1 else "",
        )

    def _deliver(self, log: ChangeLog, deliveries: Deliveries, changes: list[Change]) -> int:
        """Hand changes to receivers until the time is up or a stop was asked for; return how many were done."""
        deadline = time.monotonic() + self.conf.MAX_TRANSACTION_SECONDS
        for label in {change.table_name for change in changes} - self._builders.keys() - self._unknown:
            self._unknown.add(label)
            logger.warning("No connected model for table %s: its changes are passed over.", label)
        page = Page(log, deliveries, changes, self._builders, Listeners(self._extras))
        done = 0
        for change in changes:
            if done and (self.stopping or time.monotonic() > deadline):
                break
            page.deliver(change)
            done += 1
        page.deliver_bulk()
        return done

    def _retry(self, log: ChangeLog, deliveries: Deliveries) -> bool:
        """Try the deliveries again whose time has come; tell whether there were any."""
        deadline = time.monotonic() + self.conf.MAX_TRANSACTION_SECONDS
        listeners, any_due = Listeners(self._extras), False
        while not self.stopping and time.monotonic() < deadline and (due := deliveries.due(1)):
            any_due = True
            error = redeliver(due[0], log, self._builders, listeners)
            if error is None:
                deliveries.succeeded(due[0])
            else:
                deliveries.failed(due[0], error)
        return any_due

    def _tell_gap(self, gap: Mapping[str, Any]) -> None:
        """Send a gap for every model: which tables are concerned is not known."""
        since, until = (datetime.fromisoformat(gap[key]) if gap.get(key) else None for key in ("since", "until"))
        for model in (builder.model for builder in self._builders.values()):
            event = ChangeEvent(
                change_type="GAP_OVERFLOW",
                change_origin="heroku_connect",
                entity_name=str(getattr(model, "sf_object_name", "")),
                record_id=None,
                record_key=None,
                transaction_key="",
                sequence_number=0,
                captured_at=timezone.now(),
                replay_id="",
                event_id="",
                cause=gap["cause"],
                since=since,
                until=until,
            )
            receivers = receivers_of(signals.gap_detected, model)
            for failure in send(signals.gap_detected, receivers, self.using, sender=model, instance=None, event=event):
                logger.error("Receiver %s failed on a gap: %s.", failure.receiver, type(failure.error).__name__)
