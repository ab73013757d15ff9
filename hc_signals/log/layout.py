"""Takes a consumer's layout: its first position if it is new, or another number of shards on a live system.

Taking a layout claims every shard, so two workers that start at once take turns. Otherwise the second would block on a
shard that the first is delivering, and stall those it has claimed.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db import transaction

from hc_signals.log.claims import Claim, claim_all
from hc_signals.log.position import LogShard, Position
from hc_signals.log.positions import forget_layout, read_standing
from hc_signals.log.schema import Cause
from hc_signals.log.window import close_window
from hc_signals.postgres.locks import CLAIMS
from hc_signals.postgres.moments import aware, parse_moment, shown
from hc_signals.postgres.query import execute, row

logger = logging.getLogger("hc_signals")


def take_layout(shards: Sequence[LogShard], start_at: str, deliver: Callable[[Claim], None]) -> bool:
    """Take one step towards the layout, in a transaction of its own; return whether the consumer has it now.

    Only one worker of a consumer is in here at a time; the others wait. The lock belongs to the transaction. So it ends
    with the connection of a worker that dies, and a transaction pooler cannot pass it on. Every worker takes it before
    its claims, so two workers cannot wait for each other. ``deliver`` delivers one page of a shard of the old layout.
    """
    using, consumer = shards[0].using, shards[0].consumer
    with transaction.atomic(using=using):
        execute(using, "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [CLAIMS, f"{consumer} layout"])
        return start(shards, start_at) or _reshard(shards, deliver)


def start(shards: Sequence[LogShard], at: str) -> bool:
    """Give a new consumer its first position, in all its shards at once; False if it has a position.

    Args:
        shards: all shards that the consumer is to have.
        at: ``earliest`` (the whole log); ``latest`` (what commits from now on); or a moment as in
            :func:`~hc_signals.postgres.moments.parse_moment` (what was captured then or later).

    Raises:
        ValueError: ``at`` is none of these.
    """
    first = shards[0]
    if read_standing(first).layout is not None:
        return False
    with transaction.atomic(using=first.using):
        claims = claim_all(shards)
        if claims[0].standing.layout is not None:  # another worker was quicker
            return False
        position = _first_position(claims[0], at)
        for claim in claims:
            claim.append(position)
    if at == "earliest":
        logger.info("Consumer %r is new and starts with the oldest change in the log.", first.consumer)
    else:
        logger.warning("Consumer %r is new and starts at %s: older changes do not reach it.", first.consumer, at)
    return True


def _first_position(claim: Claim, at: str) -> Position:
    if at == "earliest":
        return Position()
    window = claim.open_window()
    if at == "latest":
        # The count was read before the snapshot, so all later losses are reported.
        return replace(close_window(window), lost=claim.standing.lost)
    # A window over the whole log, with the ids below a cut skipped. Ids and capture times can differ by a row or two,
    # so this may deliver slightly too much. Transactions that commit later fall into the next window. Lost statements
    # have no timestamp, so they are always reported.
    since = parse_moment(at)
    (first,) = row(claim.shard.using, "SELECT min(id) FROM public.hc_signals_change WHERE captured_at >= %s", [since])
    last_id = window.ceiling_id if first is None else first - 1
    return replace(window, last_id=last_id, gap=_gap_of_emptied(claim.shard, since))


def _gap_of_emptied(shard: LogShard, since: datetime) -> dict[str, Any] | None:
    """Return the gap to report if changes captured since then were already deleted from the log."""
    emptied_at = aware(row(shard.using, "SELECT emptied_at FROM public.hc_signals_control")[0])
    if emptied_at is None or emptied_at < since:
        return None
    logger.warning(
        "Consumer %r is to start at %s, but the log was emptied of changes up to %s: gap_detected is sent for every "
        "model.",
        shard.consumer,
        shown(since),
        shown(emptied_at),
    )
    return {"cause": Cause.EMPTIED, "since": since.isoformat(), "until": emptied_at.isoformat()}


def _reshard(new: Sequence[LogShard], deliver: Callable[[Claim], None]) -> bool:
    """Take one step to another number of shards, without losing, repeating or reordering changes of a record.

    The old shards are at different positions. So all of them are claimed at once and delivered up to one common
    snapshot, page by page. The new shards start from there. Every step commits. If a worker dies, the old layout stays,
    and the next worker goes on.
    """
    using, consumer = new[0].using, new[0].consumer
    with transaction.atomic(using=using):
        layout = read_standing(new[0]).layout
        if layout in (None, len(new)):
            return True
        claims = claim_all(LogShard.all_of(using, consumer, layout) + list(new[layout:]))
        old = claims[:layout]
        if old[0].standing.layout != layout:
            return False
        unfinished = [claim for claim in old if claim.standing.position.target is not None]
        if unfinished:
            for claim in unfinished:
                deliver(claim)
        elif len({claim.standing.position.seen for claim in old}) > 1:
            _open_common_window(old)
        else:
            logger.warning("Consumer %r goes from %s to %s shards.", consumer, layout, len(new))
            position = old[0].standing.position  # also `lost`: the first shard reports the losses of all
            forget_layout(using, consumer, layout)
            for claim in claim_all(new):
                claim.append(position)
            return True
    return False


def _open_common_window(old: Sequence[Claim]) -> None:
    """Open a window with one target in all old shards; their claims keep other workers from opening another one."""
    window = old[0].open_window()
    common = {name: getattr(window, name) for name in ("target", "ceiling_id", "next_floor_id", "next_floor_xid")}
    for claim in old:
        claim.append(replace(claim.open_window(), **common))
