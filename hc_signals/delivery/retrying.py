"""Retries failed deliveries: one more call of one receiver for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from django.apps import apps
from django.db import InterfaceError, OperationalError, models, transaction

from hc_signals.delivery.dispatch import send
from hc_signals.delivery.event import RecordEvent, arguments, table_event
from hc_signals.delivery.failures import FailedDelivery, FailureStore
from hc_signals.delivery.fatal_calls import Marks
from hc_signals.delivery.identity import Receivers, resolve
from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.isolation.transaction import Isolation
from hc_signals.delivery.listeners import Listeners, Model
from hc_signals.delivery.project_code import ends_program
from hc_signals.delivery.pulse import Pulse
from hc_signals.delivery.relatives import child_instances
from hc_signals.delivery.routing import OF_RECORDS, SIGNALS, counted_columns, is_link
from hc_signals.events import ChangeEvent
from hc_signals.exceptions import RedeliveryError
from hc_signals.log.change import Change
from hc_signals.log.images import kept_image

AT_ONCE = 100
"""Most deliveries that one query reads."""


@dataclass(frozen=True)
class Retries:
    """Retries the due deliveries of one shard."""

    store: FailureStore
    builders: Mapping[str, InstanceBuilder]
    """By table, as the log names it."""
    listeners: Listeners
    isolation: Isolation
    """Of the page."""
    pulse: Pulse
    """Of the calling thread."""
    marks: Marks | None = None
    """See :func:`~hc_signals.delivery.dispatch.send`."""

    def run(self, may_continue: Callable[[], bool]) -> None:
        """Retry due deliveries until none is left.

        Args:
            may_continue: is asked before each delivery; on False the retries end.
        """
        # Several at once: until VACUUM runs, each query steps over the rows of finished deliveries.
        # With ATOMIC = False one at a time: no transaction locks the others, so a command may discard them.
        limit = AT_ONCE if self.store.conf.ATOMIC else 1
        while due := self.store.due(limit):
            for delivery in due:
                if not may_continue():
                    return
                error = self._retry(delivery)
                if error is None:
                    self.store.succeeded(delivery)
                else:
                    self.store.failed(delivery, error)

    def _retry(self, delivery: FailedDelivery) -> BaseException | None:
        """Call the receiver once more; return its error, None if the delivery is done."""
        try:
            sender = apps.get_model(delivery.sender)
            builder = self.builders[delivery.change.table_name]
        except (LookupError, ValueError):
            return RedeliveryError(f"there is no connected model {delivery.sender} any more: renamed or removed?")
        try:
            receivers = resolve(delivery.receiver, self._connected(delivery.signal, sender, builder.model))
        except RedeliveryError as error:
            return error
        if not receivers:
            sent = f"{delivery.signal} of {delivery.sender}"
            return RedeliveryError(f"{delivery.receiver} is not connected to {sent} any more: renamed or removed?")
        try:
            with transaction.atomic(using=self.store.using):
                event = _event(delivery, sender, builder)
        except (OperationalError, InterfaceError):
            raise
        except BaseException as error:  # something is gone or unreadable, or the project's code raises
            if ends_program(error):
                raise
            return error
        return self._call(delivery, sender, receivers[:1], event)

    def _connected(self, signal: str, sender: Model, model: Model) -> Receivers:
        return self.listeners.receivers(signal, sender, sender is not model) if signal in SIGNALS else []

    def _call(
        self, delivery: FailedDelivery, sender: Model, receivers: Receivers, event: ChangeEvent
    ) -> BaseException | None:
        attempt = delivery.attempt + 1
        late: list[BaseException] = []
        failures = send(
            SIGNALS[delivery.signal],
            receivers,
            using=self.store.using,
            change=delivery.change.id,
            isolation=self.isolation,
            pulse=self.pulse,
            store_failure=lambda receiver, error: late.append(error),
            attempt=attempt,
            marks=self.marks,
            sender=sender,
            **arguments(delivery.signal, replace(event, attempt=attempt)),
        )
        self.isolation.check_last_call()
        return next(iter([*(failure.error for failure in failures), *late]), None)


def _event(delivery: FailedDelivery, sender: Model, builder: InstanceBuilder) -> ChangeEvent:
    change = delivery.change
    if change.operation not in OF_RECORDS:
        return table_event(change, builder.model)
    stored = partial(kept_image, builder.using, builder.model, builder.columns, delivery.id)
    row = stored("latest")
    old: dict[str, Any] = {}
    if change.operation == "UPDATE":
        old = dict(zip(builder.columns, stored("old"), strict=True))
    is_proxy = sender._meta.proxy and sender._meta.concrete_model is builder.model
    instance = builder.instance(row, sender if is_proxy else builder.model, builder.inherited({0: row}).get(0))
    if sender is not builder.model and not is_proxy:
        instance = _child(sender, builder.model, instance, builder.using)
    return RecordEvent.of(_Stored(change, builder, counted_columns(change, is_link(change, old)), old, instance))


@dataclass(frozen=True)
class _Stored:
    """What the event is made from: read before the call, because an unreadable record must fail first."""

    change: Change
    builder: InstanceBuilder
    columns: Sequence[str]
    _old: Mapping[str, Any]
    _instance: models.Model

    def old(self) -> Mapping[str, Any]:
        return self._old

    def instance(self) -> models.Model:
        return self._instance


def _child(sender: Model, parent: Model, instance: models.Model, using: str) -> models.Model:
    """Return the instance of a multi-table child, however many tables lie between."""
    path: list[Any] = [model for model in reversed(sender.__mro__) if _is_between(model, sender, parent)]
    for child in path:
        found = child_instances(child, type(instance), {0: instance}, using)
        if not found:
            raise RedeliveryError(f"the row of {sender._meta.label} that belongs to the record is gone")
        instance = found[0]
    return instance


def _is_between(model: Any, sender: Model, parent: Model) -> bool:
    return (
        issubclass(model, parent)
        and model is not parent
        and issubclass(sender, model)
        and not model._meta.abstract
        and not model._meta.proxy
    )
