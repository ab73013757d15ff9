"""Names the consumers of one log, and removes a consumer."""

from hc_signals.exceptions import ConsumerError
from hc_signals.log import minutes
from hc_signals.log.append import wake
from hc_signals.log.claims import lock_all
from hc_signals.log.positions import shards_of
from hc_signals.log.presence import is_absent
from hc_signals.models import Delivery
from hc_signals.postgres.query import execute, rows

_WITH_POSITION = "SELECT DISTINCT consumer FROM public.hc_signals_newest_position"
_FORGET = (
    "DELETE FROM public.hc_signals_position WHERE consumer = %s",
    "DELETE FROM public.hc_signals_run WHERE consumer = %s",
    "DELETE FROM public.hc_signals_call WHERE consumer = %s",
    "DELETE FROM public.hc_signals_passed WHERE consumer = %s",
)


def names(using: str) -> list[str]:
    """Return the names of all consumers that have a position or a failed delivery."""
    failed = Delivery.objects.using(using).values_list("consumer", flat=True).distinct()
    return sorted({*failed, *(name for (name,) in rows(using, _WITH_POSITION))})


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
    minutes.forget_consumer(using, name)
    wake(using)  # a running worker restarts now, not with the next change
    return count
