"""One page of changes on its way to the receivers: events, signals, what is kept for later."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.db import models

from hc_signals.delivery.dispatch import Failure, send
from hc_signals.delivery.failures import Deliveries
from hc_signals.delivery.fatal_calls import Marks
from hc_signals.delivery.identity import Receiver, Receivers, resolve
from hc_signals.delivery.instances import InstanceBuilder, proxies_of
from hc_signals.delivery.isolation import Isolation, Keep
from hc_signals.delivery.listeners import SIGNALS, Listeners, Model, arguments
from hc_signals.delivery.project_code import ends_program
from hc_signals.delivery.pulse import Pulse
from hc_signals.delivery.records import Images, Records, by_table
from hc_signals.delivery.routing import (
    CHANGE_TYPES,
    TABLE_SIGNALS,
    RecordEvent,
    counting,
    is_link,
    signals_of,
    table_event,
    told_of,
)
from hc_signals.events import ChangeEvent
from hc_signals.exceptions import ProcessEndedError, RedeliveryError
from hc_signals.log.change import Change
from hc_signals.log.position import LogShard


class Page:
    """The changes of one page, with everything read once per table that their receivers need.

    Args:
        log: where the changes come from.
        deliveries: where failures go, and what waits behind them.
        changes: in order.
        builders: by the name of the table as the log has it; a change of another table is passed over.
        listeners: who is called.
        isolation: of the transaction.
        pulse: of the calling thread.
        any_kept: whether the consumer has any delivery that waits.
        images: what was read already of some of the tables, by their names.
        marks: see :func:`~hc_signals.delivery.dispatch.send`.
    """

    def __init__(
        self,
        log: LogShard,
        deliveries: Deliveries,
        changes: Sequence[Change],
        builders: Mapping[str, InstanceBuilder],
        listeners: Listeners,
        *,
        isolation: Isolation,
        pulse: Pulse,
        any_kept: bool,
        images: Mapping[str, Images] | None = None,
        marks: Marks | None = None,
    ) -> None:
        self._marks = marks
        self.log, self.using, self.builders = log, log.using, builders
        self.deliveries, self.listeners = deliveries, listeners
        self._isolation, self._pulse = isolation, pulse
        self.records = Records(log.using, listeners)
        self._proxies: dict[str, list[Model]] = {}
        self._bulk: dict[tuple[Model, bool], list[tuple[Change, ChangeEvent]]] = defaultdict(list)
        self._told: dict[Any, tuple[Sequence[str], list[str]]] = {}
        """What a change tells, by all that this depends on: changes of a page are much alike."""
        self._any_note = any(change.note for change in changes)
        self._blocked = deliveries.blocked(changes) if changes and any_kept else set()
        self.unheard: set[str] = set()
        """Tables with changes of records that have no receiver."""
        for label, of_table in by_table(changes, builders, deliveries.conf.CONSUMER).items():
            model = builders[label].model
            self._proxies[label] = [proxy for proxy in proxies_of(model) if listeners.heard(proxy, only=True)]
            if not listeners.wanted(model):
                self.unheard.add(label)
            self.records.load(builders[label], of_table, (images or {}).get(label))

    def deliver(self, change: Change) -> None:
        """Send one change to everyone who listens."""
        builder = self.builders.get(change.table_name)
        if builder is None or (change.note and not change.is_for(self.deliveries.conf.CONSUMER)):
            return
        if change.operation not in CHANGE_TYPES:
            event = table_event(change, builder.model)
            self._tell(TABLE_SIGNALS.get(change.operation, "gap_detected"), builder.model, change, event, only=False)
        elif change.id in self.records.unreadable:
            self._keep_for_everyone(change, builder.model, self.records.unreadable[change.id])
        elif change.id in self.records:
            self._deliver_readable(change, builder)

    def _deliver_readable(self, change: Change, builder: InstanceBuilder) -> None:
        if self.listeners.heard(builder.model):
            self._send(change, builder, builder.model, only=False)
        for proxy in self._proxies[change.table_name]:
            self._send(change, builder, proxy, only=True)
        for child in self.records.children.get(change.id, ()):
            self._send(change, builder, type(child), child, only=True)

    def _keep_for_everyone(self, change: Change, model: Model, error: BaseException) -> None:
        """Nobody can be told: the delivery is kept for each who should have been."""
        targets = [(model, False), *((proxy, True) for proxy in self._proxies[change.table_name])]
        for sender, only in targets:
            for signal in signals_of(change):
                for receiver in self._receivers(signal, sender, change, only):
                    self._keep(change, receiver.name, signal, sender, error)

    def _send(
        self, change: Change, builder: InstanceBuilder, sender: Model, child: models.Model | None = None, *, only: bool
    ) -> None:
        columns, names = self._signals(change, builder, sender, only)
        if not names:
            return
        event = RecordEvent.of(_Source(self.records, change, builder, columns, sender, child))
        for name in names:
            if name == "records_changed":
                self._bulk[sender, only].append((change, event))
            else:
                self._tell(name, sender, change, event, only)

    def _signals(
        self, change: Change, builder: InstanceBuilder, sender: Model, only: bool
    ) -> tuple[Sequence[str], list[str]]:
        """Return the changed columns that count, and the signals to be sent: those with receivers."""
        changed = tuple(change.changed or ())
        linked = "sfid" in changed and is_link(change, self.records.old(change, builder))
        key = (change.operation, changed, linked, bool(change.note), sender, only)
        found = self._told.get(key)
        if found is None or change.note:
            columns = counting(change, linked)
            told = told_of(change, columns, linked)
            found = columns, [name for name in told if self.listeners.receivers(name, sender, only)]
            self._told[key] = found
        return found

    def _tell(self, signal: str, sender: Model, change: Change, event: ChangeEvent, only: bool) -> None:
        receivers = self._free(signal, sender, change, only)
        if not receivers:
            return
        try:
            named = arguments(signal, event)
        except BaseException as error:  # of the project: a field's converter, a model's __init__, one of post_init
            if ends_program(error):
                raise
            for receiver in receivers:
                self._keep(change, receiver.name, signal, sender, error)
            return
        record = (change.table_name, change.record)

        def keep(receiver: str, error: BaseException) -> None:
            self._keep(change, receiver, signal, sender, error)

        for failure in self._call(signal, receivers, change, keep, record=record, sender=sender, **named):
            keep(failure.receiver, failure.error)

    def _call(self, signal: str, receivers: Receivers, change: Change, keep: Keep, **named: Any) -> list[Failure]:
        sent = SIGNALS[signal], receivers, self.using
        return send(
            *sent,
            change=change.id,
            isolation=self._isolation,
            pulse=self._pulse,
            keep=keep,
            marks=self._marks,
            **named,
        )

    def _settle_for(self, receivers: Receivers, change: Change | None) -> None:
        """Find out whether the last call has failed, if one of these calls would then have to wait behind it.

        Args:
            change: that is to be told; None for several.
        """
        pending = self._isolation.pending
        if pending is None or (change and pending.record not in (None, (change.table_name, change.record))):
            return
        if any(each.name == pending.receiver for each in receivers):
            self._isolation.settle()

    def _free(self, signal: str, sender: Model, change: Change, only: bool) -> Receivers:
        """Return the receivers for whom no earlier change of the record waits; park it for the others."""
        receivers = self._receivers(signal, sender, change, only)
        self._settle_for(receivers, change)
        if not self._blocked:
            return receivers
        return [each for each in receivers if not self._park(change, each, signal, sender)]

    def _park(self, change: Change, receiver: Receiver, signal: str, sender: Model) -> bool:
        """Park the change for a receiver for whom an earlier one of the record waits; tell whether it does."""
        for name in receiver.own:
            if (name, change.table_name, change.record) in self._blocked:
                self.deliveries.park(change, name, signal, sender._meta.label)
                return True
        return False

    def _receivers(self, signal: str, sender: Model, change: Change, only: bool) -> Receivers:
        """Return who is to hear of the change: a snapshot may be for some of the receivers."""
        receivers = self.listeners.receivers(signal, sender, only)
        named = change.named_receivers if change.note else ()
        if not named:
            return receivers
        chosen: set[str] = set()
        for name in sorted(named):
            try:
                chosen.update(each.name for each in resolve(name, receivers))
            except RedeliveryError as error:
                self._keep(change, name, signal, sender, error)
        return [each for each in receivers if each.name in chosen]

    def _keep(self, change: Change, receiver: str, signal: str, sender: Model, error: BaseException) -> None:
        if self.deliveries.keep(change, receiver, signal, sender._meta.label, error):
            self._blocked.add((receiver, change.table_name, change.record))

    def deliver_bulk(self) -> None:
        """Send ``records_changed`` once per model, for all that was delivered so far."""
        for (model, only), pairs in self._bulk.items():
            wanted: dict[int, set[str]] = {}
            for change, _ in pairs if self._any_note else ():
                wanted[change.id] = {each.name for each in self._receivers("records_changed", model, change, only)}
            for receiver in self.listeners.receivers("records_changed", model, only):
                mine = [pair for pair in pairs if receiver.name in wanted[pair[0].id]] if wanted else pairs
                self._send_bulk(receiver, model, mine)
        self._bulk.clear()

    def _send_bulk(self, receiver: Receiver, model: Model, pairs: list[tuple[Change, ChangeEvent]]) -> None:
        signal = "records_changed"
        self._settle_for([receiver], None)
        if self._blocked:
            pairs = [pair for pair in pairs if not self._park(pair[0], receiver, signal, model)]
        if not pairs:
            return
        events = [event for _, event in pairs]

        def keep(name: str, error: BaseException) -> None:
            for change, _ in pairs:
                if not self._park(change, receiver, signal, model):
                    self._keep(change, name, signal, model, _of_one(error, pairs))

        for failure in self._call(signal, [receiver], pairs[0][0], keep, sender=model, events=events):
            keep(failure.receiver, failure.error)


def _of_one(error: BaseException, told: Sequence[Any]) -> BaseException:
    """Return the error of one of the changes told together: which of them ends the process, their retries find out."""
    return RedeliveryError(str(error)) if isinstance(error, ProcessEndedError) and len(told) > 1 else error


class _Source(NamedTuple):
    """What the event of a change in a page is made of."""

    records: Records
    change: Change
    builder: InstanceBuilder
    columns: Sequence[str]
    sender: Model
    child: models.Model | None
    """The instance, where the sender is a multi-table child."""

    def old(self) -> Mapping[str, Any]:
        return self.records.old(self.change, self.builder)

    def instance(self) -> models.Model:
        if self.child is not None:
            return self.child
        return self.records.instance(self.builder, self.change.id, self.sender)
