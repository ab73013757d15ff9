"""ChangeEvent: what a receiver gets, in the words of Salesforce Change Data Capture."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # The default makes ChangeEvent, without a parameter, the event of any model.
    M_co = TypeVar("M_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    M_co = TypeVar("M_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEvent(Generic[M_co]):
    """One change of one record. Immutable. To type checkers ``ChangeEvent[Account]`` has an Account as ``instance``."""

    change_type: str
    """CREATE (also when Salesforce undeletes a record), UPDATE, DELETE; SNAPSHOT (the record as it is, by hc_backfill);
    GAP_CREATE, GAP_UPDATE (read again after a gap, so the changed fields are unknown); GAP_OVERFLOW (changes may have
    been missed: read the table again); RELOADED and RESYNCED (of a whole table, see ``counts``)."""
    change_origin: str
    """``heroku_connect`` for Salesforce's changes, ``app`` for the app's own, ``backfill`` for hc_backfill's."""
    entity_name: str
    """Salesforce API name of the object."""
    record_id: str | None
    """The sfid; None until Salesforce has assigned one."""
    record_key: str | None
    """Primary key of the row, as text; after a reload the record has another one."""
    changed_fields: tuple[str, ...] = ()
    """Django names of the changed fields; empty for CREATE and DELETE."""
    pending_fields: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Changed fields whose value the app has replaced, or may have replaced, by a write that Salesforce did not have
    yet: another change follows. For CREATE, of all fields. Reads the trigger log: see docs/writing.md."""
    previous: Mapping[str, Any] = field(default_factory=dict)
    """Old values of the changed fields by Django name. Salesforce's own events lack them."""
    transaction_key: str
    """The same for all changes of one database transaction (a Heroku Connect batch)."""
    sequence_number: int
    """Rises inside a transaction, with holes."""
    captured_at: datetime
    """When the trigger captured the change."""
    replay_id: str
    """Position of the change in the log: opaque. It rises as text, also over a restore or a failover; hc_replay refuses
    ids from before one."""
    event_id: str
    """Key for idempotent effects outside the database; the same for every attempt, also after a restore."""
    attempt: int = 1
    """1 on the first delivery."""
    replayed: bool = False
    """hc_replay sent the event again, with the ids that it had the first time."""
    dry_run: bool = field(default=False, repr=False, compare=False)
    """``hc_replay --dry-run`` sent the event: the database takes the call back, so leave out all other effects."""
    cause: str = ""
    """For gaps: why changes may have been missed."""
    since: datetime | None = None
    """For gaps: since when changes may have been missed; None: unknown. For reloads: their beginning."""
    until: datetime | None = None
    """For gaps: when changes were captured again. For reloads: their end."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """For RELOADED: records ``cleared``, ``unchanged``, ``changed``, ``created``, ``deleted``; for RESYNCED:
    ``resynced``."""
    instance: M_co = None  # type: ignore[assignment]  # only events of a whole table have none
    """The record as the ORM would have loaded it right after the change; before it, for DELETE; None for gaps and
    reloads."""


class DryCall:
    """One receiver call of a dry run."""

    asked = False
    """Whether the receiver has read ``event.dry_run``, or called :func:`in_dry_run`."""


DRY_CALL: ContextVar[DryCall | None] = ContextVar("hc_signals_dry_call", default=None)
"""The call that a dry run makes now; None outside of one."""


def in_dry_run() -> bool:
    """Return whether ``hc_replay --dry-run`` calls the running receiver: for those that get no event.

    Receivers of Django's ``post_save`` and ``post_delete`` get none. A thread that the receiver starts gets False.
    """
    call = DRY_CALL.get()
    if call is not None:
        call.asked = True
    return call is not None
