"""An advisory lock for as long as is wanted, on a connection of its own: in a transaction that is left open.

Such a lock ends with the connection, however the process dies and whatever poolers there are in between: a pooler lends
the session of an open transaction to nobody else, and drops it when the client goes away. A lock of the session would
stay with a pooler's session, and with whoever gets that next.

The open transaction has no id and no snapshot, so neither VACUUM nor CREATE INDEX CONCURRENTLY waits for it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from django.db import DatabaseError, InterfaceError

from hc_signals.postgres.sessions import another_connection

# To the end of the transaction only. The limits of role and database are for the requests of a site. The keepalives let
# the server notice that the client is gone.
_TAKE = """
SELECT set_config('idle_in_transaction_session_timeout', '0', true),
       CASE WHEN current_setting('server_version_num')::int >= 170000
            THEN set_config('transaction_timeout', '0', true) END,
       set_config('tcp_keepalives_idle', '5', true), set_config('tcp_keepalives_interval', '3', true),
       set_config('tcp_keepalives_count', '3', true), set_config('tcp_user_timeout', '14000', true),
       {lock}
"""


class HeldLock:
    """Takes one lock at a time and holds it until :meth:`release`. Connects when first used; threads take turns at it.

    Args:
        using: database alias.
        application_name: under which pg_stat_activity shows the connection; a name of the project's own settings goes
            before.
    """

    def __init__(self, using: str, application_name: str) -> None:
        self._using, self._name = using, application_name
        self._connection: Any = None
        self._is_held = self._is_awaited = False

    @property
    def awaited(self) -> Any:
        """The psycopg connection while a thread is blocked on it (read by the watchdog); otherwise None."""
        connection = self._connection
        return connection.connection if self._is_awaited and connection is not None else None

    @property
    def is_held(self) -> bool:
        """Whether a lock was taken and not released. Its connection may have been lost since."""
        return self._is_held

    def take(self, lock: str, params: Sequence[Any]) -> bool:
        """Try to take a lock: three round trips with :meth:`release`.

        Args:
            lock: SQL expression that takes it until the end of the transaction and tells whether it could.

        Raises:
            DatabaseError, InterfaceError: the connection cannot be had, or was lost.
        """
        with self._waiting():
            if self._connection is None:
                self._open()
            with self._connection.cursor() as cursor:
                cursor.execute(_TAKE.format(lock=lock), params)
                self._is_held = bool(cursor.fetchone()[-1])
            if not self._is_held:
                self._connection.rollback()
        return self._is_held

    def confirm(self) -> None:
        """Make sure that the lock is still held.

        Raises:
            DatabaseError, InterfaceError: it is not.
        """
        if not self._is_held:
            raise InterfaceError("no lock is held")
        with self._waiting(), self._connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    def release(self) -> None:
        """Give the lock back. Where the connection was lost, it has ended already."""
        if not self._is_held:
            return
        self._is_held = False
        with suppress(DatabaseError, InterfaceError), self._waiting():
            self._connection.rollback()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """The thread may wait for the server; an error lets the connection go."""
        self._is_awaited = True
        try:
            yield
        except (DatabaseError, InterfaceError):
            self.close()
            raise
        finally:
            self._is_awaited = False

    def close(self) -> None:
        """Let the connection go, and the lock with it."""
        connection, self._connection, self._is_held = self._connection, None, False
        with suppress(DatabaseError, InterfaceError):
            if connection is not None:
                connection.close()

    def _open(self) -> None:
        connection = another_connection(self._using, application_name=self._name)
        # Another level would keep a snapshot, and with it dead rows in all tables, for as long as the lock is held.
        connection.settings_dict["OPTIONS"]["isolation_level"] = _READ_COMMITTED
        connection.inc_thread_sharing()
        connection.set_autocommit(False)
        self._connection = connection


_READ_COMMITTED = 2
"""``psycopg.IsolationLevel.READ_COMMITTED``, as Django's option wants it."""
