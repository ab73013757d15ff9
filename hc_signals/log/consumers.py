"""Lists the consumers of one log, and removes one that is gone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from hc_signals.exceptions import ConsumerError
from hc_signals.log.append import wake
from hc_signals.log.backlog import COUNT_LIMIT, Backlog, backlog, total
from hc_signals.log.claims import lock_all
from hc_signals.log.positions import shards_of
from hc_signals.log.presence import is_absent, workers
from hc_signals.log.rotation import held_up_by
from hc_signals.models import Delivery
from hc_signals.postgres.moments import aware
from hc_signals.postgres.query import execute, rows

_NEWEST = "SELECT consumer, max(created_at) FROM public.hc_signals_newest_position GROUP BY consumer"
_FORGET = (
    "DELETE FROM public.hc_signals_position WHERE consumer = %s",
    "DELETE FROM public.hc_signals_run WHERE consumer = %s",
    "DELETE FROM public.hc_signals_call WHERE consumer = %s",
    "DELETE FROM public.hc_signals_passed WHERE consumer = %s",
)


@dataclass(frozen=True)
class Consumer:
    """One consumer as it is now."""

    name: str
    shards: int
    """0 if it has no position, only failed deliveries."""
    workers: int
    """Connections of its running workers."""
    backlog: Backlog
    by_shard: tuple[Backlog, ...]
    """The backlog of each shard, each counted up to its share of the limit."""
    moved_at: datetime | None
    """When its newest position was stored. A consumer with nothing to do stores none."""
    deliveries: Mapping[str, int]
    """Failed deliveries by their state, counted up to COUNT_LIMIT, without states that no delivery has."""
    holds_up_rotation: bool
    """It keeps changes older than the retention from being removed."""


def consumers(using: str, retention_hours: float, limit: int | None = None) -> list[Consumer]:
    """Return all consumers that have a position or a failed delivery, by name.

    Args:
        retention_hours: RETENTION_HOURS.
        limit: most changes of a backlog that are counted; default: COUNT_LIMIT.
    """
    moved_at, late = _moved_at(using), held_up_by(using, retention_hours)
    found = []
    for name in names(using):
        shards = shards_of(using, name)
        by_shard = tuple(backlog([shard], (limit or COUNT_LIMIT) // len(shards)) for shard in shards)
        found.append(
            Consumer(
                name=name,
                shards=len(shards),
                workers=workers(using, name),
                backlog=total(by_shard),
                by_shard=by_shard,
                moved_at=moved_at.get(name),
                deliveries=delivery_counts(using, name),
                holds_up_rotation=name in late,
            )
        )
    return found


def delivery_counts(using: str, name: str) -> dict[str, int]:
    """Return the consumer's failed deliveries by their state, each counted up to one more than COUNT_LIMIT."""
    kept = Delivery.objects.using(using).filter(consumer=name)
    counts = {state: kept.filter(state=state)[: COUNT_LIMIT + 1].count() for state in Delivery.State.values}
    return {state: count for state, count in counts.items() if count}


def names(using: str) -> list[str]:
    """Return the names of all consumers that have a position or a failed delivery."""
    return sorted({*_moved_at(using), *Delivery.objects.using(using).values_list("consumer", flat=True).distinct()})


def remove(using: str, name: str, force: bool = False, with_deliveries: bool = False) -> int:
    """Remove a consumer from the log. Call it inside a transaction.

    Args:
        force: even while a worker is running; it then restarts from START_AT.
        with_deliveries: remove its failed deliveries too.

    Returns:
        how many deliveries were removed.

    Raises:
        ConsumerError: there is no such consumer; or it has a running worker or failed deliveries, and the argument
            for that was not given.
    """
    known = names(using)
    if name not in known:
        raise ConsumerError(f"There is no consumer {name!r}; known: {', '.join(map(repr, known)) or 'none'}.")
    if not is_absent(using, name) and not force:
        raise ConsumerError(
            f"Consumer {name!r} has a running worker. Stop it, or pass --force; it will then restart from START_AT."
        )
    lock_all(shards_of(using, name))
    kept = Delivery.objects.using(using).filter(consumer=name)
    count = kept.count()
    if count and not with_deliveries:
        raise ConsumerError(
            f"Consumer {name!r} has {count} failed deliveries (`manage.py hc_deliveries list`). Pass --with-deliveries "
            "to remove them too."
        )
    kept.delete()
    for statement in _FORGET:
        execute(using, statement, [name])
    wake(using)  # a running worker restarts now, not with the next change
    return count


def _moved_at(using: str) -> dict[str, datetime]:
    return {name: aware(moved_at) for name, moved_at in rows(using, _NEWEST)}
