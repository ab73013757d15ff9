"""A second connection, in pipeline mode: the server answers its statements while the first connection is busy."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from django.db import Error

from hc_signals.postgres.own_connections import OwnConnection, another_connection

Statement = tuple[str, Any]
"""SQL and its parameters."""


class SideConnection(OwnConnection):
    """Sends statements now and fetches their rows later. Belongs to one thread; opened by the first use.

    ``prepare`` is called with the Django connection after it has been opened.
    """

    def __init__(self, using: str, prepare: Callable[[Any], None]) -> None:
        super().__init__(using)
        self._prepare = prepare
        self._mode: Any = None
        """Context manager of the pipeline mode, which lasts as long as the connection."""
        self._pipeline: Any = None

    def send(self, statements: Sequence[Statement]) -> list[Any] | None:
        """Send statements; return their cursors, or None if the connection failed."""
        with suppress(Error), self._waiting():
            if self._connection is None:
                self._open()
            cursors = [self._connection.cursor() for _ in statements]
            for cursor, (sql, params) in zip(cursors, statements, strict=True):
                cursor.execute(sql, params)
            return cursors
        return None

    def receive(self) -> None:
        """Read whatever has arrived, without blocking; otherwise the server stalls. Errors surface on fetch."""
        with suppress(Exception):
            self._connection.connection.pgconn.consume_input()

    def finish(self, cursors: Sequence[Any]) -> bool:
        """Wait for all answers, so that rows can be fetched; return False if any statement failed.

        After a failure the next statements open a new connection.
        """
        if not cursors:
            return True
        if cursors[0].db is not self._connection:  # an error of other statements has closed it since
            return False
        with suppress(Error), self._waiting(), self._connection.wrap_database_errors:
            self._pipeline.sync()  # also ends the transaction that the statements shared
            return True
        return False

    def _open(self) -> None:
        self._connection = another_connection(self._using)
        self._connection.ensure_connection()
        self._prepare(self._connection)
        with self._connection.wrap_database_errors:
            self._mode = self._connection.connection.pipeline()
            self._pipeline = self._mode.__enter__()

    def close(self) -> None:
        """Close the connection, and discard what was sent and not fetched."""
        mode, self._mode, self._pipeline = self._mode, None, None
        super().close()
        with suppress(Exception):  # psycopg raises here: the mode has ended with the connection
            if mode is not None:
                mode.__exit__(None, None, None)
