"""The session of hc_tail: woken by the doorbell's notifications, but never an owner of the doorbell's lock.

A writer notifies if a worker sleeps, and this session hears it too. If no worker sleeps, no writer notifies, and the
next poll finds the change. A suspended process must not keep the lock, so this session never takes it.

A session that LISTENs and takes its notifications no more would fill the server's queue of them. So hc_tail closes its
session before it is suspended, and while the reader of its output takes nothing. Between two polls the session has no
transaction.
"""

import time
from typing import Any

from django.db import connections

from hc_signals.postgres.limits import own_limits
from hc_signals.postgres.own_connections import name_session
from hc_signals.postgres.query import execute, row
from hc_signals.worker.bell_connection import CHANNEL

NAME = "hc_tail"
"""Its name in pg_stat_activity, if the project's settings have none."""
POLL = 0.2
"""Seconds between two polls. Each costs the server 0.1 to 0.7 ms of CPU, and does not depend on the size of the log."""


class TailSession:
    """The calling thread's connection to a database, and its sleep between two reads of the log."""

    def __init__(self, using: str) -> None:
        self._connection: Any = connections[using]
        self._ready: Any = None
        self._listens = False

    def connect(self) -> None:
        """Connect, unless there is a connection. LISTEN if the session is ours and the server is no follower."""
        if self._is_connected:
            return
        self._listens = False
        self._connection.ensure_connection()
        self._connection.set_autocommit(True)  # the project may have switched it off: then a read opens a transaction
        if name_session(self._connection, NAME):
            execute(self._connection, own_limits(is_local=False))
            self._listens = not row(self._connection, "SELECT pg_is_in_recovery()")[0]
        if self._listens:
            execute(self._connection, f"LISTEN {CHANNEL}")
        self._ready = self._connection.connection

    def wait(self) -> None:
        """Wait for a notification, at most POLL seconds; not at all if the connection was closed since."""
        if not self._listens:
            time.sleep(POLL)
        elif self._is_connected:
            with self._connection.wrap_database_errors:
                list(self._ready.notifies(timeout=POLL, stop_after=1))

    @property
    def _is_connected(self) -> bool:
        return self._ready is not None and self._connection.connection is self._ready

    def close(self) -> None:
        """Close the connection; the next :meth:`connect` opens another one."""
        self._connection.close()
