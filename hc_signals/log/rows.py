"""Columns of the log as Python reads them, without images, and the condition of a shard."""

from typing import Any

from hc_signals.log.change import Change

PAGE_BYTES = 8_000_000
"""Most bytes of images per page. The worker holds several times that in memory."""

CHANGE_COLUMNS = (
    "xid::text, captured_at AT TIME ZONE 'UTC', table_name, operation, origin, record_key, record_id, changed, note, "
    "(SELECT epoch FROM public.hc_signals_control)"
)
"""The columns of a :class:`Change` after its id; failed deliveries have them too."""

IMAGE_BYTES = "public.hc_signals_image_bytes(old) + public.hc_signals_image_bytes(new)"
"""What a row adds to PAGE_BYTES."""

SHARD_NUMBER = "public.hc_signals_shard_of(table_name, record_id, record_key, %(shards)s)"
SHARD = f"AND {SHARD_NUMBER} = %(shard)s"
"""Condition that a record belongs to a shard; for tables with ``table_name``, ``record_id`` and ``record_key``."""


def cut_page(rows: list[tuple[Any, ...]], limit: int) -> tuple[list[Change], bool]:
    """Return the changes of a page up to PAGE_BYTES, and whether there may be more.

    Args:
        rows: each begins with its IMAGE_BYTES.
        limit: most rows that were asked for.
    """
    size = 0
    for count, row in enumerate(rows):
        size += row[0]
        if count and size > PAGE_BYTES:
            return [Change._make(row[1:]) for row in rows[:count]], True
    return [Change._make(row[1:]) for row in rows], len(rows) == limit
