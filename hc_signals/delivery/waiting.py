"""Finds the shards that have something to deliver: changes, gaps, retries that are due."""

from hc_signals.conf import Conf
from hc_signals.delivery.failures import DUE_SHARDS, bring_forward
from hc_signals.postgres.query import row


def waiting_shards(using: str, conf: Conf) -> tuple[set[int], float | None]:
    """Return the shards with something to deliver, and the seconds until the next retry is due; None without one.

    Args:
        using: database alias.
        conf: CONSUMER and SHARDS are used.
    """
    waiting, seconds, due = row(
        using,
        f"SELECT ARRAY(SELECT public.hc_signals_waiting(%(consumer)s, %(shards)s)), due.* FROM ({DUE_SHARDS}) due",
        {"consumer": conf.CONSUMER, "shards": conf.SHARDS},
    )
    if seconds is not None and seconds > conf.RETRY_MAX_SECONDS:  # the server's clock was set back
        bring_forward(using, conf)
        seconds = 0
    return {*map(int, waiting), *map(int, due)}, None if seconds is None else max(0.0, float(seconds))
