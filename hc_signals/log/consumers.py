"""The names of the consumers of one log, their shards, and the removal of one that is gone."""

from django.db import connections

from hc_signals.exceptions import ConsumerError
from hc_signals.log.backlog import COUNT_LIMIT
from hc_signals.log.changelog import ChangeLog
from hc_signals.log.presence import is_absent
from hc_signals.models import Delivery

_DELIVERIES = """
SELECT s.state, (
    SELECT count(*) FROM (
        SELECT FROM public.hc_signals_delivery d WHERE d.consumer = %(consumer)s AND d.state = s.state LIMIT %(limit)s
    ) counted
) FROM unnest(%(states)s::text[]) s (state)
"""


def shards_of(using: str, name: str) -> list[ChangeLog]:
    """Return the shards of a consumer as they are now; none if it has no position."""
    shards = ChangeLog(using, name).standing().layout or 0
    return [ChangeLog(using, name, shard, shards) for shard in range(shards)]


def delivery_counts(using: str, name: str) -> dict[str, int]:
    """Return the consumer's failed deliveries by their state, each counted up to one more than COUNT_LIMIT."""
    with connections[using].cursor() as cursor:
        cursor.execute(_DELIVERIES, {"consumer": name, "states": Delivery.State.values, "limit": COUNT_LIMIT + 1})
        return {state: count for state, count in cursor.fetchall() if count}


def names(using: str) -> list[str]:
    """Return the names of all consumers that have a position or a failed delivery."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT consumer FROM public.hc_signals_newest_position "
            "UNION SELECT consumer FROM public.hc_signals_delivery ORDER BY 1"
        )
        return [row[0] for row in cursor.fetchall()]


def remove(using: str, name: str, force: bool = False, with_deliveries: bool = False) -> int:
    """Remove the positions of a consumer; a worker of it that lives starts anew. Belongs into a transaction.

    Args:
        force: although a worker of it lives.
        with_deliveries: its failed deliveries as well.

    Returns:
        how many deliveries were removed.

    Raises:
        ConsumerError: there is no such consumer; or a worker of it lives, or it has failed deliveries, and the argument
            above was not given.
    """
    known = names(using)
    if name not in known:
        raise ConsumerError(f"There is no consumer {name!r}; known: {', '.join(map(repr, known)) or 'none'}.")
    if not is_absent(using, name) and not force:
        raise ConsumerError(
            f"Consumer {name!r} has a worker that lives; stop it first, or say --force: it starts anew then, where "
            "START_AT says."
        )
    for log in shards_of(using, name):
        log.claim(wait=True)
    kept = Delivery.objects.using(using).filter(consumer=name)
    count = kept.count()
    if count and not with_deliveries:
        raise ConsumerError(
            f"Consumer {name!r} has {count} failed deliveries (`manage.py hc_deliveries list`); say --with-deliveries "
            "to remove them too."
        )
    kept.delete()
    with connections[using].cursor() as cursor:
        for table in ("position", "run", "call", "passed"):
            cursor.execute(f"DELETE FROM public.hc_signals_{table} WHERE consumer = %s", [name])
        cursor.execute(
            "SELECT public.hc_signals_ring()"
        )  # a worker that lives starts anew now, not with the next change
    return count
