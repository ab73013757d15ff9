"""One page of changes on its way to the receivers: typed images, instances, events, signals."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import DatabaseError, InterfaceError, OperationalError, models

from hc_signals.delivery.deliveries import Deliveries
from hc_signals.delivery.dispatch import Receivers, receiver_path, send
from hc_signals.delivery.instances import InstanceBuilder, child_instances, children_of, proxies_of
from hc_signals.delivery.isolation import Isolation
from hc_signals.delivery.listeners import SIGNALS, Listeners, Model, arguments
from hc_signals.delivery.telling import (
    CHANGE_TYPES,
    TABLE_SIGNALS,
    RecordEvent,
    counting,
    is_link,
    signals_of,
    table_event,
    told_of,
)
from hc_signals.events import Change, ChangeEvent
from hc_signals.log.changelog import ChangeLog
from hc_signals.log.images import logged_images


class Images(NamedTuple):
    """The images of the changes of one table in one page."""

    old_columns: list[str]
    """Those that any of the updates has changed."""
    fetch: Callable[[], list[tuple[Any, ...]]]
    """Makes Python values of what has arrived: see :func:`~hc_signals.log.images.images_sql`."""


class Page:
    """The changes of one page, with everything read once per table that their receivers need.

    Args:
        log: where the changes come from.
        deliveries: where failures go, and what waits behind them.
        changes: in order.
        builders: by the name of the table as the log has it; a change of another table is passed over.
        listeners: who is called.
        any_kept: whether the consumer has any delivery that waits.
        images: what was read already of some of the tables, by their names.
    """

    def __init__(
        self,
        log: ChangeLog,
        deliveries: Deliveries,
        changes: Sequence[Change],
        builders: Mapping[str, InstanceBuilder],
        listeners: Listeners,
        *,
        any_kept: bool,
        images: Mapping[str, Images] | None = None,
    ) -> None:
        self.log, self.using, self.builders = log, log.using, builders
        self.deliveries, self.listeners = deliveries, listeners
        self._isolation = Isolation(log.using)
        self._rows: dict[int, tuple[Any, ...]] = {}
        """By the id of the change: the id, the columns of the latest image, then ``_old_columns`` of the old one."""
        self._old_columns: dict[str, list[str]] = {}
        """By table: those that any of the page's updates has changed."""
        self._inherited: dict[int, dict[str, Any]] = {}
        self._unreadable: dict[int, Exception] = {}
        self._children: dict[int, list[models.Model]] = defaultdict(list)
        self._proxies: dict[str, list[Model]] = {}
        self._bulk: dict[tuple[Model, bool], list[tuple[Change, ChangeEvent]]] = defaultdict(list)
        self._told: dict[Any, tuple[Sequence[str], list[str]]] = {}
        """What a change tells, by all that this depends on: changes of a page are much alike."""
        self._any_note = any(change.note for change in changes)
        self._blocked = deliveries.blocked(changes) if changes and any_kept else set()
        for label, of_table in by_table(changes, builders, deliveries.conf.CONSUMER).items():
            self._load(label, of_table, (images or {}).get(label))

    def _load(self, label: str, changes: list[Change], images: Images | None) -> None:
        builder = self.builders[label]
        self._proxies[label] = [p for p in proxies_of(builder.model) if self.listeners.heard(p, only=True)]
        if not self.listeners.wanted(builder.model):
            return
        old_columns = images.old_columns if images else changed_columns(builder, changes)
        found = self._fetched(images) if images else None
        if found is None:
            found = self._images(builder, old_columns, [change.id for change in changes])
        self._old_columns[label] = old_columns
        self._rows |= found
        has_parents = any(link is not None for link in builder.model._meta.parents.values())
        has_children = any(self.listeners.wanted(child, only=True) for child in children_of(builder.model))
        if not (has_parents or has_children):
            return
        instances = self._instances(builder, found)
        if has_parents:
            self._inherited |= builder.inherited({key: self._latest(builder, key) for key in instances})
        if has_children:
            self._load_children(builder.model, {key: self.instance(builder, key, builder.model) for key in instances})

    def _instances(self, builder: InstanceBuilder, keys: Iterable[int]) -> dict[int, models.Model]:
        """Return those of the instances, without what is inherited, that the project lets be made."""
        found = {}
        for key in keys:
            try:
                found[key] = self.instance(builder, key, builder.model)
            except Exception as error:
                self._unreadable[key] = error
        return found

    def _latest(self, builder: InstanceBuilder, key: int) -> tuple[Any, ...]:
        return self._rows[key][1 : 1 + len(builder.columns)]

    def instance(self, builder: InstanceBuilder, key: int, model: Model) -> models.Model:
        """Return the instance after the change of that id: of the builder's model, or of a proxy."""
        return builder.instance(self._latest(builder, key), model, self._inherited.get(key))

    def old(self, change: Change, builder: InstanceBuilder) -> dict[str, Any]:
        """Return the old image of an update, as far as it was read: nothing of other changes."""
        if change.operation != "UPDATE":
            return {}
        values = self._rows[change.id][1 + len(builder.columns) :]
        return dict(zip(self._old_columns[change.table_name], values, strict=True))

    def _load_children(self, parent: Model, parents: Mapping[int, models.Model]) -> None:
        for child in children_of(parent):
            if parents and self.listeners.wanted(child, only=True):
                instances = child_instances(child, parent, parents, self.using)
                if self.listeners.heard(child, only=True):
                    for key, instance in instances.items():
                        self._children[key].append(instance)
                self._load_children(child, instances)

    @staticmethod
    def _fetched(images: Images) -> dict[int, tuple[Any, ...]] | None:
        """Return what was read already; None where Python cannot hold a value of it: an infinite date, say."""
        try:
            return {row[0]: row for row in images.fetch()}
        except DatabaseError:
            return None

    def _images(self, builder: InstanceBuilder, old_columns: list[str], ids: list[int]) -> dict[int, tuple[Any, ...]]:
        """Read all at once; if one cannot be typed any more, by halves, so that only it fails."""
        if not ids:
            return {}
        try:
            return logged_images(self.using, builder.model, builder.columns, old_columns, ids)
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError as error:
            if len(ids) == 1:
                self._unreadable[ids[0]] = error
                return {}
            middle = len(ids) // 2
            first, second = ids[:middle], ids[middle:]
            return self._images(builder, old_columns, first) | self._images(builder, old_columns, second)

    def deliver(self, change: Change) -> None:
        """Send one change to everyone who listens."""
        builder = self.builders.get(change.table_name)
        if builder is None:
            return
        if change.operation not in CHANGE_TYPES:
            event = table_event(change, builder.model)
            self._tell(TABLE_SIGNALS.get(change.operation, "gap_detected"), builder.model, change, event, only=False)
        elif change.id in self._unreadable:
            self._keep_for_everyone(change, builder.model, self._unreadable[change.id])
        elif change.id in self._rows:
            self._deliver_readable(change, builder)

    def _deliver_readable(self, change: Change, builder: InstanceBuilder) -> None:
        if self.listeners.heard(builder.model):
            self._send(change, builder, builder.model, only=False)
        for proxy in self._proxies[change.table_name]:
            self._send(change, builder, proxy, only=True)
        for child in self._children.get(change.id, ()):
            self._send(change, builder, type(child), child, only=True)

    def _keep_for_everyone(self, change: Change, model: Model, error: BaseException) -> None:
        """Nobody can be told: the delivery is kept for each who should have been."""
        targets = [(model, False), *((proxy, True) for proxy in self._proxies[change.table_name])]
        for sender, only in targets:
            for signal in signals_of(change):
                for receiver, _ in self._receivers(signal, sender, change, only):
                    self._keep(change, receiver_path(receiver), signal, sender, error)

    def _send(
        self, change: Change, builder: InstanceBuilder, sender: Model, child: models.Model | None = None, *, only: bool
    ) -> None:
        columns, names = self._signals(change, builder, sender, only)
        if not names:
            return
        event = RecordEvent.of(_Source(self, change, builder, columns, sender, child))
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
        linked = "sfid" in changed and is_link(change, self.old(change, builder))
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
        except Exception as error:  # of the project: a field's converter, a model's __init__, a receiver of post_init
            for receiver, _ in receivers:
                self._keep(change, receiver_path(receiver), signal, sender, error)
            return
        sent = SIGNALS[signal], receivers, self.using
        for failure in send(*sent, change=change.id, isolation=self._isolation, sender=sender, **named):
            self._keep(change, failure.receiver, signal, sender, failure.error)

    def _free(self, signal: str, sender: Model, change: Change, only: bool) -> Receivers:
        """Return the receivers for whom no earlier change of the record waits; park it for the others."""
        receivers = self._receivers(signal, sender, change, only)
        if not self._blocked:
            return receivers
        free: Receivers = []
        for receiver, is_async in receivers:
            path = receiver_path(receiver)
            if (path, change.table_name, change.record) in self._blocked:
                self.deliveries.park(change, path, signal, sender._meta.label)
            else:
                free.append((receiver, is_async))
        return free

    def _receivers(self, signal: str, sender: Model, change: Change, only: bool) -> Receivers:
        """Return who is to hear of the change: a snapshot may be for some of the receivers."""
        receivers = self.listeners.receivers(signal, sender, only)
        named = change.named_receivers if change.note else ()
        return [pair for pair in receivers if receiver_path(pair[0]) in named] if named else receivers

    def _keep(self, change: Change, receiver: str, signal: str, sender: Model, error: BaseException) -> None:
        self.deliveries.keep(change, receiver, signal, sender._meta.label, error)
        if self.deliveries.conf.MAX_ATTEMPTS > 1:
            self._blocked.add((receiver, change.table_name, change.record))

    def deliver_bulk(self) -> None:
        """Send ``records_changed`` once per model, for all that was delivered so far."""
        for (model, only), pairs in self._bulk.items():
            for receiver, is_async in self.listeners.receivers("records_changed", model, only):
                path = receiver_path(receiver)
                all_free = not self._blocked and not self._any_note
                free = pairs if all_free else [pair for pair in pairs if self._is_free(pair[0], path, model)]
                if not free:
                    continue
                events = [event for _, event in free]
                sent = SIGNALS["records_changed"], [(receiver, is_async)], self.using
                first = free[0][0].id
                failures = send(*sent, change=first, isolation=self._isolation, sender=model, events=events)
                for failure in failures:
                    for change, _ in free:
                        if self._is_free(change, path, model):
                            self._keep(change, path, "records_changed", model, failure.error)
        self._bulk.clear()

    def _is_free(self, change: Change, path: str, model: Model) -> bool:
        if change.named_receivers and path not in change.named_receivers:
            return False
        if (path, change.table_name, change.record) not in self._blocked:
            return True
        self.deliveries.park(change, path, "records_changed", model._meta.label)
        return False


class _Source(NamedTuple):
    """What the event of a change in a page is made of."""

    page: Page
    change: Change
    builder: InstanceBuilder
    columns: Sequence[str]
    sender: Model
    child: models.Model | None
    """The instance, where the sender is a multi-table child."""

    def old(self) -> Mapping[str, Any]:
        return self.page.old(self.change, self.builder)

    def instance(self) -> models.Model:
        if self.child is not None:
            return self.child
        return self.page.instance(self.builder, self.change.id, self.sender)


def by_table(
    changes: Iterable[Change], builders: Mapping[str, InstanceBuilder], consumer: str
) -> dict[str, list[Change]]:
    """Return the changes of single records, as far as they concern the consumer, by the table, which has a model."""
    found: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        if change.table_name in builders and change.operation in CHANGE_TYPES and change.is_for(consumer):
            found[change.table_name].append(change)
    return found


def changed_columns(builder: InstanceBuilder, changes: Iterable[Change]) -> list[str]:
    """Return the columns that any of the updates has changed."""
    changed = {column for change in changes if change.operation == "UPDATE" for column in change.changed or ()}
    return [column for column in builder.columns if column in changed]
