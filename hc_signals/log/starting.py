"""Where a new consumer starts: everything in the log, nothing that is committed by now, or what came since a time."""

import logging
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db import connections, transaction

from hc_signals.log.changelog import ChangeLog
from hc_signals.log.position import Position, Standing
from hc_signals.postgres.moments import aware, parse_moment, shown

logger = logging.getLogger("hc_signals")


def start(logs: list[ChangeLog], at: str) -> bool:
    """Give a consumer that has no position its first one, in all its shards at once; False if it has one.

    Args:
        logs: the consumer's shards.
        at: ``earliest``; ``latest`` (what is committed later, also by transactions that are open now); or a moment as
            in :func:`~hc_signals.postgres.moments.parse_moment` (what was captured then or later).

    Raises:
        ValueError: ``at`` is none of these.
    """
    if logs[0].standing().layout is not None:
        return False
    with transaction.atomic(using=logs[0].using):
        # Claimed in one order, as when records are split anew: of two workers that start at once, the second finds the
        # first one's position.
        for log in logs:
            log.claim(wait=True)
        standing = logs[0].standing()
        if standing.layout is not None:
            return False
        position = _first_position(logs[0], standing, at)
        for log in logs:
            log.append(position)
    if at == "earliest":
        logger.info("Consumer %r is new and starts with the oldest change in the log.", logs[0].consumer)
    else:
        logger.warning("Consumer %r is new and starts at %s: older changes do not reach it.", logs[0].consumer, at)
    return True


def _first_position(log: ChangeLog, standing: Standing, at: str) -> Position:
    if at == "earliest":
        return Position()
    if at == "latest":
        # The count was read before the snapshot: what is lost from there on is told.
        return replace(log.close_window(log.open_window(standing)), lost=standing.lost)
    # A window over the whole log of which the older part is skipped. It is a cut by id, with a change or two too many
    # where ids and times of capture are not in the same order. Who commits later, with ids below the cut, is a later
    # window's. Losses have no time: they are told.
    window = log.open_window(standing)
    since = parse_moment(at)
    first = _first_id_since(log.using, since)
    last_id = window.ceiling_id if first is None else first - 1
    return replace(window, last_id=last_id, gap=_gap_of_emptied(log, since))


def _gap_of_emptied(log: ChangeLog, since: datetime) -> dict[str, Any] | None:
    """Return the gap to tell if the log has been emptied of changes that were captured since then."""
    with connections[log.using].cursor() as cursor:
        cursor.execute("SELECT emptied_at FROM public.hc_signals_control")
        emptied_at = aware(cursor.fetchone()[0])
    if emptied_at is None or emptied_at < since:
        return None
    logger.warning(
        "Consumer %r is to start at %s, but the log was emptied of changes up to %s: gap_detected is sent for every "
        "model.",
        log.consumer,
        shown(since),
        shown(emptied_at),
    )
    return {"cause": "emptied", "since": since.isoformat(), "until": emptied_at.isoformat()}


def _first_id_since(using: str, since: datetime) -> int | None:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT min(id) FROM public.hc_signals_change WHERE captured_at >= %s", [since])
        row = cursor.fetchone()
        return None if row[0] is None else int(row[0])
