"""Two ledgers, one of the writers and one of the receivers; specs/history.py compares them.

Every committed change has one line in ``chaos_truth``. The versions of a record rise in the order of its changes. A
deletion has the version before it, and a changed key is a deletion and a creation, so the operation is a part of the
version that the checker gets.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from specs import history

TABLES = """
CREATE TABLE chaos_truth (
    record text, operation text, version integer, transaction xid8 DEFAULT pg_current_xact_id()
);
CREATE TABLE chaos_ledger (
    id bigserial, consumer text, record text, operation text, version integer, event_id text, transaction xid8
);
CREATE INDEX ON chaos_ledger USING brin (id);
CREATE TABLE chaos_gap (consumer text, cause text);
"""

VERSION = "4 * (version + (operation = 'DELETE')::int) + array_position('{DELETE,UPDATE,CREATE}', operation) - 1"
"""Version of a line of either ledger, as specs/history.py compares it."""
_CHANGE = f"'record', record, 'transaction', transaction::text, 'version', {VERSION}"
_EXPORTS = {
    "committed": f"SELECT json_build_object({_CHANGE}) FROM chaos_truth",
    "observed": f"SELECT json_build_object('consumer', consumer, 'at', id, {_CHANGE}) FROM chaos_ledger",
}
MAY_REPEAT = ("twice", "stale")
"""Kinds that are no fault if effects happen at least once."""


@dataclass(frozen=True)
class Verdict:
    """The faults of one consumer's ledger, as counted by specs/history.py."""

    changes: int
    lost: int
    twice: int
    inverted: int
    stale: int
    unknown: int
    torn: int
    kept: int
    """Deliveries that still wait for a retry."""
    witnesses: Sequence[str] = ()

    def is_right(self, once: bool) -> bool:
        """Return True if every change was delivered in order; and once, if that is promised."""
        kinds = [kind for kind in (*history.KINDS, "kept") if once or kind not in MAY_REPEAT]
        return self.changes > 0 and not any(getattr(self, kind) for kind in kinds)

    def __str__(self) -> str:
        return f"{self.changes} changes, " + ", ".join(
            f"{getattr(self, kind)} {kind}" for kind in (*history.KINDS, "kept")
        )


def judge(url: str, consumers: Sequence[str], directory: Path) -> dict[str, Verdict]:
    """Export the ledgers as the checker reads them, and return its verdict on each consumer.

    Args:
        url: the server.
        consumers: their names.
        directory: for the exported files.
    """
    files = {name: str(directory / f"{name}.jsonl.gz") for name in _EXPORTS}
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for name, sql in _EXPORTS.items():
            with gzip.open(files[name], "wb") as file, cursor.copy(f"COPY ({sql}) TO STDOUT") as rows:
                for row in rows:
                    file.write(bytes(row))
        cursor.execute("SELECT consumer, count(*) FROM public.hc_signals_delivery GROUP BY consumer")
        kept = dict(cursor.fetchall())
    report = history.check(
        [files["committed"]], [files["observed"]], consumers=consumers, transactions="whole", directory=str(directory)
    )
    return {
        name: Verdict(
            report.committed,
            **report.consumers[name].counts,
            kept=kept.get(name, 0),
            witnesses=[f"{kind}: {text}" for kind, (_, text) in report.consumers[name].witnesses.items()],
        )
        for name in consumers
    }


def gaps(query: Any) -> dict[str, dict[str, int]]:
    """Return how many gaps were reported to each consumer, by cause."""
    found: dict[str, dict[str, int]] = {}
    for consumer, cause, count in query("SELECT consumer, cause, count(*) FROM chaos_gap GROUP BY 1, 2"):
        found.setdefault(consumer, {})[cause] = count
    return found


def counts(query: Any, once: bool) -> tuple[int, dict[str, int]]:
    """Return how many changes are committed, and how many of them each consumer has in its ledger.

    Args:
        query: runs a statement.
        once: no change is delivered twice; else counting takes longer.
    """
    ((committed,),) = query("SELECT count(*) FROM chaos_truth")
    what = "*" if once else "DISTINCT (record, operation, version)"
    return committed, dict(query(f"SELECT consumer, count({what}) FROM chaos_ledger GROUP BY consumer"))
