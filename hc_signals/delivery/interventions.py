"""Retry or discard failed deliveries by hand, from the command or the admin."""

from typing import Any

from django.db.models import QuerySet
from django.db.models.functions import Coalesce, Now

from hc_signals.delivery.failures import release
from hc_signals.log.append import wake
from hc_signals.log.claims import lock_all
from hc_signals.log.positions import shards_of
from hc_signals.models import Delivery
from hc_signals.postgres.query import execute

CLAIM_SECONDS = 5
"""Most seconds to wait for each shard; a worker holds it while it delivers a page."""


def retry(chosen: "QuerySet[Delivery]") -> int:
    """Make the chosen deliveries due now, and return how many; dead ones get all their attempts again.

    It wakes a sleeping worker. Parked deliveries stay parked: they follow the one that they wait for. Call it in a
    transaction. The deliveries are of one database, and not sliced.

    Raises:
        OperationalError: a worker held a shard for longer than CLAIM_SECONDS.
    """
    _claim(chosen)
    due = {"next_attempt_at": Now()}
    waiting = chosen.filter(state=Delivery.State.RETRY).update(**due)
    dead = chosen.filter(state=Delivery.State.DEAD).update(state=Delivery.State.RETRY, attempt=0, **due)
    wake(chosen.db)
    return waiting + dead


def discard(chosen: "QuerySet[Delivery]") -> int:
    """Remove the chosen deliveries and release those parked behind them; return how many were removed.

    For transaction, arguments and errors see :func:`retry`.
    """
    _claim(chosen)
    record: Any = Coalesce("record_id", "record_key")
    going = chosen.filter(state=Delivery.State.RETRY).order_by().annotate(record=record)
    keys = set(going.values_list("consumer", "receiver", "table_name", "record"))
    count, _ = chosen.delete()
    for key in keys:
        release(chosen.db, *key)
    wake(chosen.db)
    return count


def _claim(chosen: "QuerySet[Delivery]") -> None:
    """Claim all shards that may hold the chosen deliveries.

    A running worker parks new failures behind the deliveries that it read at the start of its page. If we removed those
    now, nothing would release the parked ones.
    """
    limit_waiting(chosen.db)
    for consumer in sorted(set(chosen.order_by().values_list("consumer", flat=True).distinct())):
        lock_all(shards_of(chosen.db, consumer))


def limit_waiting(using: str) -> None:
    """Wait for each lock at most CLAIM_SECONDS, to the end of the transaction."""
    execute(using, "SELECT set_config('lock_timeout', %s, true)", [f"{CLAIM_SECONDS}s"])
