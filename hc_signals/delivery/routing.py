"""What is told of a change: which signals, and the event that they carry."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

from django.db import models

from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.listeners import OF_CHANGE_TYPE
from hc_signals.events import ChangeEvent
from hc_signals.log.change import Change
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


def signals_of(change: Change) -> tuple[str, ...]:
    """Return the signals of a change of one record; a snapshot for named receivers is news to them: a creation's."""
    change_type = CHANGE_TYPES[change.operation]
    return OF_CHANGE_TYPE["CREATE" if change_type == "SNAPSHOT" and change.named_receivers else change_type]


def is_link(change: Change, old: Mapping[str, Any]) -> bool:
    """Tell whether it is the change by which Salesforce gave the record its id.

    Args:
        old: see :meth:`Source.old`; only looked at where the sfid has changed.
    """
    return "sfid" in (change.changed or ()) and old.get("sfid") is None


def counting(change: Change, is_link: bool) -> tuple[str, ...]:
    """Return the changed columns without Heroku Connect's bookkeeping; an sfid that is replaced by another counts."""
    return tuple(c for c in change.changed or () if c not in NOISE_COLUMNS or (c == "sfid" and not is_link))


def told_of(change: Change, columns: Sequence[str], is_link: bool) -> tuple[str, ...]:
    """Return the names of the signals that tell a change of one record, in the order in which they are sent.

    Args:
        columns: those of the changed ones that count.
        is_link: Salesforce has given the record its id by it.
    """
    told = ("record_linked",) * is_link + ("sync_failed",) * ("_hc_err" in (change.changed or ()))
    return told + signals_of(change) if columns or change.operation != "UPDATE" else told


class Source(Protocol):
    """What the event of a change of one record is made of."""

    @property
    def change(self) -> Change:
        """The change."""

    @property
    def builder(self) -> InstanceBuilder:
        """Of the model whose table it is."""

    @property
    def columns(self) -> Sequence[str]:
        """The changed columns that count."""

    def old(self) -> Mapping[str, Any]:
        """Return the old image as the database has it, by column: the changed columns at least."""

    def instance(self) -> models.Model:
        """Return the instance that the event is about."""


class RecordEvent(ChangeEvent[Any]):
    """The event of a change of one record. Most receivers read little of it: a field is made when it is first read."""

    __slots__ = ("_source",)

    @classmethod
    def of(cls, source: Source) -> "RecordEvent":
        """Return an event all of whose fields are still to be made."""
        event = object.__new__(cls)
        object.__setattr__(event, "_source", source)
        return event

    def __getattr__(self, name: str) -> Any:
        """Make a field whose slot is empty."""
        if name in _OF_CHANGE:
            value = _OF_CHANGE[name](self._source.change)
        elif name in _OF_RECORD:
            value = _OF_RECORD[name](self._source)
        elif name in _NOT_OF_RECORDS:
            value = _NOT_OF_RECORDS[name]
        else:
            raise AttributeError(f"a ChangeEvent has no {name!r}", name=name, obj=self)
        object.__setattr__(self, name, value)
        return value


def _changed_fields(source: Source) -> tuple[str, ...]:
    names = source.builder.name_of_column
    return tuple(names[column] for column in source.columns if column in names)


def _previous(source: Source) -> dict[str, Any]:
    old, names = source.old(), source.builder.name_of_column
    return source.builder.previous(
        {column: old[column] for column in source.columns if column in old and column in names}
    )


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
_OF_RECORD: Mapping[str, Callable[[Source], Any]] = {
    "change_type": lambda source: CHANGE_TYPES[source.change.operation],
    "entity_name": lambda source: _entity_name(source.builder.model),
    "changed_fields": _changed_fields,
    "previous": _previous,
    "instance": lambda source: source.instance(),
}
_NOT_OF_RECORDS: Mapping[str, Any] = {"attempt": 1, "cause": "", "since": None, "until": None, "counts": {}}


def _entity_name(model: type[models.Model]) -> str:
    return str(getattr(model, "sf_object_name", ""))


def table_event(change: Change, model: type[models.Model]) -> ChangeEvent:
    """Return the event of a whole table: of a reload with its counts; of a GAP or a TRUNCATE, with the cause."""
    note = change.note or {}
    more: dict[str, Any] = {"cause": cause_of(change)}
    if change.operation in TABLE_SIGNALS:
        more = {"counts": {name: note[name] for name in COUNTS if name in note}}
    return ChangeEvent(
        **{name: make(change) for name, make in _OF_CHANGE.items()},
        change_type=change_type_of(change.operation),
        entity_name=_entity_name(model),
        since=change.noted_time("since"),
        until=change.noted_time("until"),
        **more,
    )


def cause_of(change: Change) -> str:
    """Return why a change is a gap: what its note says; of a TRUNCATE, that it was one."""
    return str((change.note or {}).get("cause", change.operation.lower()))


def change_type_of(operation: str) -> str:
    """Return the type of the event that tells a row of the log."""
    return CHANGE_TYPES.get(operation) or (operation if operation in TABLE_SIGNALS else "GAP_OVERFLOW")
