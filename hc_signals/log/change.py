"""Change: one row of the log, without its images; its columns, its shard, and where a page is cut."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hc_signals.exceptions import ReplayError

_EPOCH, _MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)


PAGE_BYTES = 8_000_000
"""Most bytes of images per page. The worker holds several times that in memory."""

CHANGE_COLUMNS = (
    "xid::text, captured_at AT TIME ZONE 'UTC', table_name, operation, origin, record_key, record_id, changed, note, "
    "(SELECT epoch FROM public.hc_signals_control)"
)
"""The columns of a :class:`Change` after its id; failed deliveries have them too."""

IMAGE_BYTES = (
    "public.hc_signals_image_bytes(old) + public.hc_signals_image_bytes(new) + public.hc_signals_image_bytes(image)"
)
"""What a row adds to PAGE_BYTES."""

SHARD_NUMBER = "public.hc_signals_shard_of(table_name, record_id, record_key, %(shards)s)"
SHARD = f"AND {SHARD_NUMBER} = %(shard)s"
"""Condition that a record belongs to a shard; for tables with ``table_name``, ``record_id`` and ``record_key``."""


def format_replay_id(epoch: str, number: int) -> str:
    """Return the replay id of a change; ids of one database sort as text."""
    return f"{epoch}-{number:015d}"


def number_of(replay_id: str, epoch: str, newest_id: int) -> int:
    """Return the id of the change with a replay id, in a log with this epoch whose highest id is ``newest_id``.

    Raises:
        ReplayError: the replay id is of another log, or ahead of this one.
    """
    other, _, number = replay_id.partition("-")
    if other != epoch:
        raise ReplayError(f"{replay_id} is of another database, or from before a restore or failover of this one.")
    if int(number) > newest_id:
        newest = format_replay_id(epoch, newest_id)
        raise ReplayError(f"{replay_id} is ahead of the log, which ends at {newest}.")
    return int(number)


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
        """The change's position in the log."""
        return format_replay_id(self.epoch, self.id)

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

    @property
    def dry_run(self) -> bool:
        """Whether ``hc_replay --dry-run`` sends the change."""
        return bool((self.note or {}).get("dry_run"))

    def noted_time(self, name: str) -> datetime | None:
        """Return a time of the note, which has it in ISO format; None if it has none."""
        text = (self.note or {}).get(name)
        return datetime.fromisoformat(text) if text else None


def cut_page(rows: list[tuple[Any, ...]], limit: int) -> tuple[list[Change], bool]:
    """Return the changes of a page up to PAGE_BYTES, and whether there may be more.

    Each row begins with its IMAGE_BYTES; at most ``limit`` rows were asked for.
    """
    size = 0
    for count, row in enumerate(rows):
        size += row[0]
        if count and size > PAGE_BYTES:
            return [Change._make(row[1:]) for row in rows[:count]], True
    return [Change._make(row[1:]) for row in rows], len(rows) == limit
