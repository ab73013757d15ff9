"""Which receivers are connected to which signals: to ours and, for chosen models, to Django's."""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.dispatch import Signal

from hc_signals.conf import Conf, chosen
from hc_signals.delivery.connections import ATTEMPTS, EVERY_SENDER, connected, connections_of
from hc_signals.delivery.identity import Names, Receiver, Receivers, receiver_path
from hc_signals.delivery.on_delete import apply_on_delete
from hc_signals.delivery.relatives import children_of, proxies_of
from hc_signals.delivery.routing import DJANGO_SIGNALS, SIGNALS, TABLE_SIGNALS
from hc_signals.exceptions import ConfigurationError
from hc_signals.tables import connected_models, connected_tables_of

logger = logging.getLogger("hc_signals")

HOW_TO_CONNECT = "import the module with the receivers in ready() of its AppConfig"

Model = type[models.Model]


@dataclass(frozen=True)
class Extras:
    """The models for whose changes more is done than our own signals: Django's signals, ``on_delete``."""

    django_signals: frozenset[Model] = frozenset()
    on_delete: frozenset[Model] = frozenset()

    @classmethod
    def of(cls, conf: Conf, models: Iterable[Model]) -> "Extras":
        """Return the models that the setting chooses; ConfigurationError: it names one that is not connected."""
        known = list(models)
        return cls(
            django_signals=chosen("DJANGO_SIGNALS", conf.DJANGO_SIGNALS, known),
            on_delete=chosen("APPLY_ON_DELETE", conf.APPLY_ON_DELETE, known),
        )


APPLY_ON_DELETE = receiver_path(apply_on_delete)
"""The name of the receiver that applies ``on_delete``."""
_APPLY_ON_DELETE = Receiver(apply_on_delete, APPLY_ON_DELETE, (APPLY_ON_DELETE,), (APPLY_ON_DELETE,))


_last_names: dict[Any, tuple[list[list[Any]], Names]] = {}
"""Names take time to make, so the last ones are cached, by model and DJANGO_SIGNALS, with their connections."""


class Listeners:
    """The receivers that are connected now, read once for the length of one page.

    ``exclusive`` is for proxies and multi-table children. It leaves out receivers that are connected to every sender:
    they are called for the model of the table itself.

    Args:
        extras: which models send Django's signals or apply ``on_delete``.
        chosen: names of receivers; the others are not called. Default: all are called.
    """

    def __init__(self, extras: Extras, chosen: Collection[str] | None = None) -> None:
        self.extras, self.chosen = extras, chosen
        self._found: dict[tuple[str, Model, bool], Receivers] = {}
        self._heard: dict[tuple[Model, bool], bool] = {}
        self._names: dict[Model, Names] = {}

    def receivers(self, signal: str, model: Model, exclusive: bool) -> Receivers:
        """Return the receivers of ``signal`` for ``model``."""
        key = (signal, model, exclusive)
        if key not in self._found:
            self._found[key] = self._find(*key)
        return self._found[key]

    def _find(self, signal: str, model: Model, exclusive: bool) -> Receivers:
        if not self._is_sent(signal, model):
            return []
        receivers = self._connected(SIGNALS[signal], model, exclusive)
        if signal == "record_deleted" and model in self.extras.on_delete:
            receivers.insert(0, _APPLY_ON_DELETE)
        return receivers if self.chosen is None else [each for each in receivers if each.name in self.chosen]

    def _is_sent(self, signal: str, model: Model) -> bool:
        return signal not in DJANGO_SIGNALS or any(issubclass(model, each) for each in self.extras.django_signals)

    def _connected(self, signal: Signal, model: Model, exclusive: bool) -> Receivers:
        for _ in range(ATTEMPTS):
            found = connected(signal, model)
            if exclusive:
                found = [pair for pair in found if pair[0].sender_id != EVERY_SENDER]
            try:
                return self.names_of(model).receivers(found) if found else []
            except KeyError:  # connected, or disconnected, since the names were made
                self._names.pop(model)
        raise ConfigurationError(
            "Receivers are connected or disconnected all the time, so they cannot be named. Connect each once."
        )

    def names_of(self, model: Model) -> Names:
        """Return the names of the receivers that are called for the same records as receivers of the model."""
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

    def names(self, model: Model, signals: Iterable[str] = tuple(SIGNALS), exclusive: bool = False) -> set[str]:
        """Return the names of the receivers of the model, its proxies and its children."""
        found = {each.name for signal in signals for each in self.receivers(signal, model, exclusive)}
        for other in (*proxies_of(model), *children_of(model)):
            found |= self.names(other, signals, exclusive=True)
        return found

    def heard(self, model: Model, exclusive: bool = False) -> bool:
        """Return whether changes of the model's records have a receiver."""
        key = (model, exclusive)
        if key not in self._heard:
            self._heard[key] = any(self.receivers(s, model, exclusive) for s in SIGNALS if s not in TABLE_SIGNALS)
        return self._heard[key]

    def wanted(self, model: Model, exclusive: bool = False) -> bool:
        """Return whether the model, a proxy or a child of it has a receiver."""
        others = (*proxies_of(model), *children_of(model))
        return self.heard(model, exclusive) or any(self.wanted(other, exclusive=True) for other in others)


def unheard_models(conf: Conf) -> list[Model]:
    """Return the connected models whose changes have no receiver in this project."""
    known = connected_models()
    listeners = Listeners(Extras.of(conf, known))
    return [model for model in known if not listeners.wanted(model)]


def warn_of_unheard(conf: Conf) -> None:
    """Log which models have no receiver; nothing if each has one."""
    if unheard := unheard_models(conf):
        logger.warning(
            "No receiver is connected for %s: their changes reach no receiver. To connect receivers, %s.",
            ", ".join(model._meta.label for model in unheard),
            HOW_TO_CONNECT,
        )


def _family(model: Model) -> list[Model]:
    """Return the models whose receivers are called for the same records."""
    tables = connected_tables_of(model) or [model]
    return list(dict.fromkeys(each for table in tables for each in (table, *_descendants(table))))


def _descendants(model: Model) -> Iterable[Model]:
    for child in model.__subclasses__():
        yield child
        yield from _descendants(child)
