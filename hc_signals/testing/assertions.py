"""Assertions about the signals that are sent inside a block of a test; a failure lists what was sent instead."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db.models import Model
from django.dispatch import Signal

from hc_signals.tables import connected_models
from hc_signals.testing import delivering
from hc_signals.testing.expectation import OUR_SIGNALS, ExpectedSignal, check_sender
from hc_signals.testing.sent import Sent

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # The default is the type of what is collected without naming a model.
    M = TypeVar("M", bound=Model, default=Any)
else:
    from typing import TypeVar

    M = TypeVar("M", bound=Model)


@contextmanager
def capture_signals(*models: type[M]) -> Iterator[list[Sent[M]]]:
    """Collect the signals that are sent inside the block, in order.

    Args:
        models: default: all connected models. A proxy or multi-table child has to be named.

    Raises:
        LookupError: no signal is sent for a model.
    """
    for model in models:
        check_sender(model)
    sent: list[Sent[M]] = []
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


def _recorder(name: str, sent: list[Sent[Any]]) -> Callable[..., None]:
    def record(sender: type[Model], **named: Any) -> None:
        events = named.get("events") or [named["event"]]
        sent.extend(Sent(name, sender, event) for event in events)

    return record


@contextmanager
def assert_signal(
    signal: Signal,
    sender: type[M],
    *,
    changed: Iterable[str] | None = None,
    values: Mapping[str, Any] | None = None,
    previous: Mapping[str, Any] | None = None,
    record_id: str | None = "",
    times: int | None = None,
) -> Iterator[list[Sent[M]]]:
    """Assert that a signal is sent inside the block; the yielded list gets the matching ones when the block ends.

    Arguments that no signal can match are refused before the block runs, so no assertion passes because of a typo.

    Args:
        signal: one of ``hc_signals.signals``.
        sender: the model.
        changed: exactly these fields changed.
        values: the instance has these values. A relation is a key or an instance; properties (a Geolocation) count.
        previous: the record had these values before.
        record_id: sfid of the record, of 15 or 18 characters; default: any record.
        times: exactly so many signals match; default: at least one. With 0, deliver_changes() must still be called.

    Raises:
        AssertionError: another number of signals matched. The message lists what was sent instead.
        LookupError: the signal, the sender or a field is unknown, or the signal has no such value.
        TypeError: ``changed`` is a text, or ``record_id`` None.
        ValueError: ``times`` is negative, or a field cannot have a value.
    """
    expected = ExpectedSignal.of(signal, sender, changed=changed, values=values, previous=previous, record_id=record_id)
    if times is not None and (isinstance(times, bool) or times < 0):
        raise ValueError(f"times is {times!r}; expected a number, 0 or more.")
    matching: list[Sent[M]] = []
    calls_before = delivering.calls
    senders: list[type[Any]] = [*connected_models(), sender]
    with capture_signals(*dict.fromkeys(senders)) as sent:
        yield matching
    matching += [each for each in sent if expected.matches(each)]
    if not sent and delivering.calls == calls_before:
        raise AssertionError(f"{expected} could not be sent: is deliver_changes() called inside the block?")
    if len(matching) == times or (times is None and matching):
        return
    found = "not sent" if times is None else f"sent {len(matching)} time(s), expected {times}"
    raise AssertionError(f"{expected} was {found}. {_listed(sent)}")


def _listed(sent: list[Sent[Any]]) -> str:
    if not sent:
        return "Nothing was sent."
    more = f"\n  … and {len(sent) - 20} more" if len(sent) > 20 else ""
    return "Sent in the block:\n" + "\n".join(f"  {each}" for each in sent[:20]) + more
