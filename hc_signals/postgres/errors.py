"""Classify errors of the database by SQLSTATE, and write each as one line that holds no contents of rows.

The only module that knows SQLSTATEs. Messages decide nothing: the server words them in the language of ``lc_messages``.
"""

from enum import Enum
from typing import Any

from django.db import DatabaseError, Error


class Kind(Enum):
    """What an error of the database means for a session that wants to go on."""

    LOST = "the connection is lost"
    """The session has ended, or never began: reconnect."""
    WAIT = "the server says wait"
    """The session may live, and the same statement may succeed later: read-only, locked, full, too busy."""
    FAULT = "a fault of ours or of the set-up"
    """The statement fails until a person changes something: a right, a function, the code."""


# Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK_DETECTED = "40P01"
_INSUFFICIENT_PRIVILEGE = "42501"
_QUERY_CANCELED = "57014"  # also statement_timeout
_IDLE_IN_TRANSACTION_TIMEOUT = "25P03"
_TRANSACTION_TIMEOUT = "25P04"
_LEFT_SETTINGS = "ZHC01"  # raised by hc_signals_check_settings()

_LOST_CODES = {
    _IDLE_IN_TRANSACTION_TIMEOUT,
    _TRANSACTION_TIMEOUT,
    "57P01",  # admin_shutdown: also pg_terminate_backend()
    "57P02",  # crash_shutdown
    "57P05",  # idle_session_timeout
}
_WAIT_CODES = {
    "25006",  # read_only_sql_transaction: a standby, or default_transaction_read_only
    "40001",  # serialization_failure
    _DEADLOCK_DETECTED,
    "55006",  # object_in_use
    _LOCK_NOT_AVAILABLE,
    _QUERY_CANCELED,
    "57P03",  # cannot_connect_now: starting up, shutting down, in recovery
    "57P04",  # database_dropped: it may be in the middle of a restore
}
_LOST_CLASSES = ("08",)
_WAIT_CLASSES = ("53", "58")  # insufficient resources (connections, disk, memory); errors of the operating system
_QUOTING_CLASSES = ("21", "22", "23", "44", "P0")
"""Their messages quote values of rows: "invalid input syntax for type integer: ..."."""

_NOT_MIGRATED = {"3F000", "42703", "42704", "42883", "42P01"}  # undefined schema, column, object, function, table
_NO_ROW_CHANGES = {"55000", "42P10"}  # no replica identity; columns of it that are not published
_NO_SAVEPOINT = {"3B001", "25P01"}  # invalid_savepoint_specification, no_active_sql_transaction


class ReadOnlyError(DatabaseError):
    """The server takes no writes now: it is in recovery, or the database is read-only. Raised before any write."""

    sqlstate = "25006"


def is_database_error(error: BaseException) -> bool:
    """Return True for an error of Django's database layer, or of psycopg."""
    return isinstance(error, Error) or hasattr(error, "sqlstate")


def sqlstate(error: BaseException | None) -> str | None:
    """Return the code of a psycopg error, or of the one that a Django error wraps.

    None if the server sent no code: it could not be reached, or the connection broke.
    """
    found = getattr(error, "sqlstate", None) or getattr(getattr(error, "__cause__", None), "sqlstate", None)
    return None if found is None else str(found)


def kind_of(error: BaseException) -> Kind:
    """Return what an error of the database, Django's or psycopg's, means for the session.

    An error without a SQLSTATE is a lost connection if it is an OperationalError or InterfaceError.
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
    if code == _INSUFFICIENT_PRIVILEGE:
        return "Grant the database role its rights: see docs/security.md."
    if code in _NOT_MIGRATED:
        return "Run `manage.py migrate hc_signals`: something of the change log is missing."
    if code[:2] in ("28", "3D"):
        return "Check user, password and name of the database in DATABASES."
    return "Look the SQLSTATE up; if nothing was changed in the database, report this as a bug of hc_signals."


def is_lock_timeout(error: BaseException) -> bool:
    """Return True if a lock was not free in time."""
    return sqlstate(error) == _LOCK_NOT_AVAILABLE


def is_deadlock(error: BaseException) -> bool:
    """Return True if PostgreSQL ended the statement because of a deadlock."""
    return sqlstate(error) == _DEADLOCK_DETECTED


def is_transaction_limit(error: BaseException | None) -> bool:
    """Return True if a time limit of the project for transactions ended the session."""
    return sqlstate(error) in (_IDLE_IN_TRANSACTION_TIMEOUT, _TRANSACTION_TIMEOUT)


def lacks_privilege(error: BaseException) -> bool:
    """Return True if the role lacks a right."""
    return sqlstate(error) == _INSUFFICIENT_PRIVILEGE


def lacks_savepoint(error: BaseException) -> bool:
    """Return True if the transaction has no such savepoint any more, or there is no transaction."""
    return sqlstate(error) in _NO_SAVEPOINT


def left_settings(error: BaseException | None) -> bool:
    """Return True if hc_signals_check_settings() found settings that a receiver changed; :func:`message` lists them."""
    return sqlstate(error) == _LEFT_SETTINGS


def prevents_reading(error: BaseException) -> bool:
    """Return True if a query found no right to read, no free lock, or no time: a person can read on without it."""
    return sqlstate(error) in (_INSUFFICIENT_PRIVILEGE, _QUERY_CANCELED, _LOCK_NOT_AVAILABLE)


def refuses_row_changes(error: BaseException) -> bool:
    """Return True if a publication refuses UPDATE or DELETE: the table has no replica identity that it publishes."""
    return sqlstate(error) in _NO_ROW_CHANGES


def message(error: BaseException) -> str:
    """Return the server's primary message, or the text of another error; without DETAIL, which quotes rows."""
    raised = _driver_error(error)
    diagnostics = getattr(raised, "diag", None)
    return str(raised) if diagnostics is None else diagnostics.message_primary or ""


def one_line(error: BaseException) -> str:
    """Return an error of the database as one line for logs and commands: the server's message and the SQLSTATE.

    The name of the error replaces a message that may quote a value (bad data, violated constraints, errors that
    triggers raise).
    """
    code, name = sqlstate(error), type(_driver_error(error)).__name__
    said = (str(error) if code is None else message(error)).strip().splitlines()
    if code is None:
        return said[0] if said else name
    return f"{name if not said or code[:2] in _QUOTING_CLASSES else said[0]} [{code}]"


def _driver_error(error: BaseException) -> Any:
    wrapped = error.__cause__
    return wrapped if hasattr(wrapped, "sqlstate") else error
