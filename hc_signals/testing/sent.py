"""What was sent inside a block of a test, and assertions about it that say what was sent instead."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from django.dispatch import Signal

from hc_signals.events import ChangeEvent
from hc_signals.tables import connected_models
from hc_signals.testing import delivering
from hc_signals.testing.wanted import OUR_SIGNALS, Wanted, check_sender


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

    Raises:
        LookupError: a model that hears of no change.
    """
    for model in models:
        check_sender(model)
    sent: list[Sent] = []
    connected: list[tuple[Signal, Callable[..., None], type[Model]]] = []
    for sender in models or connected_models():
        for name, signal in OUR_SIGNALS.items():
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
    record_id: str | None = "",
    times: int | None = None,
) -> Iterator[list[Sent]]:
    """Assert that a signal is sent inside the block; yield those that fit, once the block has ended.

    What could never be sent is refused before the block begins, so that no assertion holds because of a typing error.

    Args:
        signal: one of ``hc_signals.signals``.
        sender: the model.
        changed: exactly these fields changed.
        values: the instance has these values; relations by key or instance, properties (a Geolocation) as well.
        previous: these are the old values.
        record_id: sfid of the record, of 15 or 18 characters; default: any record.
        times: that often; default: at least once. 0: never, although deliver_changes() was called inside the block.

    Raises:
        AssertionError: it was not; the message lists what was sent instead.
        LookupError: the signal, the sender or a field is unknown, or the signal never carries what is asked for.
        TypeError: ``changed`` is a text, or ``record_id`` None.
        ValueError: ``times`` is negative, or a field cannot have a value.
    """
    wanted = Wanted.of(signal, sender, changed=changed, values=values, previous=previous, record_id=record_id)
    if times is not None and (isinstance(times, bool) or times < 0):
        raise ValueError(f"times is {times!r}; expected a number, 0 or more.")
    fitting: list[Sent] = []
    delivered = delivering.calls
    with capture_signals(*dict.fromkeys([*connected_models(), sender])) as sent:
        yield fitting
    fitting += [each for each in sent if wanted.fits(each)]
    if not sent and delivering.calls == delivered:
        raise AssertionError(f"{wanted} could not be sent: is deliver_changes() called inside the block?")
    if len(fitting) == times or (times is None and fitting):
        return
    raise AssertionError(f"{wanted} was {_how_often(len(fitting), times)}. {_listed(sent)}")


def _how_often(found: int, times: int | None) -> str:
    if times is None:
        return "not sent"
    return f"sent {found} time(s), expected {times}"


def _listed(sent: list[Sent]) -> str:
    if not sent:
        return "Nothing was sent."
    more = f"\n  … and {len(sent) - 20} more" if len(sent) > 20 else ""
    return "Sent in the block:\n" + "\n".join(f"  {each}" for each in sent[:20]) + more
