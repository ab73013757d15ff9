"""The doorbell: sleep until a writer rings. LISTEN has a connection of its own that no receiver touches: see line.py.

A worker holds an advisory lock only while it sleeps; writers ring only when they cannot share it (the proof is in
migrations_sql/02_capture.sql). No flag in a table could do this without losing a ring now and then.

Behind a pooler that may lend the session to others there is neither LISTEN nor lock, because both would stay in it.
Then the sleepers look at the log at growing intervals, and the connection only shows that a worker is running.

Only one session can hold the lock. A process that finds another one holding it sleeps as well: a ring goes to everyone
who listens. Whoever gives the lock up without having been rung rings for the others, because writers then will not.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType

import psycopg
from django.db import DatabaseError, InterfaceError
from psycopg.generators import fetch_many

from hc_signals.observing import here
from hc_signals.postgres.locks import BELL
from hc_signals.worker.bell_connection import CHANNEL, Line

# NULL in another session than the one that LISTENs: then a pooler lends sessions after all. Refused by the shares of
# writers, or by another sleeper? Only the latter's rings may be waited for.
_TRY_LOCK = """
SELECT CASE WHEN pg_backend_pid() = %s THEN pg_try_advisory_lock(%s, %s) END, EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND mode = 'ExclusiveLock' AND granted
)
"""


class Doorbell(Line):
    """LISTEN, sleep, wake, reconnect. Several threads may sleep at it: one of them listens for all.

    Args:
        using: database alias whose connection parameters are taken.
        stopping: asked at least every SLICE seconds while waiting.
        name: of the consumer; pg_stat_activity shows the connection under it.
    """

    SLICE = 0.5
    """Seconds of one wait: a signal handler's flag, and a lock whose holder died, are seen only between two."""
    BUSY_PAUSES = (0.003, 0.05)
    """First and longest pause while a writer that did not ring is open."""

    def __init__(self, using: str, stopping: Callable[[], bool], name: str = "") -> None:
        super().__init__(using, name)
        self._stopping = stopping
        self._busy_pause = self.BUSY_PAUSES[0]
        # Shared by the threads; what follows is changed under the guard only.
        self._guard = threading.Condition()
        self._sleepers = 0
        self._asleep = self._has_lock = self._has_listener = self._is_unlocking = False
        self._rings = 0

    def __enter__(self) -> "Doorbell":
        # One that is refused now must not keep anything from being delivered: it is tried again, and polled meanwhile.
        try:
            self._connect()
        except (psycopg.Error, DatabaseError, InterfaceError) as error:
            self._close()
            self._trouble.happens(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def connection(self) -> psycopg.Connection | None:
        """The connection of now, for whoever looks after it; None where nobody waits at it for an answer."""
        return None if self._is_unlocking else self._connection

    def sleep(self, is_waiting: Callable[[], bool], pause: Callable[[], float]) -> None:
        """Sleep until rung, stopped, or something waits although nobody rang.

        Args:
            is_waiting: a look at the log. The last one is taken after the lock: a writer that did not ring is visible
                to it. It is taken again each time the pause is over.
            pause: seconds until the next look.
        """
        with self._guard:
            # Where another thread sleeps, the lock is held already: by us, or by a process that rings for us.
            seconds = 0.0 if self._asleep else self._fall_asleep()
            if seconds == 0.0:
                self._sleepers += 1
                rings = self._rings
        if seconds is None:
            self._poll(is_waiting, pause)
            return
        if seconds:
            self.doze(seconds)
            return
        listens = False
        try:
            look_at = 0.0
            while self._rings == rings and not self._stopping():
                here().turn()
                if time.monotonic() >= look_at:
                    if is_waiting():
                        return
                    look_at = time.monotonic() + pause()
                listens = listens or self._take_over_listening()
                self._wait(min(self.SLICE, max(0.0, look_at - time.monotonic())), rings, listens)
        finally:
            self._get_up(listens)

    def doze(self, seconds: float) -> None:
        """Wait without a bell, until stopped."""
        deadline = time.monotonic() + seconds
        while not self._stopping() and (left := deadline - time.monotonic()) > 0:
            here().turn()
            time.sleep(min(left, 0.1))

    def _poll(self, is_waiting: Callable[[], bool], pause: Callable[[], float]) -> None:
        """Sleep without a bell, until something waits; return as well when a ring may be heard again."""
        longest = self.POLL_PAUSES[0]
        while not self._stopping():
            here().turn()
            self.doze(min(longest, pause()))
            longest = min(2 * longest, self.POLL_PAUSES[1])
            with self._guard:
                try:
                    if not self._must_poll():
                        return
                except psycopg.Error as error:
                    self._close()
                    self._trouble.happens(error)
                    return
            if self._stopping() or is_waiting():
                return

    def _fall_asleep(self) -> float | None:
        """Take the lock, or see that another process has it, and return 0; else the seconds to wait without a bell.

        None: no ring can be heard.
        """
        try:
            self._settle()
            if self._must_poll():
                self._trouble.ends()
                return None
            if not self.is_connected:
                self._connect()
                return self.BUSY_PAUSES[0]  # read the log first: rings sent meanwhile never come again
            is_locked = self._try_lock()
            self._trouble.ends()
            if is_locked:
                self._busy_pause = self.BUSY_PAUSES[0]
                self._asleep = True
                return 0.0
        except psycopg.Error as error:
            self._close()
            return self._trouble.happens(error)
        pause, self._busy_pause = self._busy_pause, min(2 * self._busy_pause, self.BUSY_PAUSES[1])
        return pause

    def _try_lock(self) -> bool:
        """Tell whether the lock is held now, by us or by another sleeper."""
        assert self._connection is not None  # noqa: S101
        row = self._connection.execute(_TRY_LOCK, [self._pid, *BELL * 2]).fetchone()
        took, is_held = row or (None, False)
        if took is None:
            raise psycopg.OperationalError("a pooler has changed the server session")
        self._has_lock = bool(took)
        return bool(took or is_held)

    def _take_over_listening(self) -> bool:
        with self._guard:
            if self._has_listener:
                return False
            self._has_listener = True
            return True

    def _wait(self, seconds: float, rings: int, listens: bool) -> None:
        if not listens:
            with self._guard:
                self._guard.wait_for(lambda: self._rings != rings or not self._has_listener, timeout=seconds)
            return
        try:
            rung = self._receive(seconds)
            rung |= self._ping_now_and_then()
            if not self._has_lock:
                # Its holder rings when it gets up; killed, it cannot. Whoever finds the lock free takes it.
                rung |= not self._try_lock() or self._has_lock
            if rung:
                self._wake_all()
        except psycopg.Error as error:
            with self._guard:
                self._close()
                self._trouble.happens(error)
                self._wake_all()

    def _wake_all(self) -> None:
        with self._guard:
            self._rings += 1
            self._give_up_lock(and_ring=False)
            self._guard.notify_all()

    def _get_up(self, listens: bool) -> None:
        with self._guard:
            self._sleepers -= 1
            if listens:
                self._has_listener = False
                self._guard.notify_all()
            if not self._sleepers and self._asleep:
                self._give_up_lock(and_ring=True)

    def _give_up_lock(self, and_ring: bool) -> None:
        held, self._asleep, self._has_lock = self._has_lock, False, False
        if not held or self._connection is None:
            return
        # Our own rings change nothing that must survive a crash: they need not wait for the disk.
        ring = f", set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', '')" if and_ring else ""
        # Sent, and not waited for: the change that woke us is waiting too.
        self._is_unlocking = True
        try:
            self._connection.pgconn.send_query(f"SELECT pg_advisory_unlock({BELL[0]}, {BELL[1]}){ring}".encode())
            self._connection.pgconn.flush()
        except psycopg.Error:
            self._close()

    def _settle(self) -> None:
        """Take the answer to what was sent and not waited for."""
        if not self._is_unlocking:
            return
        assert self._connection is not None  # noqa: S101
        self._is_unlocking = False
        results = self._connection.wait(fetch_many(self._connection.pgconn))
        if any(result.status != psycopg.pq.ExecStatus.TUPLES_OK for result in results):
            raise psycopg.OperationalError("the bell's lock could not be given up")

    def _close(self) -> None:
        self._asleep = self._has_lock = self._is_unlocking = False
        self._hang_up()
