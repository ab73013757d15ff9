"""A changed number of shards on a live system: nothing lost, nothing twice, each record still in order.

The old shards have come to different positions. So all of them are claimed at once and brought to one common snapshot,
page by page, each still in its own order; from there the new shards start. Every step commits: a worker that dies on
the way leaves the old layout as it is, and the next one goes on.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.db import transaction

from hc_signals.log.changelog import ChangeLog
from hc_signals.log.position import Position

logger = logging.getLogger("hc_signals")


def reshard(new: list[ChangeLog], deliver: Callable[[ChangeLog], None]) -> bool:
    """Take one step from the consumer's layout to that of ``new``; True when it has it, at once if it had it before.

    Args:
        new: the shards as they are to be.
        deliver: delivers one page of a claimed shard.
    """
    first = new[0]
    with transaction.atomic(using=first.using):
        layout = first.standing().layout
        if layout in (None, len(new)):
            return True
        old = [ChangeLog(first.using, first.consumer, shard, layout) for shard in range(layout)]
        # In one order, so that two workers that do this cannot wait for each other.
        for shard in range(max(layout, len(new))):
            ChangeLog(first.using, first.consumer, shard).claim(wait=True)
        standings = [log.standing() for log in old]
        if standings[0].layout != layout:
            return False
        positions = [standing.position for standing in standings]
        unfinished = [log for log, position in zip(old, positions, strict=True) if position.target is not None]
        if unfinished:
            for log in unfinished:
                deliver(log)
        elif len({position.seen for position in positions}) > 1:
            # One target for all. Claimed as they are, nobody can open another window in between.
            common = old[0].open_window(standings[0])
            for log, standing in zip(old, standings, strict=True):
                log.append(replace(log.open_window(standing), **_target_of(common)))
        else:
            logger.warning("Consumer %r goes from %s to %s shards.", first.consumer, layout, len(new))
            start = replace(positions[0], lost=max(position.lost for position in positions))
            first.forget_layout(layout)
            for log in new:
                log.append(start)
            return True
    return False


def _target_of(position: Position) -> dict[str, Any]:
    names = ("target", "ceiling_id", "next_floor_id", "next_floor_xid")
    return {name: getattr(position, name) for name in names}
