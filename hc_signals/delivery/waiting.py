"""What waits for a consumer, in one look: changes, gaps to tell, retries whose time has come."""

from django.db import connections

from hc_signals.conf import Conf
from hc_signals.delivery.failures import DUE_SHARDS

_BRING_FORWARD = """
UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp()
WHERE consumer = %(consumer)s AND state = 'retry'
  AND next_attempt_at > clock_timestamp() + make_interval(secs => %(longest)s)
"""


def waiting_shards(using: str, conf: Conf) -> tuple[set[int], float | None]:
    """Return the shards in which something waits, and in how many seconds the next retry is due, None without any.

    Args:
        using: database alias.
        conf: CONSUMER and SHARDS are used.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"SELECT ARRAY(SELECT public.hc_signals_waiting(%(consumer)s, %(shards)s)), due.* FROM ({DUE_SHARDS}) due",
            {"consumer": conf.CONSUMER, "shards": conf.SHARDS},
        )
        waiting, seconds, due = cursor.fetchone()
        if seconds is not None and seconds > conf.RETRY_MAX_SECONDS:  # the server's clock went back
            cursor.execute(_BRING_FORWARD, {"consumer": conf.CONSUMER, "longest": conf.RETRY_MAX_SECONDS})
            seconds = 0
    return {*map(int, waiting), *map(int, due)}, None if seconds is None else max(0.0, float(seconds))
