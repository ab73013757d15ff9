"""The doorbell: the threads of a process sleep at it until a writer notifies. One of them listens for all.

LISTEN has a connection of its own that no receiver uses: see bell_connection.py. The sleepers of a process share one
lock, by which writers know that a worker sleeps: see bell_lock.py. A sleeper that releases the lock without being
notified notifies the other processes, because writers will not.

Behind a pooler that may lend the session there is neither LISTEN nor lock, because both would stay in it. The sleepers
poll the log at growing intervals, and the connection only shows that a worker is running.
"""

import threading
import time
from collections.abc import Callable

import psycopg
from django.db import DatabaseError, InterfaceError

from hc_signals.delivery.pulse import Pulse
from hc_signals.worker.bell_connection import BellConnection, BellState
from hc_signals.worker.bell_lock import BellLock


class Doorbell:
    """Sleep, wake, reconnect. Several threads may sleep at it, until ``stopping()`` is true."""

    SLICE = 0.5
    """Most seconds of one wait. Between two waits a sleeper sees a signal handler's flag, and that the process which
    held the lock has died."""
    BUSY_PAUSES = (0.003, 0.05)
    """First and longest seconds until the next try while a writer that will not notify is open; doubled each time."""

    def __init__(self, using: str, stopping: Callable[[], bool], consumer: str = "") -> None:
        self._stopping = stopping
        self._guard = threading.Condition()
        # All below belongs to the thread that holds the guard, with one exception. While `_is_asleep`, connection and
        # lock belong to the listener: the sleeper that set `_has_listener`. So they have one user at any time: other
        # threads need them only if none sleeps, and the last sleeper to wake ends the sleep. Reading needs no guard.
        self._connection = BellConnection(using, consumer)
        self._lock = BellLock(self._connection)
        self._is_asleep = False
        """True while the bell's lock is held for the sleepers, by us or by a process that will notify us."""
        self._sleepers = 0
        self._has_listener = False
        self._rings = 0
        """How many times the sleepers were woken. Only grows; a sleeper wakes when it has changed."""
        self._busy_pause = self.BUSY_PAUSES[0]

    def __enter__(self) -> "Doorbell":
        # A refused connection must not keep the workers from delivering: they poll, and the doorbell retries.
        try:
            self._connection.connect()
        except (psycopg.Error, DatabaseError, InterfaceError) as error:
            self._give_up(error)
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    @property
    def awaited(self) -> psycopg.Connection | None:
        """The psycopg connection, for the watchdog; None after a release, whose answer no thread waits for."""
        return None if self._lock.is_releasing else self._connection.raw

    def state(self) -> BellState:
        """Return whether a notification would arrive. Any thread may ask; the answer never waits for the database."""
        return self._connection.state()

    def sleep(self, is_waiting: Callable[[], bool], pause: Callable[[], float], pulse: Pulse) -> None:
        """Sleep until notified, stopped, or something waits although no writer notified.

        Args:
            is_waiting: reads the log. It is called after the lock is taken, so that it sees a writer that did not
                notify; and again each time the pause is over.
            pause: returns the seconds until the next read.
        """
        with self._guard:
            # If another thread sleeps, the lock is held already: by us, or by a process that notifies us.
            seconds = 0.0 if self._is_asleep else self._fall_asleep()
            if seconds == 0.0:
                self._sleepers += 1
                rings = self._rings
        if seconds is None:
            self._poll(is_waiting, pause, pulse)
            return
        if seconds:
            self.doze(seconds, pulse)
            return
        listens, read_at = False, 0.0
        try:
            while self._rings == rings and not self._stopping():
                pulse.turn()
                if time.monotonic() >= read_at:
                    if is_waiting():
                        return
                    read_at = time.monotonic() + pause()
                listens = listens or self._become_listener(rings)
                seconds = min(self.SLICE, max(0.0, read_at - time.monotonic()))
                if listens:
                    self._listen(seconds)
                else:
                    self._wait_for_listener(seconds, rings)
        finally:
            self._get_up(listens)

    def doze(self, seconds: float, pulse: Pulse) -> None:
        """Wait without the doorbell, until stopped."""
        deadline = time.monotonic() + seconds
        while not self._stopping() and (left := deadline - time.monotonic()) > 0:
            pulse.turn()
            time.sleep(min(left, 0.1))

    def _poll(self, is_waiting: Callable[[], bool], pause: Callable[[], float], pulse: Pulse) -> None:
        """Sleep without the doorbell, until something waits, or notifications may arrive again."""
        longest = BellConnection.POLL_PAUSES[0]
        while not self._stopping():
            pulse.turn()
            self.doze(min(longest, pause()), pulse)
            longest = min(2 * longest, BellConnection.POLL_PAUSES[1])
            with self._guard:
                try:
                    if self._is_asleep or not self._connection.must_poll():
                        return
                except psycopg.Error as error:
                    self._give_up(error)
                    return
            if self._stopping() or is_waiting():
                return

    def _fall_asleep(self) -> float | None:
        """Take the lock, or see that another process has it, and return 0. Needs the guard.

        Returns:
            seconds until the next try, if a writer shares the lock or there is no connection; None: no notification can
            arrive.
        """
        try:
            self._lock.finish_release()
            if self._connection.must_poll():
                self._connection.trouble.ends()
                return None
            if not self._connection.is_connected:
                self._connection.connect()
                return self.BUSY_PAUSES[0]  # read the log first: notifications of before never arrive
            self._is_asleep = self._lock.take()
            self._connection.trouble.ends()
        except psycopg.Error as error:
            return self._give_up(error)
        if self._is_asleep:
            self._busy_pause = self.BUSY_PAUSES[0]
            return 0.0
        pause, self._busy_pause = self._busy_pause, min(2 * self._busy_pause, self.BUSY_PAUSES[1])
        return pause

    def _become_listener(self, rings: int) -> bool:
        """Return True if this sleeper listens from now on: no other one does, and no one was woken since ``rings``."""
        with self._guard:
            if self._has_listener or self._rings != rings:  # woken during its read: the connection is not a sleeper's
                return False
            self._has_listener = True
            return True

    def _wait_for_listener(self, seconds: float, rings: int) -> None:
        with self._guard:
            self._guard.wait_for(lambda: self._rings != rings or not self._has_listener, timeout=seconds)

    def _listen(self, seconds: float) -> None:
        """Wait for a notification, and wake all sleepers. Only the listener calls it."""
        try:
            rung = self._connection.receive(seconds)
            rung |= self._connection.ping_if_due()
            if not self._lock.is_held:
                # Its holder notifies when it wakes, but not if it is killed. Then the first to find the lock free
                # takes it.
                rung |= not self._lock.take() or self._lock.is_held
            if rung:
                self._wake_all()
        except psycopg.Error as error:
            with self._guard:
                self._give_up(error)
                self._wake_all()

    def _wake_all(self) -> None:
        with self._guard:
            self._rings += 1
            self._end_sleep(notify=False)
            self._guard.notify_all()

    def _get_up(self, listens: bool) -> None:
        with self._guard:
            self._sleepers -= 1
            if listens:
                self._has_listener = False
                self._guard.notify_all()
            if not self._sleepers and self._is_asleep:
                self._end_sleep(notify=True)

    def _end_sleep(self, *, notify: bool) -> None:
        """Release the lock, and ``notify`` the other processes if no writer did. Needs the guard."""
        self._is_asleep = False
        try:
            self._lock.release(notify=notify)
        except psycopg.Error:
            self._close()

    def _give_up(self, error: BaseException) -> float:
        """Close the connection after an error; return the seconds until the next try. Needs the guard."""
        self._close()
        return self._connection.trouble.happens(error)

    def _close(self) -> None:
        self._is_asleep = False
        self._lock.forget()
        self._connection.hang_up()
