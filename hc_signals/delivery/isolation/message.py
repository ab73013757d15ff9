"""Sends several statements in one message, so that ours cost no round trip; reads a transaction's state."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.db.backends.postgresql.base import Cursor
from psycopg.pq import TransactionStatus

from hc_signals.postgres import wrappers
from hc_signals.postgres.query import unprepared_cursor


class State:
    """States of a session's transaction, as libpq has them. UNKNOWN: the connection is closed, or known to be lost."""

    IDLE, ACTIVE, IN_TRANSACTION, IN_ERROR, UNKNOWN = map(int, TransactionStatus)


class Message(NamedTuple):
    """A statement, as Django passes it to an execute wrapper."""

    execute: Any
    sql: Any
    params: Any
    many: bool
    context: Any

    def send_after(self, statements: list[str], row_of: str = "") -> tuple[Any, Any]:
        """Send statements and then this one; in one message, if the cursor can.

        Returns:
            the result of this one, and the first row of the statement ``row_of``; None if no row is wanted.
        """
        cursor: Any = self.context["cursor"].cursor
        is_plain, row = type(cursor) is Cursor, None
        # Other cursors bind at the server, or read from a DECLARE: they send one statement per message.
        if self.many or not isinstance(self.sql, str) or not is_plain:
            for statement in statements:
                found = send_alone(self.context["connection"].alias, statement)
                row = found if statement == row_of else row
            return self.execute(self.sql, self.params, self.many, self.context), row
        result = self.execute("; ".join([*statements, self.sql]), self.params, self.many, self.context)
        for statement in statements:
            row = cursor.fetchone() if statement == row_of else row
            cursor.nextset()
        return result, row


def empty_message(connection: Any, cursor: Any) -> Message:
    """Return a message that does nothing, for statements that need one of their own."""

    def execute(sql: Any, params: Any, many: bool, context: Any) -> Any:
        with connection.wrap_database_errors:
            return context["cursor"].cursor.execute(sql)

    return Message(execute, "SELECT", None, False, {"cursor": cursor, "connection": connection})


def send_alone(using: str, sql: str) -> Any:
    """Send statements past all wrappers; return the first row of the first one, None if it returns no rows."""
    with wrappers.set_aside(using), unprepared_cursor(using) as cursor:
        cursor.execute(sql)
        return cursor.fetchone() if cursor.description else None


@contextmanager
def beginning(raw: Any) -> Iterator[list[str]]:
    """Yield the statement that begins the transaction, for the message of the block; nothing if psycopg has to do it.

    psycopg sends BEGIN alone and waits for the answer: one round trip more for each page.
    """
    is_default = raw.isolation_level is None and raw.read_only is None and raw.deferrable is None
    if raw.autocommit or not is_default or raw.pgconn.transaction_status != State.IDLE:
        yield []
        return
    # The public setter refuses the second assignment, because the transaction has begun.
    raw._autocommit = True
    try:
        yield ["BEGIN"] if raw.autocommit else []
    finally:
        raw._autocommit = False


def status(connection: Any) -> int:
    """Return the state of the transaction of a Django connection, without asking the server."""
    raw = connection.connection
    return State.UNKNOWN if raw is None else int(raw.pgconn.transaction_status)


def received_status(connection: Any) -> int:
    """Return the state after reading the socket: the server may have closed an idle session."""
    try:
        connection.connection.pgconn.consume_input()
    except Exception:
        return State.UNKNOWN
    return status(connection)
