"""A second connection that reads while the first one is at work: the server answers meanwhile, nobody waits for it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from django.db import DatabaseError, InterfaceError

from hc_signals.postgres.own_connections import another_connection

Statement = tuple[str, Any]
"""SQL and its parameters."""


class SideConnection:
    """Sends statements without waiting, whose rows are fetched later. Belongs to one thread; opened when first used.

    Args:
        using: database alias.
        prepare: is called with the Django connection when it has been opened.
    """

    def __init__(self, using: str, prepare: Callable[[Any], None]) -> None:
        self._using, self._prepare = using, prepare
        self._connection: Any = None
        self._mode: Any = None
        """The context manager of the pipeline mode, in which the connection is all its life."""
        self._pipeline: Any = None
        self._is_awaited = False

    @property
    def awaited(self) -> Any:
        """The psycopg connection while its thread waits at it, for whoever looks after it; else None."""
        connection = self._connection
        return connection.connection if self._is_awaited and connection is not None else None

    def send(self, statements: Sequence[Statement]) -> list[Any] | None:
        """Send statements; return the cursors to be fetched from, None if the connection cannot be had."""
        with self._waiting():
            if self._connection is None:
                self._open()
            cursors = [self._connection.cursor() for _ in statements]
            for cursor, (sql, params) in zip(cursors, statements, strict=True):
                cursor.execute(sql, params)
            return cursors
        return None

    def receive(self) -> None:
        """Take in what the server has sent so far: it stops where nobody does. An error shows when it is fetched."""
        with suppress(Exception):
            self._connection.connection.pgconn.consume_input()

    def finish(self, cursors: Sequence[Any]) -> bool:
        """Wait for all answers, so that rows can be fetched; False if a statement has failed, whichever.

        After a failure the connection begins anew with the next statements.
        """
        if not cursors:
            return True
        if cursors[0].db is not self._connection:  # closed since, by an error of other statements; perhaps made anew
            return False
        with self._waiting(), self._connection.wrap_database_errors:
            self._pipeline.sync()  # ends the transaction that they had in common as well
            return True
        return False

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """The thread may wait for the server; an error ends the block, and the connection with it."""
        self._is_awaited = True
        try:
            yield
        except (DatabaseError, InterfaceError):
            self.close()
        finally:
            self._is_awaited = False

    def _open(self) -> None:
        self._connection = another_connection(self._using)
        self._connection.ensure_connection()
        self._prepare(self._connection)
        with self._connection.wrap_database_errors:
            self._mode = self._connection.connection.pipeline()
            self._pipeline = self._mode.__enter__()

    def close(self) -> None:
        """Let the connection go, with whatever was sent and not fetched."""
        connection, mode = self._connection, self._mode
        self._connection = self._mode = self._pipeline = None
        with suppress(DatabaseError, InterfaceError):
            if connection is not None:
                connection.close()
        with suppress(Exception):  # psycopg's: the mode ends with the connection
            if mode is not None:
                mode.__exit__(None, None, None)
