"""What was sent inside a block of a test, and assertions about it that say what was sent instead."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from django.dispatch import Signal

from hc_signals.delivery.listeners import SIGNALS
from hc_signals.events import ChangeEvent
from hc_signals.tables import connected_models

_NAMES = {signal: name for name, signal in SIGNALS.items()}
_OURS = {name: signal for name, signal in SIGNALS.items() if name not in ("post_save", "post_delete")}


@dataclass(frozen=True)
class Sent:
    """One signal that was sent; ``records_changed`` counts once per event."""

    signal: str
    sender: type[Model]
    event: ChangeEvent[Any]

    @property
    def instance(self) -> Any:
        """The record."""
        return self.event.instance

    def __str__(self) -> str:
        event = self.event
        changes = ", ".join(
            f"{name} {event.previous.get(name)!r} → {_value(self.instance, name)!r}" for name in event.changed_fields
        )
        record = event.record_id or event.record_key or event.cause or dict(event.counts)
        return f"{self.signal} of {self.sender._meta.label} {record}" + (f": {changes}" if changes else "")


def _value(instance: Any, name: str) -> Any:
    return getattr(instance, instance._meta.get_field(name).attname)


@contextmanager
def capture_signals(*models: type[Model]) -> Iterator[list[Sent]]:
    """Collect the signals that are sent inside the block, in order.

    Args:
        models: default: all connected models. Proxies and multi-table children are heard where they are named.
    """
    sent: list[Sent] = []
    connected: list[tuple[Signal, Callable[..., None], type[Model]]] = []
    for sender in models or connected_models():
        for name, signal in _OURS.items():
            connected.append((signal, _recorder(name, sent), sender))
    for signal, recorder, sender in connected:
        signal.connect(recorder, sender=sender, weak=False)
    try:
        yield sent
    finally:
        for signal, recorder, sender in connected:
            signal.disconnect(recorder, sender=sender)


def _recorder(name: str, sent: list[Sent]) -> Callable[..., None]:
    def record(sender: type[Model], **named: Any) -> None:
        events = named.get("events") or [named["event"]]
        sent.extend(Sent(name, sender, event) for event in events)

    return record


@contextmanager
def assert_signal(
    signal: Signal,
    sender: type[Model],
    *,
    changed: Iterable[str] | None = None,
    values: Mapping[str, Any] | None = None,
    previous: Mapping[str, Any] | None = None,
    record_id: str | None = None,
    times: int | None = None,
) -> Iterator[list[Sent]]:
    """Assert that a signal is sent inside the block; yield those that fit, once the block has ended.

    Args:
        signal: one of ``hc_signals.signals``.
        sender: the model.
        changed: exactly these fields changed.
        values: the instance has these values; relations by their key.
        previous: these are the old values.
        record_id: sfid of the record.
        times: that often; default: at least once. 0: never.

    Raises:
        AssertionError: it was not; the message lists what was sent instead.
        TypeError: ``changed`` is a text.
    """
    if isinstance(changed, str):
        raise TypeError(f"changed is {changed!r}; expected a set of field names, {{{changed!r}}}.")
    wanted: dict[str, Any] = {"changed": None if changed is None else set(changed), "values": values}
    wanted |= {"previous": previous, "record_id": record_id}
    fitting: list[Sent] = []
    with capture_signals(*dict.fromkeys([*connected_models(), sender])) as sent:
        yield fitting
    name = _NAMES[signal]
    fitting += [each for each in sent if (each.signal, each.sender) == (name, sender) and _fits(each.event, wanted)]
    if len(fitting) == times or (times is None and fitting):
        return
    what = f"{name} of {sender._meta.label}"
    conditions = [f"{key}={value!r}" for key, value in wanted.items() if value is not None]
    what += f" with {', '.join(conditions)}" if conditions else ""
    raise AssertionError(f"{what} was {_how_often(len(fitting), times)}. {_listed(sent)}")


def _fits(event: ChangeEvent[Any], wanted: Mapping[str, Any]) -> bool:
    values, previous = wanted["values"] or {}, wanted["previous"] or {}
    return (
        wanted["changed"] in (None, set(event.changed_fields))
        and wanted["record_id"] in (None, event.record_id)
        and all(event.instance is not None and _value(event.instance, name) == value for name, value in values.items())
        and all(name in event.previous and event.previous[name] == value for name, value in previous.items())
    )


def _how_often(found: int, times: int | None) -> str:
    if times is None:
        return "not sent"
    return f"sent {found} time(s), expected {times}"


def _listed(sent: list[Sent]) -> str:
    if not sent:
        return "Nothing was sent: is deliver_changes() called inside the block?"
    more = f"\n  … and {len(sent) - 20} more" if len(sent) > 20 else ""
    return "Sent in the block:\n" + "\n".join(f"  {each}" for each in sent[:20]) + more
