"""One page of changes on its way to the receivers: typed images, instances, events, signals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, models, transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import Signal

from hc_signals import signals
from hc_signals.changelog import ChangeLog
from hc_signals.deliveries import keep_failure
from hc_signals.dispatch import Failure, Receivers, receivers_of, receivers_of_only, send
from hc_signals.events import Change, ChangeEvent
from hc_signals.instances import InstanceBuilder, child_instances, children_of, proxies_of
from hc_signals.on_delete import apply_on_delete
from hc_signals.triggers import NOISE_COLUMNS

Model = type[models.Model]

CHANGE_TYPES = {"INSERT": "CREATE", "UPDATE": "UPDATE", "DELETE": "DELETE"}
_SIGNALS = {
    "CREATE": signals.record_created,
    "UPDATE": signals.record_updated,
    "DELETE": signals.record_deleted,
}
_DJANGO = (post_save, post_delete)
_EVERY = (
    *_SIGNALS.values(),
    signals.record_changed,
    signals.records_changed,
    signals.record_linked,
    signals.sync_failed,
    *_DJANGO,
)


@dataclass(frozen=True)
class Extras:
    """What is done for changes beside our own signals, for which models."""

    django_signals: frozenset[Model] = frozenset()
    on_delete: frozenset[Model] = frozenset()


class Page:
    """The changes of one page, with everything read once per table that their receivers need.

    Args:
        log: where the changes come from.
        changes: in order.
        builders: by the name of the table as the log has it; a change of another table is passed over.
        extras: what else is done, for which models.
    """

    def __init__(
        self, log: ChangeLog, changes: Iterable[Change], builders: Mapping[str, InstanceBuilder], extras: Extras
    ) -> None:
        self.log, self.using, self.builders, self.extras = log, log.using, builders, extras
        self._listeners: dict[tuple[Signal, Model, bool], Receivers] = {}
        self._rows: dict[int, tuple[Any, ...]] = {}
        self._old_rows: dict[int, tuple[Any, ...]] = {}
        self._inherited: dict[int, dict[str, Any]] = {}
        self._unreadable: dict[int, Exception] = {}
        self._children: dict[int, list[models.Model]] = defaultdict(list)
        self._proxies: dict[str, list[Model]] = {}
        self._bulk: dict[tuple[Model, bool], list[tuple[Change, ChangeEvent]]] = defaultdict(list)
        by_table: dict[str, list[Change]] = defaultdict(list)
        for change in changes:
            if change.operation in CHANGE_TYPES:
                by_table[change.table_name].append(change)
        for label, table_changes in by_table.items():
            if label in builders:
                self._load(label, table_changes)

    def _load(self, label: str, changes: list[Change]) -> None:
        builder = self.builders[label]
        self._proxies[label] = [proxy for proxy in proxies_of(builder.model) if self._heard(proxy, only=True)]
        if not self._wanted(builder.model):
            return
        rows = self._images(builder, [change.id for change in changes], "latest")
        self._rows |= rows
        updates = [change.id for change in changes if change.operation == "UPDATE"]
        self._old_rows |= self._images(builder, updates, "old")
        self._inherited |= builder.inherited(rows)
        if any(self._wanted(child, only=True) for child in children_of(builder.model)):
            parents = {key: builder.instance(row, inherited=self._inherited.get(key)) for key, row in rows.items()}
            self._load_children(builder.model, parents)

    def _load_children(self, parent: Model, parents: Mapping[int, models.Model]) -> None:
        for child in children_of(parent):
            if parents and self._wanted(child, only=True):
                instances = child_instances(child, parent, parents, self.using)
                if self._heard(child, only=True):
                    for key, instance in instances.items():
                        self._children[key].append(instance)
                self._load_children(child, instances)

    def _wanted(self, model: Model, only: bool = False) -> bool:
        """Tell whether anyone listens to the model, a proxy or a child of it."""
        others = (*proxies_of(model), *children_of(model))
        return self._heard(model, only) or any(self._wanted(other, only=True) for other in others)

    def _heard(self, model: Model, only: bool = False) -> bool:
        return any(self._receivers(signal, model, only) for signal in _EVERY)

    def _receivers(self, signal: Signal, model: Model, only: bool) -> Receivers:
        """Return who listens; for proxies and children ``only`` those connected to them and not to every sender."""
        key = (signal, model, only)
        if key not in self._listeners:
            self._listeners[key] = self._find_receivers(*key)
        return self._listeners[key]

    def _find_receivers(self, signal: Signal, model: Model, only: bool) -> Receivers:
        if signal in _DJANGO and not any(issubclass(model, chosen) for chosen in self.extras.django_signals):
            return []
        first: Receivers = []
        if signal is signals.record_deleted and model in self.extras.on_delete:
            first = [(apply_on_delete, False)]
        return first + (receivers_of_only(signal, model) if only else receivers_of(signal, model))

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
                self._unreadable[ids[0]] = error
                return {}
            middle = len(ids) // 2
            return self._images(builder, ids[:middle], image) | self._images(builder, ids[middle:], image)

    def deliver(self, change: Change) -> None:
        """Send one change to everyone who listens."""
        builder = self.builders.get(change.table_name)
        if builder is None:
            return
        if change.operation not in CHANGE_TYPES:
            self._send_gap(change, builder.model)
        elif change.id in self._unreadable:
            self._keep(change, [Failure("*", self._unreadable[change.id])])
        elif change.id in self._rows:
            self._send_change(change, builder)

    def _send_gap(self, change: Change, model: Model) -> None:
        event = event_of(change, model, "GAP_OVERFLOW", cause=change.operation.lower())
        receivers = self._receivers(signals.gap_detected, model, only=False)
        self._keep(change, send(signals.gap_detected, receivers, self.using, sender=model, instance=None, event=event))

    def _send_change(self, change: Change, builder: InstanceBuilder) -> None:
        row, inherited = self._rows[change.id], self._inherited.get(change.id)
        if self._heard(builder.model):
            self._send(change, builder, builder.instance(row, inherited=inherited), only=False)
        for proxy in self._proxies[change.table_name]:
            self._send(change, builder, builder.instance(row, proxy, inherited), only=True)
        for child in self._children.get(change.id, ()):
            self._send(change, builder, child, only=True)

    def _send(self, change: Change, builder: InstanceBuilder, instance: models.Model, only: bool) -> None:
        old_row, changed = self._old_rows.get(change.id), change.changed or []
        old_values = builder.previous(old_row, changed) if old_row is not None else {}
        linked = "sfid" in changed and old_values.get(builder.name_of_column.get("sfid", "")) is None
        fields = [c for c in changed if c not in NOISE_COLUMNS or (c == "sfid" and not linked)]
        names = tuple(builder.name_of_column[c] for c in fields if c in builder.name_of_column)
        event = event_of(
            change,
            builder.model,
            CHANGE_TYPES[change.operation],
            changed_fields=names,
            previous={name: old_values[name] for name in names if name in old_values},
            instance=instance,
        )
        if linked:
            self._tell(signals.record_linked, change, event, only)
        if "_hc_err" in changed:
            self._tell(signals.sync_failed, change, event, only, message=getattr(instance, "_hc_err", None) or "")
        if fields or change.operation != "UPDATE":
            self._tell_change(change, event, only)

    def _tell_change(self, change: Change, event: ChangeEvent, only: bool) -> None:
        self._tell(_SIGNALS[event.change_type], change, event, only)
        self._tell(signals.record_changed, change, event, only)
        if self._receivers(signals.records_changed, type(event.instance), only):
            self._bulk[type(event.instance), only].append((change, event))
        if event.change_type == "DELETE":
            self._call(post_delete, change, event.instance, only, origin=event.instance)
        else:
            created = event.change_type == "CREATE"
            update_fields = None if created else frozenset(event.changed_fields)
            self._call(post_save, change, event.instance, only, created=created, raw=False, update_fields=update_fields)

    def _tell(self, signal: Signal, change: Change, event: ChangeEvent, only: bool, **more: Any) -> None:
        self._call(signal, change, event.instance, only, event=event, **more)

    def _call(self, signal: Signal, change: Change, instance: models.Model, only: bool, **named: Any) -> None:
        sender = type(instance)
        receivers = self._receivers(signal, sender, only)
        self._keep(change, send(signal, receivers, self.using, sender=sender, instance=instance, **named))

    def deliver_bulk(self) -> None:
        """Send ``records_changed`` once per model, for all that was delivered so far."""
        for (model, only), pairs in self._bulk.items():
            receivers = self._receivers(signals.records_changed, model, only)
            events = [event for _, event in pairs]
            self._keep(pairs[0][0], send(signals.records_changed, receivers, self.using, sender=model, events=events))
        self._bulk.clear()

    def _keep(self, change: Change, failures: list[Failure]) -> None:
        for failure in failures:
            keep_failure(self.using, self.log.consumer, change, failure.receiver, failure.error)


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
        replay_id=str(change.id),
        event_id=f"{change.xid}-{change.id}",
        **more,
    )
