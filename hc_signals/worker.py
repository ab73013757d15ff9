"""The loop: read a page, hand it to the receivers, keep failures, advance, sleep. Holds no logic of theirs."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connections, models, transaction
from django.utils import timezone

from hc_signals import signals
from hc_signals.changelog import ChangeLog
from hc_signals.conf import Conf
from hc_signals.deliveries import keep_failure
from hc_signals.dispatch import Failure, send
from hc_signals.doorbell import Doorbell
from hc_signals.events import Change, ChangeEvent
from hc_signals.instances import InstanceBuilder, children_of, receiving_models
from hc_signals.tables import connected_models, table_label

logger = logging.getLogger("hc_signals")

_TYPES = {"INSERT": "CREATE", "UPDATE": "UPDATE", "DELETE": "DELETE"}
_SIGNALS = {
    "CREATE": signals.record_created,
    "UPDATE": signals.record_updated,
    "DELETE": signals.record_deleted,
}


class Worker:
    """Delivers the changes of one database to this process's receivers.

    Args:
        using: database alias.
        conf: the checked setting.
    """

    MAX_BACKOFF = 10.0

    def __init__(self, using: str, conf: Conf) -> None:
        self.using, self.conf = using, conf
        self.stopping = False
        self.delivered = 0
        self.logs = [ChangeLog(using, conf.CONSUMER, shard, conf.SHARDS) for shard in range(conf.SHARDS)]
        self._models = {table_label(model): model for model in connected_models()}
        self._builders = {label: InstanceBuilder(model, using) for label, model in self._models.items()}
        self._unknown: set[str] = set()

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
                    if not self.deliver_all():
                        bell.sleep(self.deliver_all, self.conf.POLL_INTERVAL)
                    failures = 0
                except (OperationalError, InterfaceError) as error:
                    failures += 1
                    pause = min(self.MAX_BACKOFF, 0.1 * 2**failures)
                    logger.warning("Database connection lost (%s); trying again.", type(error).__name__)
                    connections[self.using].close()
                    self._pause(pause)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < deadline:
            time.sleep(0.05)

    def deliver_all(self) -> bool:
        """Deliver until every shard we can claim is empty; tell whether anything was delivered."""
        found = False
        for log in self.logs:
            while not self.stopping and self.deliver_page(log):
                found = True
        return found

    def deliver_page(self, log: ChangeLog) -> bool:
        """Deliver one page; receivers' writes and the new position commit together. False when nothing was there."""
        with transaction.atomic(using=self.using):
            if not log.claim():
                return False
            position = log.position()
            # An open window whose last page was full ends with an empty page: that must move the position too.
            was_open = position.target is not None
            if not was_open:
                position = log.open_window(position)
            lost = log.lost() if log.shard == 0 else position.lost
            missed, position = lost > position.lost, replace(position, lost=lost)
            changes = log.page(position, self.conf.BATCH_SIZE)
            if missed:
                self._tell_lost()
            done = self._deliver(log, changes)
            if done < len(changes):
                position = replace(position, last_id=changes[done - 1].id) if done else position
            elif len(changes) == self.conf.BATCH_SIZE:
                position = replace(position, last_id=changes[-1].id)
            else:
                position = log.close_window(position)
            if changes or missed or was_open:
                log.append(position)
            # One receiver's on_commit hook must not take the others' with it.
            connection = connections[self.using]
            hooks: list[Any] = list(connection.run_on_commit)
            connection.run_on_commit = [(sids, hook, True) for sids, hook, _ in hooks]  # type: ignore[misc]
        self.delivered += done
        return bool(done) or was_open

    def _deliver(self, log: ChangeLog, changes: list[Change]) -> int:
        """Hand changes to receivers until the time is up or a stop was asked for; return how many were done."""
        deadline = time.monotonic() + self.conf.MAX_TRANSACTION_SECONDS
        page = _Page(self, log, changes)
        done = 0
        for change in changes:
            if done and (self.stopping or time.monotonic() > deadline):
                break
            page.deliver(change)
            done += 1
        page.deliver_bulk()
        return done

    def _tell_lost(self) -> None:
        """Send a gap for every model: a statement could not be captured, and which table it was is not known."""
        logger.error("A change could not be written to the log; gap_detected is sent for every connected model.")
        for model in self._models.values():
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
                cause="capture_failed",
            )
            receivers = signals.gap_detected.receivers_of(model)
            for failure in send(signals.gap_detected, receivers, self.using, sender=model, instance=None, event=event):
                logger.error("Receiver %s failed on a gap: %s.", failure.receiver, type(failure.error).__name__)

    def model_of(self, change: Change) -> type[models.Model] | None:
        """Return the model of a change's table; says once when there is none any more."""
        model = self._models.get(change.table_name)
        if model is None and change.table_name not in self._unknown:
            self._unknown.add(change.table_name)
            logger.warning("No connected model for table %s: its changes are passed over.", change.table_name)
        return model


class _Page:
    """The changes of one page with their typed images, read once per table."""

    def __init__(self, worker: Worker, log: ChangeLog, changes: list[Change]) -> None:
        self.worker, self.log, self.using = worker, log, worker.using
        self.rows: dict[int, tuple[Any, ...]] = {}
        self.old_rows: dict[int, tuple[Any, ...]] = {}
        self.unreadable: dict[int, Exception] = {}
        self.children: dict[tuple[type[models.Model], int], models.Model] = {}
        self.bulk: dict[type[models.Model], list[tuple[Change, ChangeEvent]]] = defaultdict(list)
        by_table: dict[str, list[Change]] = defaultdict(list)
        for change in changes:
            if change.operation in _TYPES:
                by_table[change.table_name].append(change)
        for label, table_changes in by_table.items():
            if self.worker.model_of(table_changes[0]) is not None:
                self._load(label, table_changes)

    def _load(self, label: str, changes: list[Change]) -> None:
        builder = self.worker._builders[label]
        ids = [change.id for change in changes]
        updates = [change.id for change in changes if change.operation == "UPDATE"]
        self.rows |= self._images(builder, ids, "latest")
        self.old_rows |= self._images(builder, updates, "old")
        for child in receiving_models(builder.model):
            if child._meta.managed and not child._meta.proxy and any(_listeners(child, s) for s in _all_signals()):
                self._load_children(builder, child, [i for i in ids if i in self.rows])

    def _load_children(self, builder: InstanceBuilder, child: type[models.Model], ids: list[int]) -> None:
        link = child._meta.get_ancestor_link(builder.model)
        if link is None:
            return
        for change_id in ids:
            parent = builder.instance(self.rows[change_id])
            found = children_of(child, builder.model, [parent], self.using)
            for instance in found.values():
                self.children[child, change_id] = instance

    def _images(self, builder: InstanceBuilder, ids: list[int], image: str) -> dict[int, tuple[Any, ...]]:
        """Read all at once; if one cannot be typed any more, one by one, so that only it fails."""
        if not ids:
            return {}
        try:
            with transaction.atomic(using=self.using):
                return self.log.images(builder.model, builder.columns, ids, image)
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError as error:
            if len(ids) == 1:
                self.unreadable[ids[0]] = error
                return {}
            rows: dict[int, tuple[Any, ...]] = {}
            for change_id in ids:
                rows |= self._images(builder, [change_id], image)
            return rows

    def deliver(self, change: Change) -> None:
        """Send one change to everyone who listens."""
        model = self.worker.model_of(change)
        if model is None:
            return
        if change.operation not in _TYPES:
            event = _event(change, model, "GAP_OVERFLOW", cause=change.operation.lower())
            receivers = signals.gap_detected.receivers_of(model)
            failures = send(signals.gap_detected, receivers, self.using, sender=model, instance=None, event=event)
            return self._keep(change, failures)
        if change.id in self.unreadable:
            return self._keep(change, [Failure("*", self.unreadable[change.id])])
        builder = self.worker._builders[change.table_name]
        self._send_to(change, model, self._typed_event(change, builder, builder.instance(self.rows[change.id])))
        for other in receiving_models(model):
            if not any(_listeners(other, signal) for signal in _all_signals()):
                continue
            if other._meta.proxy and other._meta.concrete_model is model:
                instance = builder.instance(self.rows[change.id], other)
            elif (other, change.id) in self.children:
                instance = self.children[other, change.id]
            else:
                continue
            self._send_to(change, other, self._typed_event(change, builder, instance), only=True)

    def _typed_event(self, change: Change, builder: InstanceBuilder, instance: models.Model) -> ChangeEvent:
        changed = change.changed or []
        previous = builder.previous(self.old_rows[change.id], changed) if change.id in self.old_rows else {}
        names = tuple(builder.name_of_column[c] for c in changed if c in builder.name_of_column)
        return _event(
            change,
            builder.model,
            _TYPES[change.operation],
            changed_fields=names,
            previous=previous,
            instance=instance,
        )

    def _send_to(self, change: Change, model: type[models.Model], event: ChangeEvent, only: bool = False) -> None:
        for signal in (_SIGNALS[event.change_type], signals.record_changed):
            receivers = _listeners(model, signal) if only else signal.receivers_of(model)
            failures = send(signal, receivers, self.using, sender=model, instance=event.instance, event=event)
            self._keep(change, failures)
        self.bulk[model].append((change, event))

    def deliver_bulk(self) -> None:
        """Send ``records_changed`` once per model."""
        for model, pairs in self.bulk.items():
            only = model not in self.worker._models.values()
            receivers = (
                _listeners(model, signals.records_changed) if only else signals.records_changed.receivers_of(model)
            )
            events = [event for _, event in pairs]
            failures = send(signals.records_changed, receivers, self.using, sender=model, events=events)
            self._keep(pairs[0][0], failures)

    def _keep(self, change: Change, failures: list[Failure]) -> None:
        for failure in failures:
            keep_failure(self.using, self.worker.conf.CONSUMER, change, failure.receiver, failure.error)


def _all_signals() -> tuple[signals.ChangeSignal, ...]:
    return (*_SIGNALS.values(), signals.record_changed, signals.records_changed)


def _listeners(model: type[models.Model], signal: signals.ChangeSignal) -> list[tuple[Callable[..., Any], bool]]:
    return signal.receivers_of_only(model)


def _event(change: Change, model: type[models.Model], change_type: str, **more: Any) -> ChangeEvent:
    return ChangeEvent(
        change_type=change_type,
        change_origin=change.origin,
        entity_name=str(getattr(model, "sf_object_name", "")),
        record_id=change.record_id,
        record_key=change.record_key,
        transaction_key=change.xid,
        sequence_number=change.id,
        captured_at=change.captured_at,
        replay_id=str(change.id),
        event_id=f"{change.xid}-{change.id}",
        **more,
    )
