"""Two ledgers, what the writers committed and what the receivers wrote: compared by the database, however long.

Every committed change has one line in ``chaos_truth``; ``step`` rises in the order in which a record's changes came.
A version is used once per record, so record, operation and version name one change.
"""

from dataclasses import dataclass
from typing import Any

TABLES = """
CREATE TABLE chaos_truth (record text, step integer, operation text, version integer);
CREATE TABLE chaos_ledger (
    id bigserial, consumer text, record text, operation text, version integer, event_id text
);
CREATE INDEX ON chaos_ledger USING brin (id);
CREATE TABLE chaos_gap (consumer text, cause text);
"""

_COMPARE = """
WITH delivered AS (
    SELECT record, operation, version, count(*) AS times, min(id) AS id
    FROM chaos_ledger WHERE consumer = %(consumer)s GROUP BY record, operation, version
), pairs AS (
    SELECT coalesce(times, 0) AS times, d.id, t.record, t.step,
           lag(t.step) OVER (PARTITION BY t.record ORDER BY d.id) AS step_before
    FROM chaos_truth t FULL JOIN delivered d USING (record, operation, version)
)
SELECT count(*) FILTER (WHERE record IS NOT NULL),
       count(*) FILTER (WHERE times = 0),
       coalesce(sum(times - CASE WHEN record IS NULL THEN 0 ELSE 1 END) FILTER (WHERE times > 0), 0)::bigint,
       count(*) FILTER (WHERE times > 0 AND step_before > step)
FROM pairs
"""
# What was never delivered sorts behind everything (NULLS LAST), so it is nobody's predecessor.

_STALE = """
SELECT count(*) FROM (
    SELECT DISTINCT ON (record) record, operation, version FROM chaos_truth ORDER BY record, step DESC
) newest JOIN (
    SELECT DISTINCT ON (record) record, operation, version FROM chaos_ledger WHERE consumer = %(consumer)s
    ORDER BY record, id DESC
) told USING (record)
WHERE (newest.operation, newest.version) <> (told.operation, told.version)
"""

_LOST = """
SELECT t.record, t.operation, t.version FROM chaos_truth t
LEFT JOIN chaos_ledger l ON l.consumer = %(consumer)s AND l.record = t.record AND l.operation = t.operation
                        AND l.version = t.version
WHERE l.id IS NULL LIMIT 10
"""

_IN_LOG = """
SELECT id, xid::text FROM public.hc_signals_change
WHERE record_id = %(record)s AND coalesce(new, old)->>'numberofemployees' = %(version)s ORDER BY id
"""


@dataclass(frozen=True)
class Verdict:
    """What comparing one consumer's ledger with the truth has shown."""

    changes: int
    lost: int
    twice: int
    inverted: int
    """Not counting those that repeat an earlier delivery."""
    stale: int
    """Records of which something else came last than their newest change."""
    kept: int
    """Deliveries that are still kept for another attempt."""

    def is_right(self, once: bool) -> bool:
        """Every change is there, in order, and where that is promised once."""
        wrong = self.lost or self.inverted or self.kept or (once and (self.twice or self.stale))
        return self.changes > 0 and not wrong

    def __str__(self) -> str:
        return (
            f"{self.changes} changes, {self.lost} lost, {self.twice} twice, {self.inverted} out of order, "
            f"{self.stale} records left in an older state, "
            f"{self.kept} deliveries left"
        )


def compare(query: Any, consumer: str) -> Verdict:
    """Compare one consumer's ledger with what was committed."""
    values = {"consumer": consumer}
    ((kept,),) = query("SELECT count(*) FROM public.hc_signals_delivery WHERE consumer = %(consumer)s", values)
    ((changes, lost, twice, inverted),) = query(_COMPARE, values)
    ((stale,),) = query(_STALE, values)
    return Verdict(changes, lost, twice, inverted, stale, kept)


def gaps(query: Any) -> dict[str, dict[str, int]]:
    """Return how many gaps each consumer was told, by their cause."""
    found: dict[str, dict[str, int]] = {}
    for consumer, cause, count in query("SELECT consumer, cause, count(*) FROM chaos_gap GROUP BY 1, 2"):
        found.setdefault(consumer, {})[cause] = count
    return found


def explain(query: Any, consumer: str) -> list[str]:
    """Say of some lost changes what the log knows of them."""
    lines = []
    for record, operation, version in query(_LOST, {"consumer": consumer}):
        rows = query(_IN_LOG, {"record": record, "version": str(version)})
        lines.append(f"lost by {consumer}: {operation} of {record} to version {version}; the log has (id, xid) {rows}")
    return lines


def counts(query: Any, once: bool) -> tuple[int, dict[str, int]]:
    """Return how many changes are committed, and how many of them each consumer has in its ledger.

    Args:
        query: runs a statement.
        once: whether none is there twice; else counting takes longer.
    """
    ((committed,),) = query("SELECT count(*) FROM chaos_truth")
    what = "*" if once else "DISTINCT (record, operation, version)"
    return committed, dict(query(f"SELECT consumer, count({what}) FROM chaos_ledger GROUP BY consumer"))
