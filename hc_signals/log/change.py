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
    """In UTC, without a time zone; for a receiver see ``captured_at``."""
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
        """When the trigger captured the change."""
        return self.captured.replace(tzinfo=UTC)

    @property
    def record(self) -> str | None:
        """The key by which changes keep their order: the sfid, or the row's key if it has none."""
        return self.record_id or self.record_key

    @property
    def replay_id(self) -> str:
        """The change's position in the log; ids of one database sort as text."""
        return f"{self.epoch}-{self.id:015d}"

    @property
    def event_id(self) -> str:
        """The id of the change, the same in a restored database, where transaction ids differ."""
        return f"{self.id}-{(self.captured - _EPOCH) // _MICROSECOND}"

    def is_for(self, consumer: str) -> bool:
        """Return whether the change is for a consumer; a snapshot or a gap may be for a single one."""
        return bool((self.note or {}).get("consumer", consumer) == consumer)

    @property
    def named_receivers(self) -> frozenset[str]:
        """The receivers that a snapshot is for, by dotted path; empty if it is for all connected ones."""
        return frozenset((self.note or {}).get("receivers") or ())

    @property
    def replayed(self) -> bool:
        """Whether hc_replay sends the change; its retries have the mark too."""
        return bool((self.note or {}).get("replayed"))

    def noted_time(self, name: str) -> datetime | None:
        """Return a time of the note, which has it in ISO format; None if it has none."""
        text = (self.note or {}).get(name)
        return datetime.fromisoformat(text) if text else None
