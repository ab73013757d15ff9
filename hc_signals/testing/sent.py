"""One signal that was sent, as a line of a test's failure shows it."""

from dataclasses import dataclass
from typing import Any, Generic

from django.db.models import Model

from hc_signals.events import ChangeEvent, M_co


@dataclass(frozen=True)
class Sent(Generic[M_co]):
    """One signal that was sent. ``records_changed`` gives one of these per event."""

    signal: str
    sender: type[Model]
    event: ChangeEvent[M_co]

    @property
    def instance(self) -> M_co:
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
