"""The event of a change, and the arguments with which each signal is sent."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from django.db import models

from hc_signals.delivery.instances import InstanceBuilder, as_saved
from hc_signals.delivery.records import Records
from hc_signals.delivery.routing import FIRST_SIGNAL, ROUTES, route_of
from hc_signals.events import ChangeEvent, in_dry_run
from hc_signals.log.change import Change
from hc_signals.signals import record_created

COUNTS = ("cleared", "unchanged", "changed", "created", "deleted", "resynced")
"""Counts that the note of a reload or resync may have."""


class Source(NamedTuple):
    """What the events of alike changes of records are made from, besides the change."""

    records: Records
    builder: InstanceBuilder
    columns: Sequence[str]
    """The changed columns that count."""
    sender: type[models.Model]
    child: models.Model | None
    """The instance, if the sender is a multi-table child."""


_set = object.__setattr__
"""Sets a field of a frozen event."""


class RecordEvent(ChangeEvent[Any]):
    """The event of a change of one record. Most receivers read few fields of it: each is made when it is first read."""

    __slots__ = ("_change", "_source")

    @classmethod
    def of(cls, change: Change, source: Source) -> "RecordEvent":
        """Return an event whose fields are still to be made."""
        event = object.__new__(cls)
        _set(event, "_change", change)
        _set(event, "_source", source)
        return event

    def __getattr__(self, name: str) -> Any:
        """Make a field whose slot is empty."""
        if name in _OF_RECORD:
            value = _OF_RECORD[name](self._change, self._source)
        elif name in _OF_CHANGE:
            value = _OF_CHANGE[name](self._change)
        elif name in _NOT_OF_RECORDS:
            value = _NOT_OF_RECORDS[name]
        elif name == "dry_run":  # not kept: a dry run wants to know which receivers read it
            return _dry_run(self._change)
        else:
            raise AttributeError(f"a ChangeEvent has no {name!r}", name=name, obj=self)
        _set(self, name, value)
        return value


class _StoredEvent(ChangeEvent[Any]):
    """The event of a stored delivery. Its pending fields are made when they are first read: that takes two queries."""

    __slots__ = ("_pending",)

    def __getattr__(self, name: str) -> Any:
        """Make the pending fields: their slot is empty."""
        if name != "pending_fields":
            raise AttributeError(f"a ChangeEvent has no {name!r}", name=name, obj=self)
        value = self._pending()
        _set(self, name, value)
        return value


class _TableDryEvent(ChangeEvent[Any]):
    """The event of a whole table in a dry run."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        """Note that ``dry_run`` is read: its slot is empty."""
        if name != "dry_run":
            raise AttributeError(f"a ChangeEvent has no {name!r}", name=name, obj=self)
        return in_dry_run() or True


def _dry_run(change: Change) -> bool:
    """Return whether a dry run sends the change; note that a receiver asks."""
    return change.dry_run and (in_dry_run() or True)


def _changed_fields(builder: InstanceBuilder, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(builder.name_of_column[column] for column in columns if column in builder.name_of_column)


def _previous(builder: InstanceBuilder, columns: Sequence[str], old: Mapping[str, Any]) -> dict[str, Any]:
    return builder.previous({c: old[c] for c in columns if c in old and c in builder.name_of_column})


def _instance(change: Change, source: Source) -> models.Model:
    if source.child is not None:
        return source.child
    return source.records.instance(source.builder, change.id, source.sender)


_OF_CHANGE: Mapping[str, Callable[[Change], Any]] = {
    "change_origin": attrgetter("origin"),
    "record_id": attrgetter("record_id"),
    "record_key": attrgetter("record_key"),
    "transaction_key": attrgetter("xid"),
    "sequence_number": attrgetter("id"),
    "captured_at": attrgetter("captured_at"),
    "replay_id": attrgetter("replay_id"),
    "event_id": attrgetter("event_id"),
    "replayed": attrgetter("replayed"),
}
_OF_RECORD: Mapping[str, Callable[[Change, Source], Any]] = {
    "change_type": lambda change, _: ROUTES[change.operation].change_type,
    "entity_name": lambda _, source: _entity_name(source.builder.model),
    "changed_fields": lambda _, source: _changed_fields(source.builder, source.columns),
    "pending_fields": lambda change, s: _changed_fields(s.builder, s.records.pending(change, s.builder)),
    "previous": lambda change, s: _previous(s.builder, s.columns, s.records.old(change, s.builder)),
    "instance": _instance,
}
_NOT_OF_RECORDS: Mapping[str, Any] = {"attempt": 1, "cause": "", "since": None, "until": None, "counts": {}}


def _entity_name(model: type[models.Model]) -> str:
    return str(getattr(model, "sf_object_name", ""))


def stored_event(
    change: Change,
    builder: InstanceBuilder,
    old: Mapping[str, Any],
    instance: models.Model,
    *,
    attempt: int,
    columns: Sequence[str],
    pending: Callable[[], Sequence[str]],
) -> ChangeEvent:
    """Return the event of a change whose delivery is stored, made now; for the arguments see :class:`Source`.

    ``pending`` returns the columns that :func:`~hc_signals.delivery.app_writes.pending_columns` has for the change.
    """
    event = _event(
        change,
        builder.model,
        _StoredEvent,
        attempt=attempt,
        changed_fields=_changed_fields(builder, columns),
        previous=_previous(builder, columns, old),
        instance=instance,
    )
    object.__delattr__(event, "pending_fields")
    _set(event, "_pending", lambda: _changed_fields(builder, pending()))
    return event


def table_event(change: Change, model: type[models.Model], *, attempt: int = 1) -> ChangeEvent:
    """Return the event of a whole table: that of a reload has counts, that of a gap a cause."""
    note, is_gap = change.note or {}, route_of(change.operation).signals == ("gap_detected",)
    kind = _TableDryEvent if change.dry_run else ChangeEvent
    event = _event(
        change,
        model,
        kind,
        attempt=attempt,
        since=change.noted_time("since"),
        until=change.noted_time("until"),
        cause=cause_of(change) if is_gap else "",
        counts={} if is_gap else {name: note[name] for name in COUNTS if name in note},
    )
    if change.dry_run:
        object.__delattr__(event, "dry_run")
    return event


def _event(change: Change, model: type[models.Model], kind: type[ChangeEvent[Any]], **fields: Any) -> ChangeEvent:
    of_change = {name: make(change) for name, make in _OF_CHANGE.items()}
    change_type = route_of(change.operation).change_type
    return kind(**of_change, **fields, change_type=change_type, entity_name=_entity_name(model))


def cause_of(change: Change) -> str:
    """Return why a change is a gap: the cause in its note; for a TRUNCATE, ``truncate``."""
    return str((change.note or {}).get("cause", change.operation.lower()))


_WITH_OTHER_ARGUMENTS = frozenset({"records_changed", "post_save", "post_delete", "sync_failed"})
"""Signals that are not sent with ``instance`` and ``event``."""


def arguments(signal: str, event: ChangeEvent) -> dict[str, Any]:
    """Return the arguments with which a signal is sent, except ``sender`` and ``using``."""
    if signal not in _WITH_OTHER_ARGUMENTS:
        return {"instance": event.instance, "event": event}
    if signal == "records_changed":
        return {"events": [event]}
    if signal == "post_save":
        created = FIRST_SIGNAL[event.change_type] is record_created
        update_fields = frozenset(event.changed_fields) or None  # None: any field may have changed
        instance = as_saved(event.instance, event.previous, is_new=created)
        return {"instance": instance, "created": created, "raw": False, "update_fields": update_fields}
    if signal == "post_delete":
        return {"instance": event.instance, "origin": event.instance}
    message = getattr(event.instance, "_hc_err", None) or ""
    return {"instance": event.instance, "event": event, "message": message}
