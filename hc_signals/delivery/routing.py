"""Which signals a change sends: :data:`ROUTES`. ``@on_change``, the admin and metrics ask this table too."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.db.models.signals import post_delete, post_save
from django.dispatch import Signal

from hc_signals import signals
from hc_signals.log.change import Change
from hc_signals.tables import counts_as_change

DJANGO_SIGNALS: dict[str, Signal] = {"post_save": post_save, "post_delete": post_delete}
"""Those that are Django's own: sent for the models that the setting ``DJANGO_SIGNALS`` chooses."""

SIGNALS = {name: each for name, each in vars(signals).items() if isinstance(each, Signal)} | DJANGO_SIGNALS
"""Every signal that we send, by the name under which a stored delivery refers to it."""


class Route(NamedTuple):
    """What one operation of the log sends."""

    change_type: str
    """``change_type`` of the event."""
    signals: tuple[str, ...]
    """Names of the signals, in the order in which they are sent."""
    is_of_table: bool = False
    """The operation concerns a whole table and no single record."""


_ANY_CHANGE = ("record_changed", "records_changed")

ROUTES: Mapping[str, Route] = {
    "INSERT": Route("CREATE", ("record_created", *_ANY_CHANGE, "post_save")),
    "UPDATE": Route("UPDATE", ("record_updated", *_ANY_CHANGE, "post_save")),
    "DELETE": Route("DELETE", ("record_deleted", *_ANY_CHANGE, "post_delete")),
    "SNAPSHOT": Route("SNAPSHOT", _ANY_CHANGE),
    "GAP_CREATE": Route("GAP_CREATE", ("record_created", *_ANY_CHANGE, "post_save")),
    "GAP_UPDATE": Route("GAP_UPDATE", ("record_updated", *_ANY_CHANGE, "post_save")),
    "RELOADED": Route("RELOADED", ("table_reloaded",), is_of_table=True),
    "RESYNCED": Route("RESYNCED", ("table_resynced",), is_of_table=True),
    "TRUNCATE": Route("GAP_OVERFLOW", ("gap_detected",), is_of_table=True),
    "GAP": Route("GAP_OVERFLOW", ("gap_detected",), is_of_table=True),
}
"""By the operation, as the log has it."""

OF_RECORDS = frozenset(operation for operation, route in ROUTES.items() if not route.is_of_table)
"""The operations that concern one record."""

TABLE_SIGNALS = tuple(dict.fromkeys(name for route in ROUTES.values() if route.is_of_table for name in route.signals))
"""Names of the signals that concern a whole table."""

FIRST_SIGNAL: Mapping[str, Signal] = {route.change_type: SIGNALS[route.signals[0]] for route in ROUTES.values()}
"""By change type: the signal that is sent first, ``record_created`` for CREATE."""


def route_of(operation: str) -> Route:
    """Return the route of an operation; one that this release does not know is a gap."""
    return ROUTES.get(operation) or ROUTES["GAP"]


def signals_of(operation: str, *, is_for_named: bool = False) -> tuple[str, ...]:
    """Return the names of the signals of an operation. A snapshot for named receivers sends those of a creation."""
    return route_of("INSERT" if operation == "SNAPSHOT" and is_for_named else operation).signals


def is_link(change: Change, old: Mapping[str, Any]) -> bool:
    """Return whether Salesforce has given the record its id by this change. ``old`` has old values by column."""
    return "sfid" in (change.changed or ()) and old.get("sfid") is None


def counted_columns(change: Change, is_link: bool) -> tuple[str, ...]:
    """Return the changed columns without Heroku Connect's bookkeeping; an sfid that replaces another one counts."""
    return tuple(c for c in change.changed or () if counts_as_change(c) and not (c == "sfid" and is_link))


def signals_of_change(change: Change, columns: Sequence[str], is_link: bool) -> tuple[str, ...]:
    """Return the names of the signals that a change of one record sends, in order.

    An update without any of the :func:`counted_columns` sends no signal of an update.
    """
    first = ("record_linked",) * is_link + ("sync_failed",) * ("_hc_err" in (change.changed or ()))
    if change.operation == "UPDATE" and not columns:
        return first
    return first + signals_of(change.operation, is_for_named=bool(change.named_receivers))
