"""Retries failed deliveries: one more call of one receiver for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.apps import apps
from django.db import InterfaceError, OperationalError, models, transaction

from hc_signals.delivery.app_writes import pending_columns
from hc_signals.delivery.calls import NotSettled
from hc_signals.delivery.event import arguments, stored_event, table_event
from hc_signals.delivery.failures import FailedDelivery
from hc_signals.delivery.identity import Receivers, resolve
from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.listeners import Model
from hc_signals.delivery.project_code import ends_program
from hc_signals.delivery.relatives import child_instances
from hc_signals.delivery.routing import OF_RECORDS, SIGNALS, counted_columns, is_link
from hc_signals.delivery.sending import SignalSender
from hc_signals.events import ChangeEvent
from hc_signals.exceptions import RedeliveryError
from hc_signals.log.images import kept_image, kept_values

AT_ONCE = 100
"""Most deliveries that one query reads."""


@dataclass(frozen=True)
class Retries:
    """Retries the due deliveries of one shard."""

    sender: SignalSender
    builders: Mapping[str, InstanceBuilder]
    """By table, as the log names it."""

    def run(self, may_continue: Callable[[], bool]) -> None:
        """Retry due deliveries until none is left, or ``may_continue``, asked before each one, returns False."""
        # Several at once: until VACUUM runs, each query steps over the rows of finished deliveries.
        # With ATOMIC = False one at a time: no transaction locks the others, so a command may discard them.
        limit = AT_ONCE if self.sender.store.conf.ATOMIC else 1
        while due := self.sender.store.due(limit):
            for delivery in due:
                if not may_continue():
                    return
                if delivery.is_waiting and self.sender.store.join_next(delivery):
                    continue
                error = self._retry(delivery)
                if error is None:
                    self.sender.store.succeeded(delivery)
                elif isinstance(error, NotSettled):
                    builder = self.builders[delivery.change.table_name]
                    columns = [column for column, name in builder.name_of_column.items() if name in error.fields]
                    self.sender.store.wait(delivery, error, builder.model, columns)
                else:
                    self.sender.store.failed(delivery, error)

    def _retry(self, delivery: FailedDelivery) -> BaseException | None:
        """Call the receiver once more; return its error, None if the delivery is done."""
        try:
            sender = apps.get_model(delivery.sender)
            builder = self.builders[delivery.change.table_name]
        except (LookupError, ValueError):
            return RedeliveryError(f"there is no connected model {delivery.sender} any more: renamed or removed?")
        listeners, is_known = self.sender.listeners, delivery.signal in SIGNALS
        found = listeners.receivers(delivery.signal, sender, sender is not builder.model) if is_known else []
        try:
            receivers = resolve(delivery.receiver, found)
        except RedeliveryError as error:
            return error
        if not receivers:
            sent = f"{delivery.signal} of {delivery.sender}"
            return RedeliveryError(f"{delivery.receiver} is not connected to {sent} any more: renamed or removed?")
        try:
            with transaction.atomic(using=self.sender.store.using):
                event = _event(delivery, sender, builder)
        except (OperationalError, InterfaceError):
            raise
        except BaseException as error:  # something is gone or unreadable, or the project's code raises
            if ends_program(error):
                raise
            return error
        return self._call(delivery, sender, receivers[:1], event)

    def _call(
        self, delivery: FailedDelivery, sender: Model, receivers: Receivers, event: ChangeEvent
    ) -> BaseException | None:
        errors: list[BaseException] = []
        self.sender.dispatcher.send(
            SIGNALS[delivery.signal],
            receivers,
            {"sender": sender, **arguments(delivery.signal, event)},
            lambda receiver, error: errors.append(error),
            change=delivery.change.id,
            attempt=event.attempt,
            is_replay=delivery.change.replayed,
        )
        self.sender.dispatcher.isolation.check_last_call()
        return errors[0] if errors else None


def _event(delivery: FailedDelivery, sender: Model, builder: InstanceBuilder) -> ChangeEvent:
    change, attempt = delivery.change, delivery.attempt + 1
    if change.operation not in OF_RECORDS:
        return table_event(change, builder.model, attempt=attempt)
    stored = partial(kept_image, builder.using, builder.model, builder.columns, delivery.id)
    row = stored("latest")
    old: dict[str, Any] = {}
    if change.operation == "UPDATE":
        old = dict(zip(builder.columns, stored("old"), strict=True))
    is_proxy = sender._meta.proxy and sender._meta.concrete_model is builder.model
    instance = builder.instance(row, sender if is_proxy else builder.model, builder.inherited({0: row}).get(0))
    if sender is not builder.model and not is_proxy:
        instance = _child(sender, builder.model, instance, builder.using)

    def pending() -> Sequence[str]:
        found = pending_columns(
            builder.using,
            builder.model,
            [change],
            builder.columns,
            lambda ids, names: {change.id: kept_values(builder.using, delivery.id, names)},
        )
        return found.get(change.id, ())

    columns = counted_columns(change, is_link(change, old))
    return stored_event(change, builder, old, instance, attempt=attempt, columns=columns, pending=pending)


def _child(sender: Model, parent: Model, instance: models.Model, using: str) -> models.Model:
    """Return the instance of a multi-table child, however many tables lie between."""
    bases: list[Any] = [each for each in reversed(sender.__mro__) if issubclass(each, parent) and each is not parent]
    for child in (each for each in bases if not each._meta.abstract and not each._meta.proxy):
        found = child_instances(child, type(instance), {0: instance}, using)
        if not found:
            raise RedeliveryError(f"the row of {sender._meta.label} that belongs to the record is gone")
        instance = found[0]
    return instance
