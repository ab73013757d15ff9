"""Rows of the log, without their images, as changes; and which of them belong to a shard."""

from typing import Any

from hc_signals.log.change import Change

PAGE_BYTES = 8_000_000
"""Images of one page together: what the worker has in memory at a time is several times that."""

CHANGE_COLUMNS = (
    "xid::text, captured_at AT TIME ZONE 'UTC', table_name, operation, origin, record_key, record_id, changed, note, "
    "(SELECT epoch FROM public.hc_signals_control)"
)
"""Of the log and of kept deliveries: what a :class:`Change` is made of, after its id."""

IMAGE_BYTES = "public.hc_signals_image_bytes(old) + public.hc_signals_image_bytes(new)"
"""What a row adds to PAGE_BYTES."""

SHARD_NUMBER = "public.hc_signals_shard_of(table_name, record_id, record_key, %(shards)s)"
SHARD = f"AND {SHARD_NUMBER} = %(shard)s"
"""Condition on a table with ``table_name``, ``record_id``, ``record_key``: the record belongs to the shard."""


def cut_page(rows: list[tuple[Any, ...]], limit: int) -> tuple[list[Change], bool]:
    """Return the changes of rows that begin with IMAGE_BYTES, up to PAGE_BYTES, and whether there may be more."""
    size = 0
    for count, row in enumerate(rows):
        size += row[0]
        if count and size > PAGE_BYTES:
            return [Change._make(row[1:]) for row in rows[:count]], True
    return [Change._make(row[1:]) for row in rows], len(rows) == limit
