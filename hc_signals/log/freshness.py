"""Freshness: the time from a change in Salesforce (its systemmodstamp) to its capture, for a sample of changes.

It counts changes that Heroku Connect has read because Salesforce changed a record. These do not count:

- the app's own writes, snapshots, backfills, and rows read again after a gap: the log marks them;
- updates that leave the systemmodstamp as it was, such as the first values in a new column;
- tables that are being reloaded, and inserts with an older systemmodstamp than the newest one of their table: a load.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from hc_signals.log.change import Change
from hc_signals.log.histogram import Histogram
from hc_signals.origins import is_mirrored
from hc_signals.postgres.query import rows

_OF_RECORDS = frozenset({"INSERT", "UPDATE"})
# The times are read in Python: a cast of a text that is no time would fail the statement.
_READ = """
SELECT table_name, operation = 'INSERT', extract(epoch FROM captured_at)::float8, stamp
FROM (
    SELECT c.*, coalesce(new ->> 'systemmodstamp', public.hc_signals_value(layout, image, 'systemmodstamp')) AS stamp
    FROM public.hc_signals_change c WHERE id = ANY(%s) OFFSET 0
) c WHERE stamp IS NOT NULL AND (operation = 'INSERT' OR old ->> 'systemmodstamp' <> stamp)
ORDER BY id
"""


class Stamped(NamedTuple):
    """One change with a systemmodstamp."""

    table: str
    is_new: bool
    captured: float
    """Unix time, by the clock of the database."""
    stamp: float
    """Unix time, by Salesforce's clock."""

    @property
    def seconds(self) -> float:
        """The age of the change when it was captured; 0 if Salesforce's clock is ahead of the database's."""
        return max(0.0, self.captured - self.stamp)


def can_be_fresh(change: Change) -> bool:
    """Return whether Heroku Connect may have written the change because Salesforce changed the record."""
    return change.operation in _OF_RECORDS and change.note is None and is_mirrored(change.origin)


def stamped(using: str, ids: Collection[int]) -> list[Stamped]:
    """Return those of these changes that have a new systemmodstamp, in the order of capture."""
    if not ids:
        return []
    found = []
    for table, is_new, captured, text in rows(using, _READ, [list(ids)]):
        if (stamp := unix_time(text)) is not None:
            found.append(Stamped(table, is_new, captured, stamp))
    return found


def unix_time(text: str) -> float | None:
    """Return a systemmodstamp of an image as Unix time; None if it is no time that Python can hold."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    # Heroku Connect's column has no time zone; it is in UTC.
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


class Freshness:
    """Measures samples, one after the other. ``newest`` has the newest known systemmodstamp of each table."""

    def __init__(self, newest: Mapping[str, float]) -> None:
        self.newest = dict(newest)

    def of(self, changes: Iterable[Stamped]) -> dict[str, Histogram]:
        """Return the freshness of these changes, by table."""
        found: dict[str, list[float]] = {}
        known = dict(self.newest)  # of earlier samples: within one poll, rows come in any order
        for change in changes:
            table = change.table
            if not change.is_new or change.stamp > known.get(table, float("inf")):
                found.setdefault(table, []).append(change.seconds)
            self.newest[table] = max(change.stamp, self.newest.get(table, change.stamp))
        return {table: Histogram(seconds) for table, seconds in found.items()}
