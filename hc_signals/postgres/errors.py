"""Sorts the errors of the database, once and for all layers: is the connection lost, does the server say wait, or is
something set up wrong? And puts each into one line that holds no contents of rows.

Only SQLSTATEs decide: the server words its messages in the language of ``lc_messages``.
"""

from enum import Enum
from typing import Any

from django.db import DatabaseError, Error, OperationalError


class Kind(Enum):
    """What an error of the database means for a session that wants to go on."""

    LOST = "the connection is lost"
    """The session has ended, or never began: connect again."""
    WAIT = "the server says wait"
    """The session may live, and the same statement may succeed later: read-only, locked, full, too busy."""
    FAULT = "a fault of ours or of the set-up"
    """The statement cannot succeed until somebody changes something: a right, a function, the code."""


# Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOST_CODES = {
    "25P03",  # idle_in_transaction_session_timeout
    "25P04",  # transaction_timeout
    "57P01",  # admin_shutdown: also pg_terminate_backend()
    "57P02",  # crash_shutdown
    "57P05",  # idle_session_timeout
}
_WAIT_CODES = {
    "25006",  # read_only_sql_transaction: a standby, or default_transaction_read_only
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55006",  # object_in_use
    "55P03",  # lock_not_available
    "57014",  # query_canceled: also statement_timeout
    "57P03",  # cannot_connect_now: starting up, shutting down, in recovery
    "57P04",  # database_dropped: it may be in the middle of a restore
}
_LOST_CLASSES = ("08",)
_WAIT_CLASSES = ("53", "58")  # insufficient resources (connections, disk, memory); errors of the operating system
# Their messages quote values of rows: "invalid input syntax for type integer: ...".
_QUOTING_CLASSES = ("21", "22", "23", "44", "P0")

_NOT_MIGRATED = {"3F000", "42703", "42704", "42883", "42P01"}  # undefined schema, column, object, function, table

LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK_DETECTED = "40P01"
INSUFFICIENT_PRIVILEGE = "42501"
NO_REPLICA_IDENTITY = "55000"
IDENTITY_NOT_PUBLISHED = "42P10"


class ReadOnlyError(DatabaseError):
    """The server takes no writes now: it is in recovery, or the database is read-only. Raised before any is tried."""

    sqlstate = "25006"


class OvertakenError(OperationalError):
    """Another worker has delivered what this one was at."""

    sqlstate = "55006"


def is_database_error(error: BaseException) -> bool:
    """Tell whether it is an error of Django's database layer, or of psycopg."""
    return isinstance(error, Error) or hasattr(error, "sqlstate")


def sqlstate(error: BaseException) -> str | None:
    """Return the code of a psycopg error, or of the one that a Django error wraps.

    None where the server sent none: it could not be reached, or the connection broke.
    """
    found = getattr(error, "sqlstate", None) or getattr(error.__cause__, "sqlstate", None)
    return None if found is None else str(found)


def kind_of(error: BaseException) -> Kind:
    """Return what an error of the database, Django's or psycopg's, means.

    One without a SQLSTATE is a lost connection where its class says so (OperationalError, InterfaceError).
    """
    code = sqlstate(error)
    if code is None:
        is_lost = type(error).__name__ in ("OperationalError", "InterfaceError", "ConnectionTimeout")
        return Kind.LOST if is_lost else Kind.FAULT
    if code in _LOST_CODES or code[:2] in _LOST_CLASSES:
        return Kind.LOST
    if code in _WAIT_CODES or code[:2] in _WAIT_CLASSES:
        return Kind.WAIT
    return Kind.FAULT


def remedy(error: BaseException) -> str:
    """Return a sentence that says what a person has to do about an error of the kind FAULT."""
    code = sqlstate(error) or ""
    if code == INSUFFICIENT_PRIVILEGE:
        return "Grant the database role its rights: see docs/security.md."
    if code in _NOT_MIGRATED:
        return "Run `manage.py migrate hc_signals`: something of the change log is missing."
    if code[:2] in ("28", "3D"):
        return "Check user, password and name of the database in DATABASES."
    return "Look the SQLSTATE up; if nothing was changed in the database, report this as a bug of hc_signals."


def is_lock_timeout(error: BaseException) -> bool:
    """Tell whether a lock could not be had in time."""
    return sqlstate(error) == LOCK_NOT_AVAILABLE


def is_deadlock(error: BaseException) -> bool:
    """Tell whether PostgreSQL ended the statement because of a deadlock."""
    return sqlstate(error) == DEADLOCK_DETECTED


def refuses_row_changes(error: BaseException) -> bool:
    """Tell whether an UPDATE or DELETE is refused because of a publication: it covers the table but not what tells
    rows apart (no replica identity, or columns of it that are not published)."""
    return sqlstate(error) in (NO_REPLICA_IDENTITY, IDENTITY_NOT_PUBLISHED)


def lacks_privilege(error: BaseException) -> bool:
    """Tell whether the role lacks a right."""
    return sqlstate(error) == INSUFFICIENT_PRIVILEGE


def one_line(error: BaseException) -> str:
    """Return an error of the database as one line for logs and commands: its SQLSTATE, and what the server said.

    The first line of the primary message only: DETAIL quotes rows. Where the message itself may quote a value (bad
    data, violated constraints, errors that triggers raise), the name of the error stands in its place.
    """
    code, raised = sqlstate(error), _driver_error(error)
    name = type(raised).__name__
    if code is None:
        return (str(error).strip().splitlines() or [name])[0]
    diagnostics = getattr(raised, "diag", None)
    said = str(raised) if diagnostics is None else diagnostics.message_primary  # without them it is one of ours
    if not said or code[:2] in _QUOTING_CLASSES:
        return f"{name} [{code}]"
    return f"{said.splitlines()[0]} [{code}]"


def _driver_error(error: BaseException) -> Any:
    wrapped = error.__cause__
    return wrapped if hasattr(wrapped, "sqlstate") else error
