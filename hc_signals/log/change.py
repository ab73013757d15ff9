"""Change: one row of the log."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

_EPOCH, _MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)


class Change(NamedTuple):
    """One row of the log, without its images."""

    id: int
    xid: str
    captured: datetime
    """In UTC, without a time zone: see ``captured_at``."""
    table_name: str
    operation: str
    origin: str
    record_key: str | None
    record_id: str | None
    changed: list[str] | None
    note: Mapping[str, Any] | None
    """What a row says beyond the change of one record: see ``note`` in migrations_sql/01_tables.sql."""
    epoch: str
    """Of the database as it is now, see ``replay_id``."""

    @property
    def captured_at(self) -> datetime:
        """When the trigger saw the change."""
        return self.captured.replace(tzinfo=UTC)

    @property
    def record(self) -> str | None:
        """What changes are kept in order by: the sfid, the row's key as long as there is none."""
        return self.record_id or self.record_key

    @property
    def replay_id(self) -> str:
        """Where the change stands in the log; ids of one database sort as text."""
        return f"{self.epoch}-{self.id:015d}"

    @property
    def event_id(self) -> str:
        """The change's own name; the transaction's id would not do, it changes in a restored database."""
        return f"{self.id}-{(self.captured - _EPOCH) // _MICROSECOND}"

    def is_for(self, consumer: str) -> bool:
        """Tell whether the change concerns a consumer: a snapshot, or a gap, may be for one alone."""
        return bool((self.note or {}).get("consumer", consumer) == consumer)

    @property
    def named_receivers(self) -> frozenset[str]:
        """For whom a snapshot is, by dotted path; empty where it is for everyone who listens."""
        return frozenset((self.note or {}).get("receivers") or ())

    @property
    def replayed(self) -> bool:
        """Noted by a replay, so that its retries are known as replayed too."""
        return bool((self.note or {}).get("replayed"))

    def noted_time(self, name: str) -> datetime | None:
        """Return a time of the note, in ISO format there; None if it has none."""
        text = (self.note or {}).get(name)
        return datetime.fromisoformat(text) if text else None
