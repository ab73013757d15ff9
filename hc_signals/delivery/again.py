"""Delivers one past change again to one receiver, because a user asked for it: the worker calls it, in order.

The delivery is stored like a failed one that is due now. If an earlier change of the record waits for the receiver, it
is parked behind that one.
"""

from collections.abc import Iterator
from typing import NamedTuple

from django.apps import apps
from django.db import transaction

from hc_signals.conf import Conf
from hc_signals.delivery.identity import resolve
from hc_signals.delivery.interventions import limit_waiting
from hc_signals.delivery.listeners import APPLY_ON_DELETE, Extras, Listeners, Model
from hc_signals.delivery.relatives import children_of, proxies_of
from hc_signals.delivery.replay import ReplayFailureStore
from hc_signals.delivery.routing import OF_RECORDS, counted_columns, is_link, signals_of_change
from hc_signals.exceptions import ReplayError
from hc_signals.log.append import wake
from hc_signals.log.change import Change
from hc_signals.log.record import one_change
from hc_signals.tables import connected_models, model_of_table


class Target(NamedTuple):
    """A receiver that may hear of a change again."""

    receiver: str
    """Its name."""
    signal: str
    sender: str
    """Label of the model that the signal is sent for."""


def targets(using: str, conf: Conf, change_id: int) -> list[Target]:
    """Return the receivers that are connected in this process and hear of a change like this one.

    The rules of APPLY_ON_DELETE are not among them: a record that was deleted may be back.

    Raises:
        ReplayError: the log does not hold the change any more, or it is not about a record of a connected model.
    """
    change, signals = _change(using, change_id)
    model = model_of_table(change.table_name)
    if model is None or change.operation not in OF_RECORDS:
        raise ReplayError(
            f"Change {change_id} is not about a record of a connected model: it cannot be delivered again."
        )
    listeners = Listeners(Extras.of(conf, connected_models()))
    return [
        Target(receiver.name, signal, sender._meta.label)
        for sender in (model, *_relatives(model))
        for signal in signals
        for receiver in listeners.receivers(signal, sender, sender is not model)
        if receiver.name != APPLY_ON_DELETE
    ]


def deliver_again(using: str, conf: Conf, change_id: int, target: Target) -> None:
    """Store a delivery that is due now, and wake the worker. The receiver sees ``event.replayed``.

    Raises:
        ReplayError: as in :func:`targets`; or no such receiver is connected.
        OperationalError: a worker held a shard for longer than ``interventions.CLAIM_SECONDS``.
    """
    if target not in targets(using, conf, change_id):
        raise ReplayError(f"{target.receiver} is not connected to {target.signal} of {target.sender}.")
    with transaction.atomic(using=using):
        limit_waiting(using)
        change, _ = _change(using, change_id)
        model, sender = model_of_table(change.table_name), apps.get_model(target.sender)
        listeners = Listeners(Extras.of(conf, connected_models()))
        (receiver,) = resolve(target.receiver, listeners.receivers(target.signal, sender, sender is not model))
        marked = change._replace(note={**(change.note or {}), "replayed": True})
        # The store claims the shards and makes it due now if no earlier delivery of the record waits.
        ReplayFailureStore(using, conf, 0).park(marked, receiver.name, target.signal, target.sender)
        wake(using)


def _change(using: str, change_id: int) -> tuple[Change, tuple[str, ...]]:
    """Return a change of the log, and the names of the signals that it sends."""
    found = one_change(using, change_id)
    if found is None:
        raise ReplayError(f"The log does not hold change {change_id} any more: it cannot be delivered again.")
    change, old_sfid = found
    linked = is_link(change, {"sfid": old_sfid})
    return change, tuple(signals_of_change(change, counted_columns(change, linked), linked))


def _relatives(model: Model) -> Iterator[Model]:
    """Yield the proxies of a model and its multi-table children, with theirs."""
    yield from proxies_of(model)
    for child in children_of(model):
        yield child
        yield from _relatives(child)
