"""Who listens to what: receivers of our signals and, where chosen, of Django's; and what each signal is sent with."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.db.models.signals import post_delete, post_save
from django.dispatch import Signal

from hc_signals import signals
from hc_signals.conf import Conf, chosen
from hc_signals.delivery.connections import ATTEMPTS, EVERY_SENDER, connected, connections_of
from hc_signals.delivery.identity import Names, Receiver, Receivers, receiver_path
from hc_signals.delivery.instances import as_saved, children_of, proxies_of
from hc_signals.delivery.on_delete import apply_on_delete
from hc_signals.events import ChangeEvent
from hc_signals.exceptions import ConfigurationError
from hc_signals.tables import connected_tables_of

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

    @classmethod
    def of(cls, conf: Conf, models: Iterable[Model]) -> "Extras":
        """Return what the checked setting chooses among the connected models.

        Raises:
            ConfigurationError: it names a model that is not one of them.
        """
        known = list(models)
        return cls(
            django_signals=chosen("DJANGO_SIGNALS", conf.DJANGO_SIGNALS, known),
            on_delete=chosen("APPLY_ON_DELETE", conf.APPLY_ON_DELETE, known),
        )


APPLY_ON_DELETE = receiver_path(apply_on_delete)
"""The name of the receiver that ``APPLY_ON_DELETE`` stands for."""
_APPLY_ON_DELETE = Receiver(apply_on_delete, False, APPLY_ON_DELETE, (APPLY_ON_DELETE,), (APPLY_ON_DELETE,))


_last_names: dict[Any, tuple[list[list[Any]], Names]] = {}
"""The names made last, by model and DJANGO_SIGNALS, with the connections they were made of: names take time to make."""


class Listeners:
    """The receivers as they are connected now, looked up once: for the length of one page.

    For proxies and multi-table children ``only`` those receivers count that are connected to them and not to every
    sender: those hear the model of the table itself.

    Args:
        extras: what is done beside our own signals.
        chosen: names of receivers; only these are called. Default: all.
    """

    def __init__(self, extras: Extras, chosen: Collection[str] | None = None) -> None:
        self.extras, self.chosen = extras, chosen
        self._found: dict[tuple[str, Model, bool], Receivers] = {}
        self._heard: dict[tuple[Model, bool], bool] = {}
        self._names: dict[Model, Names] = {}

    def receivers(self, signal: str, model: Model, only: bool) -> Receivers:
        """Return who is called when ``signal`` is sent for ``model``."""
        key = (signal, model, only)
        if key not in self._found:
            self._found[key] = self._find(*key)
        return self._found[key]

    def _find(self, signal: str, model: Model, only: bool) -> Receivers:
        if not self._is_sent(signal, model):
            return []
        receivers = self._connected(SIGNALS[signal], model, only)
        if signal == "record_deleted" and model in self.extras.on_delete:
            receivers.insert(0, _APPLY_ON_DELETE)
        return receivers if self.chosen is None else [each for each in receivers if each.name in self.chosen]

    def _is_sent(self, signal: str, model: Model) -> bool:
        if signal not in ("post_save", "post_delete"):
            return True
        return any(issubclass(model, chosen) for chosen in self.extras.django_signals)

    def _connected(self, signal: Signal, model: Model, only: bool) -> Receivers:
        for _ in range(ATTEMPTS):
            found = connected(signal, model)
            if only:
                found = [pair for pair in found if pair[0].sender_id != EVERY_SENDER]
            try:
                return self.names_of(model).receivers(found) if found else []
            except KeyError:  # connected, or disconnected, since the names were made
                self._names.pop(model)
        raise ConfigurationError("Receivers are connected and disconnected all the time: they cannot be named.")

    def names_of(self, model: Model) -> Names:
        """Return the names of those who may hear of the same records as receivers of the model."""
        if model not in self._names:
            key = model, self.extras.django_signals
            connected_now = [signal.receivers for signal in SIGNALS.values()]
            entries, names = _last_names.get(key, (None, None))
            if names is None or entries != connected_now:
                entries, names = list(map(list, connected_now)), self._make_names(model)
                _last_names[key] = entries, names
            self._names[model] = names
        return self._names[model]

    def _make_names(self, model: Model) -> Names:
        family = _family(model)
        senders = {EVERY_SENDER, *map(id, family)}
        return Names(
            connections_of(signal, senders)
            for name, signal in SIGNALS.items()
            if any(self._is_sent(name, each) for each in family)
        )

    def names(self, model: Model, signals: Iterable[str] = tuple(SIGNALS), only: bool = False) -> set[str]:
        """Return the names of those who listen to the model, a proxy or a child of it."""
        found = {each.name for signal in signals for each in self.receivers(signal, model, only)}
        for other in (*proxies_of(model), *children_of(model)):
            found |= self.names(other, signals, only=True)
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


def _family(model: Model) -> list[Model]:
    """Return the models whose receivers may hear of the same records."""
    tables = connected_tables_of(model) or [model]
    return list(dict.fromkeys(each for table in tables for each in (table, *_descendants(table))))


def _descendants(model: Model) -> Iterable[Model]:
    for child in model.__subclasses__():
        yield child
        yield from _descendants(child)


def arguments(signal: str, event: ChangeEvent) -> dict[str, Any]:
    """Return what a signal is sent with, beside ``sender`` and ``using``."""
    if signal == "records_changed":
        return {"events": [event]}
    if signal == "post_save":
        created = event.change_type in ("CREATE", "GAP_CREATE")
        update_fields = frozenset(event.changed_fields) or None  # None: any field may have changed
        instance = as_saved(event.instance, event.previous, is_new=created)
        return {"instance": instance, "created": created, "raw": False, "update_fields": update_fields}
    if signal == "post_delete":
        return {"instance": event.instance, "origin": event.instance}
    if signal == "sync_failed":
        message = getattr(event.instance, "_hc_err", None) or ""
        return {"instance": event.instance, "event": event, "message": message}
    return {"instance": event.instance, "event": event}
