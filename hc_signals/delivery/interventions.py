"""What people do with failed deliveries: have them tried again, or give them up."""

from typing import Any

from django.db import connections
from django.db.models import QuerySet
from django.db.models.functions import Coalesce, Now

from hc_signals.delivery.failures import release, ring
from hc_signals.log.claims import lock_all
from hc_signals.log.positions import shards_of
from hc_signals.models import Delivery

CLAIM_SECONDS = 5
"""For so long each shard is waited for; a worker has it for the length of a page."""


def retry(chosen: "QuerySet[Delivery]") -> int:
    """Make the chosen deliveries due now; dead ones get all their attempts again. Belongs into a transaction.

    A worker that sleeps is rung. Parked ones stay parked: they follow the one that they wait for.

    Args:
        chosen: deliveries of one database, not sliced.

    Returns:
        how many are due.

    Raises:
        OperationalError: a worker was busy with a shard for longer than CLAIM_SECONDS.
    """
    _claim(chosen)
    due = {"next_attempt_at": Now()}
    waiting = chosen.filter(state=Delivery.State.RETRY).update(**due)
    dead = chosen.filter(state=Delivery.State.DEAD).update(state=Delivery.State.RETRY, attempt=0, **due)
    ring(chosen.db)
    return waiting + dead


def discard(chosen: "QuerySet[Delivery]") -> int:
    """Remove the chosen deliveries; what was parked behind them goes on, in order. Belongs into a transaction.

    Args, Raises: as for :func:`retry`.

    Returns:
        how many were removed.
    """
    _claim(chosen)
    record: Any = Coalesce("record_id", "record_key")
    going = chosen.filter(state=Delivery.State.RETRY).order_by().annotate(record=record)
    keys = set(going.values_list("consumer", "receiver", "table_name", "record"))
    count, _ = chosen.delete()
    for key in keys:
        release(chosen.db, *key)
    ring(chosen.db)
    return count


def _claim(chosen: "QuerySet[Delivery]") -> None:
    """Claim all shards that the chosen may lie in.

    A worker that has looked which records wait parks its next failures behind what it saw: nobody else would let them
    go if that were removed meanwhile.
    """
    with connections[chosen.db].cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{CLAIM_SECONDS}s"])
    for consumer in sorted(set(chosen.order_by().values_list("consumer", flat=True).distinct())):
        lock_all(shards_of(chosen.db, consumer))
