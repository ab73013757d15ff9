"""Keeps what a receiver failed on: visible, with its error and what is needed to send it again."""

import logging

from hc_signals.events import Change
from hc_signals.models import Delivery

logger = logging.getLogger("hc_signals")


def keep_failure(using: str, consumer: str, change: Change, receiver: str, error: Exception) -> None:
    """Store one failed delivery, in the transaction that commits the position.

    The log line names the receiver and the error's class only: a message may hold a customer's data.
    """
    Delivery.objects.using(using).create(
        change_id=change.id,
        consumer=consumer,
        receiver=receiver,
        table_name=change.table_name,
        record_key=change.record_key,
        state="failed",
        error=f"{type(error).__name__}: {error}".replace("\x00", ""),
        payload={"operation": change.operation, "record_id": change.record_id, "changed": change.changed},
    )
    logger.error(
        "Receiver %s failed on %s of %s (change %s): %s; the delivery is kept in hc_signals_delivery.",
        receiver,
        change.operation,
        change.table_name,
        change.id,
        type(error).__name__,
    )
