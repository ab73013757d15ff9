"""Another attempt for one kept delivery: its change, its receiver, nobody else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.apps import apps
from django.db import InterfaceError, OperationalError, models, transaction

from hc_signals.delivery.dispatch import send
from hc_signals.delivery.failures import Delivery
from hc_signals.delivery.fatal_calls import Marks
from hc_signals.delivery.identity import Receivers, resolve
from hc_signals.delivery.instances import InstanceBuilder, child_instances
from hc_signals.delivery.isolation import Isolation
from hc_signals.delivery.listeners import SIGNALS, Listeners, arguments
from hc_signals.delivery.project_code import ends_program
from hc_signals.delivery.pulse import Pulse
from hc_signals.delivery.routing import CHANGE_TYPES, RecordEvent, counting, is_link, table_event
from hc_signals.events import ChangeEvent
from hc_signals.exceptions import RedeliveryError
from hc_signals.log.change import Change
from hc_signals.log.images import kept_image
from hc_signals.log.position import LogShard


def redeliver(
    delivery: Delivery,
    log: LogShard,
    builders: Mapping[str, InstanceBuilder],
    listeners: Listeners,
    *,
    isolation: Isolation,
    pulse: Pulse,
    marks: Marks | None = None,
) -> BaseException | None:
    """Call the receiver of a kept delivery once more; return what it failed on, None if it is done."""
    try:
        sender = apps.get_model(delivery.sender)
        builder = builders[delivery.change.table_name]
    except (LookupError, ValueError):
        return RedeliveryError(f"there is no connected model {delivery.sender} any more: renamed or removed?")
    try:
        receivers = _receivers(delivery, sender, listeners, only=sender is not builder.model)
    except RedeliveryError as error:
        return error
    if not receivers:
        what = f"{delivery.signal} of {delivery.sender}"
        return RedeliveryError(f"{delivery.receiver} is not connected to {what} any more: renamed or removed?")
    try:
        with transaction.atomic(using=log.using):
            event = _event(delivery, sender, log, builder)
    except (OperationalError, InterfaceError):
        raise
    except BaseException as error:  # what is gone, cannot be read, or is not let be made by the project
        if ends_program(error):
            raise
        return error
    change, attempt = delivery.change.id, delivery.attempt + 1
    named = arguments(delivery.signal, replace(event, attempt=attempt))
    late: list[BaseException] = []

    def keep(receiver: str, error: BaseException) -> None:
        late.append(error)

    about: dict[str, Any] = {"change": change, "attempt": attempt, "marks": marks, "sender": sender}
    signal, called = SIGNALS[delivery.signal], receivers[:1]
    failures = send(signal, called, log.using, isolation=isolation, pulse=pulse, keep=keep, **about, **named)
    isolation.settle()
    return next(iter([*(failure.error for failure in failures), *late]), None)


def _receivers(delivery: Delivery, sender: type[models.Model], listeners: Listeners, only: bool) -> Receivers:
    known = listeners.receivers(delivery.signal, sender, only) if delivery.signal in SIGNALS else []
    return resolve(delivery.receiver, known)


def _event(delivery: Delivery, sender: type[models.Model], log: LogShard, builder: InstanceBuilder) -> ChangeEvent:
    change = delivery.change
    if change.operation not in CHANGE_TYPES:
        return table_event(change, builder.model)
    row = _image(delivery, log, builder, "latest")
    old: dict[str, Any] = {}
    if change.operation == "UPDATE":
        old = dict(zip(builder.columns, _image(delivery, log, builder, "old"), strict=True))
    instance = builder.instance(row, inherited=builder.inherited({0: row}).get(0))
    if sender._meta.proxy and sender._meta.concrete_model is builder.model:
        instance = builder.instance(row, sender, builder.inherited({0: row}).get(0))
    elif sender is not builder.model:
        instance = _child(sender, builder.model, instance, log.using)
    return RecordEvent.of(_Kept(change, builder, counting(change, is_link(change, old)), old, instance))


@dataclass(frozen=True)
class _Kept:
    """What the event is made of, read in advance: what cannot be read is told before the receiver is called."""

    change: Change
    builder: InstanceBuilder
    columns: Sequence[str]
    _old: Mapping[str, Any]
    _instance: models.Model

    def old(self) -> Mapping[str, Any]:
        return self._old

    def instance(self) -> models.Model:
        return self._instance


def _image(delivery: Delivery, log: LogShard, builder: InstanceBuilder, image: str) -> tuple[Any, ...]:
    return kept_image(log.using, builder.model, builder.columns, delivery.id, image)


def _child(sender: type[models.Model], parent: type[models.Model], instance: models.Model, using: str) -> models.Model:
    """Return the instance of a multi-table child, however many tables lie between."""
    path: list[Any] = [model for model in reversed(sender.__mro__) if _is_between(model, sender, parent)]
    for child in path:
        found = child_instances(child, type(instance), {0: instance}, using)
        if not found:
            raise RedeliveryError(f"the row of {sender._meta.label} that belongs to the record is gone")
        instance = found[0]
    return instance


def _is_between(model: Any, sender: type[models.Model], parent: type[models.Model]) -> bool:
    return (
        issubclass(model, parent)
        and model is not parent
        and issubclass(sender, model)
        and not model._meta.abstract
        and not model._meta.proxy
    )
