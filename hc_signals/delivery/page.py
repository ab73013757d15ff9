"""One page of changes on its way to the receivers: typed images, instances, events, signals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, models

from hc_signals.delivery.deliveries import Deliveries
from hc_signals.delivery.dispatch import Isolation, Receivers, receiver_path, send
from hc_signals.delivery.instances import InstanceBuilder, child_instances, children_of, proxies_of
from hc_signals.delivery.listeners import OF_CHANGE_TYPE, SIGNALS, Listeners, Model, arguments
from hc_signals.events import Change, ChangeEvent
from hc_signals.log.changelog import ChangeLog
from hc_signals.log.images import logged_images
from hc_signals.tables import NOISE_COLUMNS

CHANGE_TYPES = {
    "INSERT": "CREATE",
    "UPDATE": "UPDATE",
    "DELETE": "DELETE",
    "SNAPSHOT": "SNAPSHOT",
    "GAP_CREATE": "GAP_CREATE",
    "GAP_UPDATE": "GAP_UPDATE",
}
"""By the operation in the log, of those that concern one record; any other concerns its whole table."""

TABLE_SIGNALS = {"RELOADED": "table_reloaded", "RESYNCED": "table_resynced"}
"""By the operation in the log, of those that concern a whole table; any other is a gap."""

COUNTS = ("cleared", "unchanged", "changed", "created", "deleted", "resynced")
"""What the note of a reload or resync may count."""


class Page:
    """The changes of one page, with everything read once per table that their receivers need.

    Args:
        log: where the changes come from.
        deliveries: where failures go, and what waits behind them.
        changes: in order.
        builders: by the name of the table as the log has it; a change of another table is passed over.
        listeners: who is called.
        any_kept: whether the consumer has any delivery that waits.
    """

    def __init__(
        self,
        log: ChangeLog,
        deliveries: Deliveries,
        changes: Iterable[Change],
        builders: Mapping[str, InstanceBuilder],
        listeners: Listeners,
        *,
        any_kept: bool,
    ) -> None:
        self.log, self.using, self.builders = log, log.using, builders
        self.deliveries, self.listeners = deliveries, listeners
        self._isolation = Isolation(log.using)
        self._rows: dict[int, tuple[Any, ...]] = {}
        self._old: dict[int, dict[str, Any]] = {}
        self._inherited: dict[int, dict[str, Any]] = {}
        self._unreadable: dict[int, Exception] = {}
        self._children: dict[int, list[models.Model]] = defaultdict(list)
        self._proxies: dict[str, list[Model]] = {}
        self._bulk: dict[tuple[Model, bool], list[tuple[Change, ChangeEvent]]] = defaultdict(list)
        by_table: dict[str, list[Change]] = defaultdict(list)
        for change in changes:
            if change.table_name in builders:
                by_table[change.table_name].append(change)
        self._blocked = deliveries.blocked(changes) if by_table and any_kept else set()
        for label, table_changes in by_table.items():
            consumer = deliveries.conf.CONSUMER
            own = [c for c in table_changes if c.operation in CHANGE_TYPES and c.is_for(consumer)]
            self._load(label, own)

    def _load(self, label: str, changes: list[Change]) -> None:
        builder = self.builders[label]
        self._proxies[label] = [p for p in proxies_of(builder.model) if self.listeners.heard(p, only=True)]
        if not self.listeners.wanted(builder.model):
            return
        updates = {change.id: change.changed or [] for change in changes if change.operation == "UPDATE"}
        changed = set().union(*updates.values())
        old_columns = [column for column in builder.columns if column in changed]
        found = self._images(builder, old_columns, [change.id for change in changes])
        width = len(builder.columns)
        rows = {key: row[:width] for key, row in found.items()}
        self._rows |= rows
        for key in updates.keys() & found.keys():
            values = dict(zip(old_columns, found[key][width:], strict=True))
            self._old[key] = {column: values[column] for column in updates[key] if column in values}
        self._inherited |= builder.inherited(rows)
        if any(self.listeners.wanted(child, only=True) for child in children_of(builder.model)):
            parents = {key: builder.instance(row, inherited=self._inherited.get(key)) for key, row in rows.items()}
            self._load_children(builder.model, parents)

    def _load_children(self, parent: Model, parents: Mapping[int, models.Model]) -> None:
        for child in children_of(parent):
            if parents and self.listeners.wanted(child, only=True):
                instances = child_instances(child, parent, parents, self.using)
                if self.listeners.heard(child, only=True):
                    for key, instance in instances.items():
                        self._children[key].append(instance)
                self._load_children(child, instances)

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
        row, inherited = self._rows[change.id], self._inherited.get(change.id)
        if self.listeners.heard(builder.model):
            self._send(change, builder, builder.instance(row, inherited=inherited), only=False)
        for proxy in self._proxies[change.table_name]:
            self._send(change, builder, builder.instance(row, proxy, inherited), only=True)
        for child in self._children.get(change.id, ()):
            self._send(change, builder, child, only=True)

    def _keep_for_everyone(self, change: Change, model: Model, error: Exception) -> None:
        """Nobody can be told: the delivery is kept for each who should have been."""
        targets = [(model, False), *((proxy, True) for proxy in self._proxies[change.table_name])]
        for sender, only in targets:
            for signal in signals_of(change):
                for receiver, _ in self._receivers(signal, sender, change, only):
                    self._keep(change, receiver_path(receiver), signal, sender, error)

    def _send(self, change: Change, builder: InstanceBuilder, instance: models.Model, only: bool) -> None:
        event, names = event_and_signals(change, builder, self._old.get(change.id, {}), instance)
        sender = type(instance)
        for name in names:
            if not self.listeners.receivers(name, sender, only):
                continue
            if name == "records_changed":
                self._bulk[sender, only].append((change, event))
            else:
                self._tell(name, sender, change, event, only)

    def _tell(self, signal: str, sender: Model, change: Change, event: ChangeEvent, only: bool) -> None:
        receivers = self._free(signal, sender, change, only)
        if receivers:
            named = arguments(signal, event)
            for failure in send(SIGNALS[signal], receivers, self.using, self._isolation, sender=sender, **named):
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
        named = change.named_receivers if receivers and change.note else ()
        return [pair for pair in receivers if receiver_path(pair[0]) in named] if named else receivers

    def _keep(self, change: Change, receiver: str, signal: str, sender: Model, error: Exception) -> None:
        self.deliveries.keep(change, receiver, signal, sender._meta.label, error)
        if self.deliveries.conf.MAX_ATTEMPTS > 1:
            self._blocked.add((receiver, change.table_name, change.record))

    def deliver_bulk(self) -> None:
        """Send ``records_changed`` once per model, for all that was delivered so far."""
        for (model, only), pairs in self._bulk.items():
            for receiver, is_async in self.listeners.receivers("records_changed", model, only):
                path = receiver_path(receiver)
                free = [pair for pair in pairs if self._is_free(pair[0], path, model)]
                if not free:
                    continue
                events = [event for _, event in free]
                signal = SIGNALS["records_changed"]
                failures = send(
                    signal, [(receiver, is_async)], self.using, self._isolation, sender=model, events=events
                )
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


def signals_of(change: Change) -> tuple[str, ...]:
    """Return the signals of a change of one record; a snapshot for named receivers is news to them: a creation's."""
    change_type = CHANGE_TYPES[change.operation]
    return OF_CHANGE_TYPE["CREATE" if change_type == "SNAPSHOT" and change.named_receivers else change_type]


def event_and_signals(
    change: Change, builder: InstanceBuilder, old: Mapping[str, Any], instance: models.Model
) -> tuple[ChangeEvent, list[str]]:
    """Return the event of a change and the names of the signals that tell it.

    Args:
        old: the old image as the database has it, by column; the changed columns at least.
    """
    changed = change.changed or []
    old_values = builder.previous({column: old[column] for column in changed if column in old})
    linked = "sfid" in changed and old_values.get(builder.name_of_column.get("sfid", "")) is None
    fields = [c for c in changed if c not in NOISE_COLUMNS or (c == "sfid" and not linked)]
    names = tuple(builder.name_of_column[c] for c in fields if c in builder.name_of_column)
    change_type = CHANGE_TYPES[change.operation]
    event = event_of(
        change,
        builder.model,
        change_type,
        changed_fields=names,
        previous={name: old_values[name] for name in names if name in old_values},
        instance=instance,
    )
    told = ["record_linked"] * linked + ["sync_failed"] * ("_hc_err" in changed)
    if fields or change_type != "UPDATE":
        told += signals_of(change)
    return event, told


def event_of(change: Change, model: Model, change_type: str, **more: Any) -> ChangeEvent:
    """Return the event of a change, with the model's Salesforce name."""
    return ChangeEvent(
        change_type=change_type,
        change_origin=change.origin,
        entity_name=str(getattr(model, "sf_object_name", "")),
        record_id=change.record_id,
        record_key=change.record_key,
        transaction_key=change.xid,
        sequence_number=change.id,
        captured_at=change.captured_at,
        replay_id=change.replay_id,
        event_id=change.event_id,
        replayed=change.replayed,
        **more,
    )


def table_event(change: Change, model: Model) -> ChangeEvent:
    """Return the event of a whole table: of a reload with its counts; of a GAP or a TRUNCATE, with the cause."""
    note = change.note or {}
    times = {"since": change.noted_time("since"), "until": change.noted_time("until")}
    if change.operation in TABLE_SIGNALS:
        counts = {name: note[name] for name in COUNTS if name in note}
        return event_of(change, model, change.operation, counts=counts, **times)
    return event_of(change, model, "GAP_OVERFLOW", cause=cause_of(change), **times)


def cause_of(change: Change) -> str:
    """Return why a change is a gap: what its note says; of a TRUNCATE, that it was one."""
    return str((change.note or {}).get("cause", change.operation.lower()))


def change_type_of(operation: str) -> str:
    """Return the type of the event that tells a row of the log."""
    return CHANGE_TYPES.get(operation) or (operation if operation in TABLE_SIGNALS else "GAP_OVERFLOW")
