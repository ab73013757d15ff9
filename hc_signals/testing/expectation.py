"""The signal that assert_signal() expects: its arguments are checked first, then compared with sent signals."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db.models import Model
from django.dispatch import Signal

from hc_signals.delivery.routing import DJANGO_SIGNALS, SIGNALS, TABLE_SIGNALS
from hc_signals.tables import connected_models, connected_tables_of, counts_as_change
from hc_signals.testing.field_names import unknown_field
from hc_signals.testing.salesforce_ids import with_checksum
from hc_signals.testing.sent import Sent

OUR_SIGNALS = {name: signal for name, signal in SIGNALS.items() if name not in DJANGO_SIGNALS}
_NAMES = {signal: name for name, signal in OUR_SIGNALS.items()}

_NEVER = {
    "changed": ("record_created", "record_deleted", *TABLE_SIGNALS),
    "previous": ("record_created", "record_deleted", *TABLE_SIGNALS),
    "values": TABLE_SIGNALS,
    "record_id": TABLE_SIGNALS,
}
"""By argument: the signals whose events have no such value."""


@dataclass(frozen=True)
class ExpectedSignal:
    """A signal with conditions on its event."""

    signal: str
    sender: type[Model]
    changed: frozenset[str] | None
    values: Mapping[str, Any]
    """By attribute of the instance."""
    previous: Mapping[str, Any]
    record_id: str | None
    given: Mapping[str, Any] = field(default_factory=dict)
    """The arguments as the test gave them, for messages."""

    @classmethod
    def of(cls, signal: Signal, sender: type[Model], **given: Any) -> Self:
        """Check the arguments of assert_signal() and return them.

        Raises:
            LookupError: the signal, the sender or a field is unknown, or the signal has no such value.
            TypeError: ``changed`` is a text, or ``record_id`` None.
            ValueError: a field cannot have a value.
        """
        if given.get("record_id", "") is None:
            raise TypeError("record_id is None; expected an sfid. Leave the argument out for any record.")
        given = {key: value for key, value in given.items() if value not in (None, "")}
        changed, record_id = given.get("changed"), given.get("record_id")
        if isinstance(changed, str):
            raise TypeError(f"changed is {changed!r}; expected a set of field names, {{{changed!r}}}.")
        name = _name_of(signal)
        check_sender(sender)
        for key in given:
            if name in _NEVER[key]:
                raise LookupError(f"{name} has no {key!r} to compare with; leave the argument out.")
        given |= {} if changed is None else {"changed": set(changed)}
        return cls(
            signal=name,
            sender=sender,
            changed=None if changed is None else _changing(sender, given["changed"]),
            values=_attributes(sender, given.get("values", {})),
            previous=_old_values(sender, given.get("previous", {})),
            record_id=with_checksum(record_id) if record_id and len(record_id) == 15 else record_id,
            given=given,
        )

    def matches(self, sent: Sent[Any]) -> bool:
        """Return whether a sent signal is of this kind and meets the conditions."""
        event = sent.event
        return (
            (sent.signal, sent.sender) == (self.signal, self.sender)
            and self.changed in (None, frozenset(event.changed_fields))
            and self.record_id in (None, event.record_id)
            and all(event.instance is not None and getattr(event.instance, n) == v for n, v in self.values.items())
            and all(n in event.previous and event.previous[n] == v for n, v in self.previous.items())
        )

    def __str__(self) -> str:
        conditions = ", ".join(f"{key}={value!r}" for key, value in self.given.items())
        return f"{self.signal} of {self.sender._meta.label}" + (f" with {conditions}" if conditions else "")


def _name_of(signal: Signal) -> str:
    if signal not in _NAMES:
        raise LookupError(f"{signal!r} is not one of hc_signals.signals; expected one of {', '.join(OUR_SIGNALS)}.")
    return _NAMES[signal]


def check_sender(sender: Any) -> None:
    """Refuse a model for which no signal is sent.

    Raises:
        LookupError: the sender is neither a connected model nor its proxy or child.
    """
    if not (isinstance(sender, type) and issubclass(sender, Model) and connected_tables_of(sender)):
        known = ", ".join(model._meta.label for model in connected_models())
        label = sender._meta.label if hasattr(sender, "_meta") else repr(sender)
        raise LookupError(f"No signal is sent for {label}; expected a connected model ({known}), its proxy or child.")


def _changing(sender: type[Model], names: Iterable[str]) -> frozenset[str]:
    return frozenset(_changing_field(sender, name).name for name in names)


def _old_values(sender: type[Model], values: Mapping[str, Any]) -> dict[str, Any]:
    return {_changing_field(sender, name).name: _value(sender, name, value) for name, value in values.items()}


def _changing_field(sender: type[Model], name: str) -> Any:
    """Return a field that can be among the changed fields of an event."""
    found = _field(sender, name)
    if found is None:
        known = [each.name for each in sender._meta.concrete_fields if counts_as_change(each.column)]
        raise LookupError(unknown_field(sender._meta.label, name, known))
    if not counts_as_change(found.column):
        raise LookupError(f"{name!r} is never among the changed fields of an event, because it is bookkeeping.")
    return found


def _field(sender: type[Model], name: str) -> Any:
    """Return the field with that name or attname; None if there is none, or it has no column."""
    try:
        found = sender._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    return found if getattr(found, "column", None) else None


def _attributes(sender: type[Model], values: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        each = _field(sender, name)
        is_property = isinstance(inspect.getattr_static(sender, name, None), property | cached_property)
        if each is None and not is_property:
            raise LookupError(unknown_field(sender._meta.label, name, (f.name for f in sender._meta.concrete_fields)))
        found[each.attname if each is not None else name] = _value(sender, name, value) if each is not None else value
    return found


def _value(sender: type[Model], name: str, value: Any) -> Any:
    """Return a value as an instance has it: the key of a relation, a text converted by the field."""
    each = _field(sender, name)
    if each.is_relation:
        each = each.target_field
        value = getattr(value, each.attname) if isinstance(value, Model) else value
    if not isinstance(value, str):
        return value  # also mock.ANY and pytest.approx, which compare by themselves
    try:
        return each.to_python(value)
    except ValidationError as error:
        raise ValueError(f"{sender._meta.label}.{name} cannot be {value!r}: {' '.join(error.messages)}") from error
