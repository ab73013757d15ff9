"""The doorbell's lock protocol: a process holds an advisory lock only while it sleeps, so writers know when to notify.

A writer notifies only if it cannot share the lock; the proof is in migrations_sql/02_capture.sql. No flag in a
table could do this without losing a notification now and then.
"""

import psycopg
from psycopg.generators import fetch_many

from hc_signals.postgres.locks import BELL
from hc_signals.worker.bell_connection import CHANNEL, BellConnection

# NULL in another session than the one that LISTENs: then a pooler lends sessions after all. If the lock is refused, do
# writers share it, or does another sleeper hold it? Only the sleeper will notify.
_TRY_LOCK = """
SELECT CASE WHEN pg_backend_pid() = %s THEN pg_try_advisory_lock(%s, %s) END, EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND mode = 'ExclusiveLock' AND granted
)
"""
_UNLOCK = f"SELECT pg_advisory_unlock({BELL[0]}, {BELL[1]})"
_UNLOCK_AND_NOTIFY = f"{_UNLOCK}, set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', '')"


class BellLock:
    """The bell's lock, in the session of a :class:`BellConnection`. One thread at a time uses both.

    Only one session can hold the lock. A process that finds another one holding it sleeps as well: a notification
    reaches every process that LISTENs. Each method raises psycopg.Error if the connection is lost.
    """

    def __init__(self, connection: BellConnection) -> None:
        self._connection = connection
        self.is_held = False
        """True if this process holds the lock, and not another one."""
        self.is_releasing = False
        """True if the lock was given up, and the server's answer was not read yet."""

    def take(self) -> bool:
        """Try to take the lock; return True if it is held now, by us or by another sleeper."""
        raw = self._connection.raw
        assert raw is not None  # noqa: S101
        took, is_taken = raw.execute(_TRY_LOCK, [self._connection.pid, *BELL * 2]).fetchone() or (None, False)
        if took is None:
            raise psycopg.OperationalError("a pooler has changed the server session")
        self.is_held = bool(took)
        return bool(took or is_taken)

    def release(self, *, notify: bool) -> None:
        """Give the lock up if we hold it, without waiting for the answer: a change that woke us is waiting too.

        Then ``notify`` the other processes: while we held the lock, writers notified only us.
        """
        held, self.is_held = self.is_held, False
        if held and (raw := self._connection.raw) is not None:
            self.is_releasing = True
            raw.pgconn.send_query((_UNLOCK_AND_NOTIFY if notify else _UNLOCK).encode())
            raw.pgconn.flush()

    def finish_release(self) -> None:
        """Read the answer to :meth:`release`."""
        if not self.is_releasing:
            return
        raw = self._connection.raw
        assert raw is not None  # noqa: S101
        self.is_releasing = False
        results = raw.wait(fetch_many(raw.pgconn))
        if any(result.status != psycopg.pq.ExecStatus.TUPLES_OK for result in results):
            raise psycopg.OperationalError("the bell's lock could not be given up")

    def forget(self) -> None:
        """Note that the connection is closed, and the lock with it."""
        self.is_held = self.is_releasing = False
