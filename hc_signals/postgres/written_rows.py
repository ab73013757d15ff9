"""Counts the rows that the current transaction has written, by table: PostgreSQL counts them itself, and exactly."""

from collections.abc import Mapping
from typing import NamedTuple

from hc_signals.postgres.query import Database, row, rows

# The server counts a partition's rows at the partition. Rows of savepoints that were rolled back count as well.
_WRITTEN = """
SELECT CASE WHEN c.relpersistence = 't' THEN 'pg_temp' ELSE n.nspname END || '.' || c.relname,
    sum(inserted)::bigint, sum(updated)::bigint, sum(deleted)::bigint
FROM pg_class leaf
CROSS JOIN LATERAL (
    SELECT pg_stat_get_xact_tuples_inserted(leaf.oid) AS inserted, pg_stat_get_xact_tuples_updated(leaf.oid) AS updated,
        pg_stat_get_xact_tuples_deleted(leaf.oid) AS deleted
    OFFSET 0
) written
JOIN pg_class c ON c.oid = coalesce(pg_partition_root(leaf.oid), leaf.oid)
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE leaf.relkind = 'r' AND inserted + updated + deleted > 0
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
GROUP BY 1
"""


class Written(NamedTuple):
    """Rows of one table that were written."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def plus(self, other: "Written") -> "Written":
        """Return the sum."""
        return Written(*(mine + others for mine, others in zip(self, other, strict=True)))

    def minus(self, other: "Written") -> "Written":
        """Return the difference."""
        return Written(*(mine - others for mine, others in zip(self, other, strict=True)))


def written_rows(database: Database) -> dict[str, Written]:
    """Return the written rows by table with its schema; those of partitions count for the partitioned table.

    A count may begin before the transaction: take the difference of two calls in it. TRUNCATE counts no row.
    """
    return {table: Written(*counts) for table, *counts in rows(database, _WRITTEN)}


def difference(before: Mapping[str, Written], after: Mapping[str, Written]) -> dict[str, Written]:
    """Return the rows that were written between two calls of :func:`written_rows`."""
    found = {table: counts.minus(before.get(table, Written())) for table, counts in after.items()}
    return {table: counts for table, counts in found.items() if any(counts)}


def counts_writes(database: Database) -> bool:
    """Return whether the server counts written rows: its setting ``track_counts`` is on."""
    return bool(row(database, "SELECT current_setting('track_counts')::bool")[0])
