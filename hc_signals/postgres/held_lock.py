"""Hold an advisory lock on a connection of its own, in a transaction that stays open.

The lock ends with the connection, however the process dies, also behind a pooler. A pooler does not lend the session
of an open transaction, and drops it when the client goes away. A lock of the session would stay in the pooler's
session, and with the client that gets it next.

Until it writes, the open transaction has no id and no snapshot, so neither VACUUM nor CREATE INDEX CONCURRENTLY waits
for it. What it writes is committed only if the lock was held until then.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.db import Error, InterfaceError, OperationalError

from hc_signals.postgres.limits import KEEPALIVES, set_configs
from hc_signals.postgres.own_connections import SERVER, OwnConnection, another_connection, disable_jit
from hc_signals.postgres.query import row

_LIMITS = set_configs(
    {**KEEPALIVES, "idle_in_transaction_session_timeout": "0", "transaction_timeout": "0"}, is_local=True
)
_READ_COMMITTED = 2
"""``psycopg.IsolationLevel.READ_COMMITTED``, as Django's option wants it."""


class HeldLock(OwnConnection):
    """Takes one lock at a time and holds it until :meth:`release`. Used by one thread at a time.

    ``application_name`` is the connection's in pg_stat_activity; a name of the project's own settings wins.
    """

    def __init__(self, using: str, application_name: str) -> None:
        super().__init__(using)
        self._name = application_name
        self.is_held = False
        """A lock was taken and not released. Its connection may have been lost since."""

    def take(self, lock: str, params: Sequence[Any]) -> bool:
        """Try to take a lock: three round trips with :meth:`release`; raise if the connection failed, or was lost.

        ``lock`` is an SQL expression with ``params``. It takes the lock to the end of the transaction; it is true if
        that succeeded.
        """
        with self._waiting():
            if self._connection is None:
                self._open()
            *_, server, is_free = row(self._connection, f"SELECT {_LIMITS}, ({SERVER}), {lock}", params)
            if self.server not in (None, server):
                raise OperationalError("a lock of another server protects nothing: the address leads to two servers")
            self.is_held = bool(is_free)
            if not self.is_held:
                self._connection.rollback()
        return self.is_held

    def confirm(self) -> None:
        """Raise DatabaseError or InterfaceError if the lock is not held any more."""
        if not self.is_held:
            raise InterfaceError("no lock is held")
        with self._waiting():
            row(self._connection, "SELECT 1")

    def row(self, sql: str, params: Sequence[Any]) -> Any:
        """Run a statement in the lock's transaction and return its first row; it counts if :meth:`commit` follows."""
        with self._waiting():
            return row(self._connection, sql, params)

    def commit(self) -> None:
        """Commit what :meth:`row` wrote, and give the lock back; raise if the lock was lost before."""
        self.is_held = False
        with self._waiting():
            self._connection.commit()

    def release(self) -> None:
        """Give the lock back, and undo what :meth:`row` wrote. If the connection was lost, both have ended already."""
        if not self.is_held:
            return
        self.is_held = False
        with suppress(Error), self._waiting():
            self._connection.rollback()

    def close(self) -> None:
        """Close the connection; the lock ends with it."""
        self.is_held = False
        super().close()

    def _open(self) -> None:
        connection = another_connection(self._using, application_name=self._name)
        # Another level would keep a snapshot, and so dead rows in all tables, while the lock is held.
        connection.settings_dict["OPTIONS"]["isolation_level"] = _READ_COMMITTED
        connection.inc_thread_sharing()
        disable_jit(connection)
        connection.set_autocommit(False)
        self._connection = connection
