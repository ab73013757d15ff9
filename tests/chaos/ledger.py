"""Two ledgers, one of the writers and one of the receivers, which the database compares.

Every committed change has one line in ``chaos_truth``; ``step`` rises in the order of a record's changes. A version is
used once per record, so record, operation and version name one change.
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
# An undelivered change sorts last (NULLS LAST), so no other change has it as its predecessor.

_STALE = """
SELECT count(*) FROM (
    SELECT DISTINCT ON (record) record, operation, version FROM chaos_truth ORDER BY record, step DESC
) newest JOIN (
    SELECT DISTINCT ON (record) record, operation, version FROM chaos_ledger WHERE consumer = %(consumer)s
    ORDER BY record, id DESC
) newest_delivered USING (record)
WHERE (newest.operation, newest.version) <> (newest_delivered.operation, newest_delivered.version)
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
    """The differences between one consumer's ledger and the truth."""

    changes: int
    lost: int
    twice: int
    inverted: int
    """Repetitions of an earlier delivery do not count."""
    stale: int
    """Records whose last delivery was not their newest change."""
    kept: int
    """Deliveries that still wait for a retry."""

    def is_right(self, once: bool) -> bool:
        """Return True if every change was delivered in order; and once, if that is promised."""
        wrong = self.lost or self.inverted or self.kept or (once and (self.twice or self.stale))
        return self.changes > 0 and not wrong

    def __str__(self) -> str:
        return (
            f"{self.changes} changes, {self.lost} lost, {self.twice} twice, {self.inverted} out of order, "
            f"{self.stale} records left in an older state, "
            f"{self.kept} deliveries left"
        )


def compare(query: Any, consumer: str) -> Verdict:
    """Compare one consumer's ledger with the committed changes."""
    values = {"consumer": consumer}
    ((kept,),) = query("SELECT count(*) FROM public.hc_signals_delivery WHERE consumer = %(consumer)s", values)
    ((changes, lost, twice, inverted),) = query(_COMPARE, values)
    ((stale,),) = query(_STALE, values)
    return Verdict(changes, lost, twice, inverted, stale, kept)


def gaps(query: Any) -> dict[str, dict[str, int]]:
    """Return how many gaps were reported to each consumer, by cause."""
    found: dict[str, dict[str, int]] = {}
    for consumer, cause, count in query("SELECT consumer, cause, count(*) FROM chaos_gap GROUP BY 1, 2"):
        found.setdefault(consumer, {})[cause] = count
    return found


def explain(query: Any, consumer: str) -> list[str]:
    """Return what the log has of some lost changes."""
    lines = []
    for record, operation, version in query(_LOST, {"consumer": consumer}):
        rows = query(_IN_LOG, {"record": record, "version": str(version)})
        lines.append(f"lost by {consumer}: {operation} of {record} to version {version}; the log has (id, xid) {rows}")
    return lines


def counts(query: Any, once: bool) -> tuple[int, dict[str, int]]:
    """Return how many changes are committed, and how many of them each consumer has in its ledger.

    Args:
        query: runs a statement.
        once: no change is delivered twice; else counting takes longer.
    """
    ((committed,),) = query("SELECT count(*) FROM chaos_truth")
    what = "*" if once else "DISTINCT (record, operation, version)"
    return committed, dict(query(f"SELECT consumer, count({what}) FROM chaos_ledger GROUP BY consumer"))
