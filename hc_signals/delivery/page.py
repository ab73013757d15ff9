"""One page of changes on its way to the receivers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import models

from hc_signals.delivery.event import RecordEvent, Source, table_event
from hc_signals.delivery.identity import Receivers
from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.listeners import Model
from hc_signals.delivery.records import Images, Records, by_table
from hc_signals.delivery.relatives import proxies_of
from hc_signals.delivery.routing import OF_RECORDS, counted_columns, is_link, route_of, signals_of, signals_of_change
from hc_signals.delivery.sending import SignalSender
from hc_signals.events import ChangeEvent
from hc_signals.log.change import Change

BULK = "records_changed"
"""The signal that is sent once per model and page."""


Way = tuple[Source, list[tuple[str, Receivers]]]
"""What the event of a change is made from; the signals that are sent, in order, with their receivers."""


class Page:
    """The changes of one page, in order. Their records are read once per table, when the page is made.

    Args:
        builders: by table, as the log names it. A change of another table is skipped.
        images: images that were read in advance, by table.
    """

    def __init__(
        self,
        sender: SignalSender,
        changes: Sequence[Change],
        builders: Mapping[str, InstanceBuilder],
        images: Mapping[str, Images] | None = None,
    ) -> None:
        self._sender, self._listeners = sender, sender.listeners
        tables = {change.table_name for change in changes}
        self._builders = {table: builders[table] for table in tables if table in builders}
        self._consumer = sender.store.conf.CONSUMER
        self._records = Records(sender.store.using, sender.listeners)
        self._any_note = any(change.note for change in changes)
        self._bulk: dict[tuple[Model, bool], list[tuple[Change, ChangeEvent]]] = defaultdict(list)
        """Changes with their events, by the model that they are sent for and ``exclusive``."""
        self._proxies: dict[str, list[Model]] = {}
        self._routes: dict[Any, Way] = {}
        """By everything that they depend on: the changes of a page are much alike. A note is of one change."""
        self.unheard: set[str] = set()
        """Tables with changes of records that have no receiver."""
        for label, of_table in by_table(changes, self._builders, self._consumer).items():
            model = self._builders[label].model
            self._proxies[label] = [proxy for proxy in proxies_of(model) if self._listeners.heard(proxy, True)]
            if not self._listeners.wanted(model):
                self.unheard.add(label)
            self._records.load(self._builders[label], of_table, (images or {}).get(label))

    def deliver(self, change: Change) -> None:
        """Send the signals of one change to all its receivers, except ``records_changed``."""
        builder = self._builders.get(change.table_name)
        if builder is None or (change.note and not change.is_for(self._consumer)):
            return
        if change.operation not in OF_RECORDS:
            event = table_event(change, builder.model)
            for signal in route_of(change.operation).signals:
                receivers = self._sender.receivers(signal, builder.model, change, False)
                self._sender.send(signal, receivers, builder.model, change, event)
        elif change.id in self._records.unreadable:
            self._fail_for_all(change, builder.model, self._records.unreadable[change.id])
        elif change.id in self._records:
            self._deliver_record(change, builder)

    def deliver_bulk(self) -> None:
        """Send ``records_changed`` for all changes that were delivered so far, once per model and receiver."""
        for (model, exclusive), pairs in self._bulk.items():
            wanted = {  # a change with a note may be for named receivers
                change.id: {each.name for each in self._sender.receivers(BULK, model, change, exclusive)}
                for change, _ in (pairs if self._any_note else ())
            }
            for receiver in self._listeners.receivers(BULK, model, exclusive):
                mine = [pair for pair in pairs if receiver.name in wanted[pair[0].id]] if wanted else pairs
                self._sender.send_bulk(receiver, model, mine)
        self._bulk.clear()

    def _deliver_record(self, change: Change, builder: InstanceBuilder) -> None:
        """Send the change for its model, for proxies, and for multi-table children."""
        if self._listeners.heard(builder.model):
            self._send(change, builder, builder.model, False)
        for proxy in self._proxies[change.table_name]:
            self._send(change, builder, proxy, True)
        for child in self._records.children.get(change.id, ()):
            self._send(change, builder, type(child), True, child)

    def _fail_for_all(self, change: Change, model: Model, error: BaseException) -> None:
        """Store a failed delivery for each receiver: the record cannot be read."""
        targets = [(model, False), *((proxy, True) for proxy in self._proxies[change.table_name])]
        for sender, exclusive in targets:
            for signal in signals_of(change.operation, is_for_named=bool(change.named_receivers)):
                for receiver in self._sender.receivers(signal, sender, change, exclusive):
                    self._sender.store_failure(change, receiver.name, signal, sender, error)

    def _send(
        self,
        change: Change,
        builder: InstanceBuilder,
        sender: Model,
        exclusive: bool,
        child: models.Model | None = None,
    ) -> None:
        source, signals = self._route(change, builder, sender, exclusive)
        if not signals:
            return
        event = RecordEvent.of(change, source if child is None else source._replace(child=child))
        for signal, receivers in signals:
            if signal == BULK:
                self._bulk[sender, exclusive].append((change, event))
            else:
                self._sender.send(signal, receivers, sender, change, event)

    def _route(self, change: Change, builder: InstanceBuilder, sender: Model, exclusive: bool) -> Way:
        """Return the source of the change's event, and those of the change's signals that have receivers."""
        changed = tuple(change.changed or ())
        linked = "sfid" in changed and is_link(change, self._records.old(change, builder))
        key = (change.operation, changed, linked, sender, exclusive)
        found = None if change.note else self._routes.get(key)
        if found is None:
            columns, signals = counted_columns(change, linked), []
            for signal in signals_of_change(change, columns, linked):
                receivers = self._listeners.receivers(signal, sender, exclusive)
                if receivers and change.note and signal != BULK:
                    receivers = self._sender.receivers(signal, sender, change, exclusive)
                if receivers:
                    signals.append((signal, receivers))
            found = Source(self._records, builder, columns, sender, None), signals
            if not change.note:
                self._routes[key] = found
        return found
