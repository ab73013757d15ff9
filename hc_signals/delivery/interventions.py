"""Retry or discard failed deliveries by hand, from the command or the admin."""

from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

from django.db import OperationalError, transaction
from django.db.models import QuerySet
from django.db.models.functions import Coalesce, Now

from hc_signals.delivery.failures import release
from hc_signals.log.append import wake
from hc_signals.log.claims import lock_all
from hc_signals.log.positions import shards_of
from hc_signals.models import Delivery
from hc_signals.postgres.query import execute

CLAIM_SECONDS = 5
"""Most seconds to wait for the shards; a worker holds one while it delivers a page."""
PIECE = 200
"""Deliveries in one transaction of :func:`in_pieces`; workers wait for it."""


class Progress(NamedTuple):
    """What :func:`in_pieces` has done."""

    done: int
    """Number of deliveries that were retried or discarded."""
    left: int
    """Number of those that remain, because the time was up or a worker kept its shard."""
    after: int
    """Id of the last delivery that was handled: the next call continues behind it."""


def in_pieces(
    act: "Callable[[QuerySet[Delivery]], int]",
    chosen: "QuerySet[Delivery]",
    *,
    after: int = 0,
    seconds: float = float("inf"),
) -> Progress:
    """Retry or discard many deliveries, in short transactions, so that workers go on between them.

    Do not call it in a transaction. Deliveries that are stored during the call are left out.

    Args:
        act: :func:`retry` or :func:`discard`.
        chosen: see :func:`retry`.
        after: the id behind which it begins.
        seconds: begin no further piece after this time; the first one is always tried.

    Raises:
        OperationalError: a worker held a shard for longer than CLAIM_SECONDS, and nothing was done.
    """
    end, done = monotonic() + seconds, 0
    newest = chosen.order_by("-pk").values_list("pk", flat=True).first() or 0
    ahead = chosen.filter(pk__lte=newest).order_by("pk")
    while ids := list(ahead.filter(pk__gt=after).values_list("pk", flat=True)[:PIECE]):
        if done and monotonic() > end:
            break
        try:
            with transaction.atomic(using=chosen.db):
                done += act(chosen.filter(pk__in=ids))
        except OperationalError:
            if not done:
                raise
            break
        after = ids[-1]
    return Progress(done, ahead.filter(pk__gt=after).count(), after)


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
    end = monotonic() + CLAIM_SECONDS
    for consumer in sorted(set(chosen.order_by().values_list("consumer", flat=True).distinct())):
        for shard in shards_of(chosen.db, consumer):
            limit_waiting(chosen.db, end - monotonic())
            lock_all([shard])


def limit_waiting(using: str, seconds: float | None = None) -> None:
    """Wait for each lock at most this long (default: CLAIM_SECONDS), to the end of the transaction."""
    milliseconds = max(1, round(1000 * (CLAIM_SECONDS if seconds is None else seconds)))
    execute(using, "SELECT set_config('lock_timeout', %s, true)", [f"{milliseconds}ms"])
