"""Reads and appends the positions of consumers.

A position is a new row, never an update. A row that is updated forever gets slow while any session holds an old
snapshot.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from hc_signals.log.heard import Heard
from hc_signals.log.position import LogShard, Position, Standing
from hc_signals.postgres.query import execute, row

PRUNE_SHARE = 0.01
"""Share of the appended positions after which old ones are deleted."""
KEPT_IDS = 1000
"""Ids below the newest position within which older ones stay, so that readers of the newest meet no dead rows."""

_COLUMNS = [field.name for field in fields(Position)]
_APPEND = f"""
INSERT INTO public.hc_signals_position (consumer, shard, shards, {", ".join(_COLUMNS)})
VALUES (%s, %s, %s, %s::pg_snapshot, %s, %s::xid8, %s::pg_snapshot, %s, %s, %s::xid8, %s, %s, %s)
RETURNING id
"""
# hc_status shows the gaps of a day. A gap of every table is in no other place.
_PRUNE = """
DELETE FROM public.hc_signals_position WHERE consumer = %s AND shard = %s AND id < %s
AND (gap IS NULL OR created_at < clock_timestamp() - interval '1 day')
"""


def read_standing(shard: LogShard) -> Standing:
    """Return the standing of a shard; for a consumer without a position, that of the very beginning."""
    found = row(shard.using, "SELECT public.hc_signals_standing(%s, %s)", [shard.consumer, shard.shard])
    return standing_of(found[0])


def standing_of(found: Mapping[str, Any], now: tuple[Any, ...] | None = None) -> Standing:
    """Return the standing from the JSON of ``hc_signals_standing()``, with the row of ``hc_signals_target()``."""
    newest, moved = found["position"], bool(found["has_moved"])
    position = Position(**{name: newest[name] for name in _COLUMNS}) if newest else Position()
    return Standing(**{**found, "position": position, "has_moved": moved}, is_new=not newest, now=now)


def shards_of(using: str, consumer: str) -> list[LogShard]:
    """Return the shards of a consumer as they are now; none if it has no position."""
    return LogShard.all_of(using, consumer, read_standing(LogShard(using, consumer)).layout or 0)


def append(shard: LogShard, position: Position, heard: Heard | None, run: Callable[[str, Sequence[Any]], Any]) -> None:
    """Append a position and delete old ones now and then. Only :meth:`hc_signals.log.claims.Claim.append` may call it.

    ``run`` runs the statement in the transaction of the claim and returns its first row. The calls in ``heard`` are
    appended by the same statement.

    Deleting goes by chance and not by id. Consumers share the ids, so one of two consumers could miss every thousandth
    id forever.
    """
    values = [getattr(position, name) for name in _COLUMNS[:-1]]
    gap = None if position.gap is None else json.dumps(position.gap)
    also, params = (heard and heard.statement()) or ("", [])
    sql = f"WITH heard AS ({also}) {_APPEND}" if also else _APPEND
    (number,) = run(sql, [*params, shard.consumer, shard.shard, shard.shards, *values, gap])
    if random.random() < PRUNE_SHARE:  # noqa: S311  (not for secrets)
        execute(shard.using, _PRUNE, [shard.consumer, shard.shard, number - KEPT_IDS])


def forget_layout(using: str, consumer: str, shards: int) -> None:
    """Delete the positions of a layout that the consumer has left: they would keep old buckets from being emptied."""
    execute(using, "DELETE FROM public.hc_signals_position WHERE consumer = %s AND shards = %s", [consumer, shards])
