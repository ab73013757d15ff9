"""Who listens to what: receivers of our signals and, where chosen, of Django's; and what each signal is sent with."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.db.models.signals import post_delete, post_save
from django.dispatch import Signal

from hc_signals import signals
from hc_signals.delivery.dispatch import Receivers, receiver_path, receivers_of, receivers_of_only
from hc_signals.delivery.instances import children_of, proxies_of
from hc_signals.delivery.on_delete import apply_on_delete
from hc_signals.events import ChangeEvent

Model = type[models.Model]

SIGNALS: dict[str, Signal] = {
    "record_created": signals.record_created,
    "record_updated": signals.record_updated,
    "record_deleted": signals.record_deleted,
    "record_changed": signals.record_changed,
    "records_changed": signals.records_changed,
    "record_linked": signals.record_linked,
    "sync_failed": signals.sync_failed,
    "gap_detected": signals.gap_detected,
    "table_reloaded": signals.table_reloaded,
    "table_resynced": signals.table_resynced,
    "post_save": post_save,
    "post_delete": post_delete,
}
"""By the name under which a kept delivery remembers its signal."""

OF_TABLES = ("gap_detected", "table_reloaded", "table_resynced")
"""The signals that concern a whole table."""

OF_CHANGE_TYPE = {
    "CREATE": ("record_created", "record_changed", "records_changed", "post_save"),
    "UPDATE": ("record_updated", "record_changed", "records_changed", "post_save"),
    "DELETE": ("record_deleted", "record_changed", "records_changed", "post_delete"),
    "SNAPSHOT": ("record_changed", "records_changed"),
    "GAP_CREATE": ("record_created", "record_changed", "records_changed", "post_save"),
    "GAP_UPDATE": ("record_updated", "record_changed", "records_changed", "post_save"),
}
"""The signals of a change, in the order in which they are sent."""


@dataclass(frozen=True)
class Extras:
    """What is done for changes beside our own signals, for which models."""

    django_signals: frozenset[Model] = frozenset()
    on_delete: frozenset[Model] = frozenset()


class Listeners:
    """The receivers as they are connected now, looked up once: for the length of one page.

    For proxies and multi-table children ``only`` those receivers count that are connected to them and not to every
    sender: those hear the model of the table itself.

    Args:
        extras: what is done beside our own signals.
        chosen: dotted paths; only these receivers are called. Default: all.
    """

    def __init__(self, extras: Extras, chosen: Collection[str] | None = None) -> None:
        self.extras, self.chosen = extras, chosen
        self._found: dict[tuple[str, Model, bool], Receivers] = {}
        self._heard: dict[tuple[Model, bool], bool] = {}

    def receivers(self, signal: str, model: Model, only: bool) -> Receivers:
        """Return who is called when ``signal`` is sent for ``model``."""
        key = (signal, model, only)
        if key not in self._found:
            self._found[key] = self._find(*key)
        return self._found[key]

    def _find(self, signal: str, model: Model, only: bool) -> Receivers:
        is_djangos = signal in ("post_save", "post_delete")
        if is_djangos and not any(issubclass(model, chosen) for chosen in self.extras.django_signals):
            return []
        applies = signal == "record_deleted" and model in self.extras.on_delete
        first: Receivers = [(apply_on_delete, False)] if applies else []
        found = first + (receivers_of_only if only else receivers_of)(SIGNALS[signal], model)
        return found if self.chosen is None else [pair for pair in found if receiver_path(pair[0]) in self.chosen]

    def paths(self, model: Model, signals: Iterable[str] = tuple(SIGNALS), only: bool = False) -> set[str]:
        """Return by dotted path who listens to the model, a proxy or a child of it."""
        found = {receiver_path(pair[0]) for signal in signals for pair in self.receivers(signal, model, only)}
        for other in (*proxies_of(model), *children_of(model)):
            found |= self.paths(other, signals, only=True)
        return found

    def heard(self, model: Model, only: bool = False) -> bool:
        """Tell whether anyone listens to changes of the model's records."""
        key = (model, only)
        if key not in self._heard:
            self._heard[key] = any(self.receivers(s, model, only) for s in SIGNALS if s not in OF_TABLES)
        return self._heard[key]

    def wanted(self, model: Model, only: bool = False) -> bool:
        """Tell whether anyone listens to the model, a proxy or a child of it."""
        others = (*proxies_of(model), *children_of(model))
        return self.heard(model, only) or any(self.wanted(other, only=True) for other in others)


def arguments(signal: str, event: ChangeEvent) -> dict[str, Any]:
    """Return what a signal is sent with, beside ``sender`` and ``using``."""
    if signal == "records_changed":
        return {"events": [event]}
    if signal == "post_save":
        created = event.change_type in ("CREATE", "GAP_CREATE")
        update_fields = frozenset(event.changed_fields) or None  # None: any field may have changed
        return {"instance": event.instance, "created": created, "raw": False, "update_fields": update_fields}
    if signal == "post_delete":
        return {"instance": event.instance, "origin": event.instance}
    if signal == "sync_failed":
        message = getattr(event.instance, "_hc_err", None) or ""
        return {"instance": event.instance, "event": event, "message": message}
    return {"instance": event.instance, "event": event}
