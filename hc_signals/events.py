"""Change, a row of the log; ChangeEvent, what a receiver gets, in the words of Salesforce Change Data Capture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # Without a parameter, ChangeEvent is one of any model: nobody has to write ChangeEvent[Any].
    M_co = TypeVar("M_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    M_co = TypeVar("M_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEvent(Generic[M_co]):
    """One change of one record. Immutable. To type checkers ``ChangeEvent[Account]`` has an Account as ``instance``."""

    change_type: str
    """CREATE (also of a record that is undeleted in Salesforce), UPDATE, DELETE; SNAPSHOT (the record as it is, by
    hc_backfill); GAP_CREATE, GAP_UPDATE (read again after a gap: what changed is not known); GAP_OVERFLOW (changes may
    have been missed: read the table again); RELOADED and RESYNCED (of a whole table, see ``counts``)."""
    change_origin: str
    """``heroku_connect`` for Salesforce's changes, ``app`` for the app's own, ``backfill`` for hc_backfill's."""
    entity_name: str
    """Salesforce API name of the object."""
    record_id: str | None
    """The sfid; None while Salesforce has given none."""
    record_key: str | None
    """Primary key of the row, as text; Heroku Connect does not keep it over a reload."""
    changed_fields: tuple[str, ...] = ()
    """Django names of the changed fields; empty for CREATE and DELETE."""
    previous: Mapping[str, Any] = field(default_factory=dict)
    """Old values of the changed fields by Django name; Salesforce itself never sends these."""
    transaction_key: str
    """The same for all changes of one database transaction (a Heroku Connect batch)."""
    sequence_number: int
    """Rises inside a transaction; may have holes."""
    captured_at: datetime
    """When the trigger saw the change."""
    replay_id: str
    """Position of the change in the log: opaque, rises as text, also over a restore or a failover, and is refused after
    one."""
    event_id: str
    """Key for idempotent effects outside the database; the same for every attempt, also after a restore."""
    attempt: int = 1
    """1 on the first delivery."""
    replayed: bool = False
    """Sent again by hc_replay, under the ids that it had the first time."""
    cause: str = ""
    """For gaps: what happened."""
    since: datetime | None = None
    """For gaps: the first moment from which changes may have been missed; None where nobody knows. For reloads: their
    beginning."""
    until: datetime | None = None
    """For gaps: from here on changes are captured again. For reloads: their end."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """For RELOADED: records ``cleared``, ``unchanged``, ``changed``, ``created``, ``deleted``; for RESYNCED:
    ``resynced``."""
    instance: M_co = None  # type: ignore[assignment]  # only what tells of a whole table has none
    """The record as the ORM would have loaded it right after the change; before it, for DELETE; None for gaps and
    reloads."""


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
    """More than a change of one record says: see migrations_sql/0001_change_log.sql."""
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
