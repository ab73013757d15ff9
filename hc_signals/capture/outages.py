"""How capture goes off a table and comes back, whoever does it: the worker, ``install``, ``uninstall`` or ``resume``.

What goes off is noted with its cause in the transaction that takes it off. When capture is right again, the gap is
told and the rows are due to be read again, in the transaction in which it is seen right. Whoever dies in between
leaves the note, and the next one goes on from there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Model

from hc_signals.capture import table_state, triggers
from hc_signals.capture.drift import Sight, look
from hc_signals.tables import table_label


@dataclass(frozen=True)
class Returned:
    """A table on which capture is right again."""

    table: str
    cause: str
    since: datetime | None
    """When changes began to be missed, at the earliest; None: nobody knows."""
    is_reread: bool
    """Whether ``hc_listen`` reads again what Salesforce changed since."""


def uninstall(model: type[Model], using: str) -> None:
    """Remove capture from a table until somebody installs it again; the worker leaves it alone.

    Raises:
        OperationalError: the table stayed locked.
    """
    table = table_label(model)

    def note() -> None:
        note_off(model, using, "uninstalled", lambda: table_state.off_since(using, table), uninstalled=True)

    triggers.uninstall(model, using, note)


def note_off(
    model: type[Model], using: str, cause: str, since: Callable[[], datetime], uninstalled: bool = False
) -> None:
    """Note that capture is being taken off a table. In the transaction that does it.

    Args:
        cause: of the gap that will be told, unless capture was wrong before.
        since: returns when it begins.
        uninstalled: the table is to be left alone afterwards.
    """
    if not table_state.is_there(using):
        return  # no log, so there is nobody to tell
    sight = look([model], using)[0]
    if sight.is_left_alone:
        return
    if not sight.is_first:
        table_state.owe(using, sight.status.table, *gap_of(sight, cause, since()), uninstalled)
    elif uninstalled:
        table_state.owe(using, sight.status.table, None, None, uninstalled)


def gap_of(sight: Sight, cause: str, since: datetime) -> tuple[str, datetime | None]:
    """Return cause and beginning of the gap of a table that is not captured, for ``cause``, since ``since``.

    If capture was wrong before, the gap is that one, and longer. Of a table that is away nobody can tell.
    """
    good_at = None if sight.known is None else sight.known.good_at
    if sight.found.oid is None:
        return cause, good_at or since
    return (cause, since) if sight.cause is None else (sight.cause, good_at)


def bring_back(model: type[Model], using: str, attempts: int = 5) -> Returned | None:
    """Install capture on a table and tell what was missed until now.

    While capture is paused nothing is told: ``resume`` does.

    Returns:
        None: nothing was missed, or capture is not right yet.

    Raises:
        DatabaseError: the table stayed locked for ``attempts`` times LOCK_TIMEOUT, or a right is lacking.
    """
    sight = look([model], using)[0]
    table = sight.status.table
    if sight.found.oid is not None and sight.cause is not None:
        table_state.suspect(using, table, sight.known, sight.cause)
    table_state.note_installed(using, table)
    repair(sight, using, attempts)
    if sight.is_off:
        return None
    returned = tell(model, using)
    if returned is None:
        note_good(model, using)
    return returned


def repair(sight: Sight, using: str, attempts: int = 5) -> None:
    """Install capture where it is not as it should be.

    Raises:
        DatabaseError: the table stayed locked for ``attempts`` times LOCK_TIMEOUT, or a right is lacking.
    """
    # Where something was missed, nobody may have it uncommitted still when the gap is told.
    thorough = sight.wrong not in (None, "columns_missing")
    triggers.install(sight.model, using, attempts=attempts, thorough=thorough)


def note_good(model: type[Model], using: str) -> bool:
    """Note that capture is right on a table, if it is; tell whether nothing was known of it before."""
    sight = look([model], using)[0]
    if sight.found.oid is None or sight.wrong is not None or sight.is_off:
        return False
    return bool(table_state.note_good(using, [(sight.status.table, *sight.good)]))


def tell(model: type[Model], using: str) -> Returned | None:
    """Tell the gap that a table owes, if capture is right in the very transaction that tells it.

    Returns:
        None: nothing is owed, or somebody else has told it, or capture is not right yet.
    """
    with transaction.atomic(using=using):
        before = table_state.lock(using, table_label(model))
        if before is None or before.cause is None:
            return None
        fresh = look([model], using)[0]
        if fresh.found.oid is None or fresh.wrong is not None:
            return None
        is_reread = "systemmodstamp" in fresh.found.columns and before.good_at is not None
        table_state.settle(using, before, fresh.good, is_reread)
    return Returned(before.table, before.cause, before.good_at, is_reread)
