"""What keeps receiver calls of one transaction apart: each takes back what it wrote itself, and nobody else's."""

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import DatabaseError, OperationalError, connections
from django.db.backends.postgresql.base import Cursor
from django.db.transaction import TransactionManagementError
from psycopg.errors import InvalidSavepointSpecification, NoActiveSqlTransaction
from psycopg.pq import TransactionStatus

_numbers = itertools.count()

_IN_TRANSACTION = int(TransactionStatus.INTRANS)

Delivered = TypeVar("Delivered")


class IsolationLost(Exception):
    """A call has broken the transaction beyond its savepoint, or ended it: all that the page has written is lost."""


class ConnectionLost(IsolationLost):
    """A call has closed the connection, or it was lost under it."""


def until_isolated(deliver: Callable[[], Delivered]) -> Delivered:
    """Run what delivers in a transaction of its own, and again when that was lost by :class:`IsolationLost`.

    This comes to an end: see :func:`hc_signals.delivery.dispatch.send`.

    Raises:
        OperationalError: the connection was lost; with a new one, it comes to an end just so.
    """
    while True:
        try:
            return deliver()
        except ConnectionLost as lost:
            raise OperationalError("the connection was lost while a receiver had it") from lost
        except IsolationLost:
            continue


class Isolation:
    """A savepoint for each receiver call of one transaction, made at the call's first query: one that never touches
    the database costs nothing.

    It travels in the message of that query, and so does the release of the last one: a writing receiver costs no round
    trip of ours, and savepoints do not pile up. Outside a transaction (``ATOMIC = False``) there is nothing to isolate:
    what a receiver wrote is committed.

    The server parses a message as a whole before it makes the savepoint in it. So a first query with a syntax error
    breaks the transaction and not the call; and so does an error of a query that passes Django by, or a connection that
    is closed. See :func:`until_isolated`.
    """

    # One object for all calls, and not a generator, because it is entered for every call of every receiver.
    __slots__ = ("_call", "_connection", "_is_made", "_names", "_open", "in_advance")

    def __init__(self, using: str) -> None:
        self._connection: Any = connections[using]
        # Two by turns: the name of one that was not made must not be that of the last call's. No name for each call:
        # psycopg keeps what it has parsed of a query by its text, which a new name would make another one.
        number = next(_numbers)
        self._names = (f"hc_signals_{number}_even", f"hc_signals_{number}_odd")
        self.in_advance = False
        """Set before a call: make its savepoint at once, in a message of its own."""
        self._call = ""
        """The present one, as Django knows it; empty outside a transaction."""
        self._is_made = False
        """The present call has its savepoint, if the server got as far."""
        self._open = ""
        """The last savepoint that was made in this transaction."""

    def __enter__(self) -> None:
        self._call, self._is_made = "", False
        if self._connection.in_atomic_block:
            if self.in_advance:
                self._make()
            self._call = f"hc_signals_{next(_numbers)}"
            # Known to Django from the start, so that on_commit hooks of a failed receiver are dropped with its writes.
            self._connection.savepoint_ids.append(self._call)
            self._connection.execute_wrappers.append(self._before_query)

    def _begin(self) -> list[str]:
        """Take the present call for one with a savepoint; return the statements that make it."""
        release = [f"RELEASE SAVEPOINT {self._open}"] * bool(self._open)
        self._is_made, self._open = True, self._names[self._open == self._names[0]]
        return [*release, f"SAVEPOINT {self._open}"]

    def _make(self) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute("; ".join(self._begin()))

    def _before_query(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if self._is_made:
            return execute(sql, params, many, context)
        before, cursor = self._open, context["cursor"].cursor
        # Other cursors bind at the server, or read from a DECLARE: one statement a message.
        is_joinable = not many and isinstance(sql, str) and type(cursor) is Cursor
        begin = self._begin()
        if not is_joinable:
            with self._connection.cursor() as own:
                own.execute("; ".join(begin))
            return execute(sql, params, many, context)
        try:
            result = execute("; ".join([*begin, sql]), params, many, context)
        except BaseException:
            # A parameter that cannot be adapted is found before anything is sent.
            if self._status() == _IN_TRANSACTION:
                self._is_made, self._open = False, before
            raise
        for _ in begin:
            cursor.nextset()
        return result

    def _status(self) -> int:
        return int(self._connection.connection.pgconn.transaction_status)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if not self._call:
            return
        connection, status = self._connection, self._status()
        connection.execute_wrappers.pop()
        try:
            if error is not None or status != _IN_TRANSACTION or connection.needs_rollback:
                self._take_back(status)
                if error is None:
                    raise TransactionManagementError(
                        "The receiver went on after an error of the database, which had ended its transaction: "
                        "whatever it wrote is gone. Put a query that may fail into a block of transaction.atomic()."
                    )
        finally:
            connection.savepoint_ids.remove(self._call)

    def _take_back(self, status: int) -> None:
        connection = self._connection
        if status == TransactionStatus.UNKNOWN:
            raise ConnectionLost
        if status == TransactionStatus.IDLE or (status == TransactionStatus.INERROR and not self._is_made):
            raise IsolationLost
        connection.needs_rollback = False
        if self._is_made:
            self._roll_back()
        connection.run_on_commit = [entry for entry in connection.run_on_commit if self._call not in entry[0]]

    def _roll_back(self) -> None:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(f"ROLLBACK TO SAVEPOINT {self._open}")
        except DatabaseError as error:
            if isinstance(error.__cause__, InvalidSavepointSpecification | NoActiveSqlTransaction):
                raise IsolationLost from error
            raise


def isolate_hooks(using: str) -> None:
    """Let no receiver's on_commit hook take the others' with it; call it at the end of a page's transaction."""
    connection = connections[using]
    hooks: list[Any] = list(connection.run_on_commit)
    connection.run_on_commit = [(sids, hook, True) for sids, hook, _ in hooks]  # type: ignore[misc]
