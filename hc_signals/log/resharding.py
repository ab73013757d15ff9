"""Changes the number of shards on a live system, without losing, repeating or reordering changes of a record.

The old shards are at different positions. So all of them are claimed at once and delivered up to one common snapshot,
page by page. The new shards start from there. Every step commits. If a worker dies, the old layout stays, and the next
worker goes on.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from django.db import transaction

from hc_signals.log.claims import Claim, claim_all
from hc_signals.log.position import LogShard
from hc_signals.log.positions import forget_layout, read_standing

logger = logging.getLogger("hc_signals")


def reshard(new: Sequence[LogShard], deliver: Callable[[Claim], None]) -> bool:
    """Take one step from the consumer's layout to that of ``new``; return whether the consumer has it now.

    Args:
        new: all shards that the consumer is to have.
        deliver: delivers one page of a claimed shard of the old layout.
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
            lost = max(claim.standing.position.lost for claim in old)
            start = replace(old[0].standing.position, lost=lost)
            forget_layout(using, consumer, layout)
            for claim in claim_all(new):
                claim.append(start)
            return True
    return False


def _open_common_window(old: Sequence[Claim]) -> None:
    """Open a window with one target in all old shards; their claims keep other workers from opening another one."""
    common = old[0].open_window()
    for claim in old:
        claim.append(
            replace(
                claim.open_window(),
                target=common.target,
                ceiling_id=common.ceiling_id,
                next_floor_id=common.next_floor_id,
                next_floor_xid=common.next_floor_xid,
            )
        )
