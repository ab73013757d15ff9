"""The doorbell: sleep until a writer rings. LISTEN has a connection of its own that nobody else touches.

A worker holds an advisory lock only while it sleeps; writers ring only when they cannot share it (the proof is in
migrations_sql/0001_change_log.sql). No flag in a table could do this without losing a ring now and then.

Only one session can hold the lock. A process that finds another one holding it sleeps as well: a ring goes to everyone
who listens. Whoever gives the lock up without having been rung rings for the others, because writers then will not.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import psycopg
from django.db import connections
from psycopg.generators import fetch_many

from hc_signals.listening.connecting import FAIL_FAST, application_name
from hc_signals.locks import BELL
from hc_signals.observing import here
from hc_signals.postgres.limits import own_limits
from hc_signals.trouble import Trouble

CHANNEL = "hc_signals"

# Refused by the shares of writers, or by another sleeper? Only the latter's rings may be waited for.
_TRY_LOCK = """
SELECT pg_try_advisory_lock(%s, %s), EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND mode = 'ExclusiveLock' AND granted
)
"""


@dataclass(frozen=True)
class BellState:
    """Whether a ring would be heard now."""

    trouble: str
    """Why not; empty where it would be."""
    heard_at: float | None
    """When the other end last answered, as a Unix time."""
    reconnects: int
    errors: Trouble | None = None
    """Why it cannot be heard, where the server says so, and what has failed so far."""


class Doorbell:
    """LISTEN, sleep, wake, reconnect. Several threads may sleep at it: one of them listens for all.

    Args:
        using: database alias whose connection parameters are taken.
        stopping: asked at least every SLICE seconds while waiting.
        name: of the consumer; pg_stat_activity shows the connection under it.
    """

    SLICE = 0.5
    """Seconds of one wait: a signal handler's flag, and a lock whose holder died, are seen only between two."""
    PING_TIMEOUT = 5.0
    PING_EVERY = 8.0
    """Seconds between two proofs that the other end lives: with PING_TIMEOUT, a deaf connection is known in 13."""
    RING_EVERY = 300.0
    """Seconds between two proofs that a ring arrives, which cost a query each. Where one did once, the same session of
    the server keeps sending them; only a pooler that changes sessions under our connection could undo it."""
    DEAF_PING_EVERY = 60.0
    """The same while none arrives: each try keeps the worker waiting for PING_TIMEOUT."""
    BUSY_PAUSES = (0.003, 0.05)
    """First and longest pause while a writer that did not ring is open."""
    DEAF_PAUSE = 2.0
    """Longest pause between two looks at the log while no ring can be heard."""

    def __init__(self, using: str, stopping: Callable[[], bool], name: str = "") -> None:
        self._params = {
            key: value
            for key, value in connections[using].get_connection_params().items()
            if key not in ("cursor_factory", "context", "prepare_threshold", "pool")
        }
        self._params["application_name"] = application_name(name, "bell")
        self._stopping = stopping
        self._connection: psycopg.Connection | None = None
        self._trouble = Trouble("The doorbell", longest=self.DEAF_PAUSE)
        self._busy_pause = self.BUSY_PAUSES[0]
        self._ping_at = self._ring_at = 0.0
        self._pinging_since: float | None = None
        self._heard_at: float | None = None
        self._connects = 0
        # Shared by the threads; what follows is changed under the guard only.
        self._guard = threading.Condition()
        self._sleepers = 0
        self._asleep = self._has_lock = self._has_listener = self._is_unlocking = False
        self._rings = 0
        self.heard = False
        """False when no ping came back: LISTEN is swallowed, the worker polls."""

    def __enter__(self) -> "Doorbell":
        # One that is refused now must not keep anything from being delivered: it is tried again, and polled meanwhile.
        try:
            self._connect()
        except psycopg.Error as error:
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

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection; whether a ring comes through it is another question."""
        return self._connection is not None and not self._connection.closed

    def state(self) -> BellState:
        """Tell whether a ring would be heard; any thread may ask, and it never waits."""
        heard, pinging, trouble = self.heard, self._pinging_since, ""
        if not self.is_connected:
            trouble = "the LISTEN connection is broken"
        elif pinging is not None and (silent := time.monotonic() - pinging) > self.PING_TIMEOUT:
            trouble = f"the LISTEN connection is deaf: no answer for {silent:.0f} s"
        elif pinging is None and not (heard or self.heard):  # read before and after: a ping may just have ended
            trouble = "LISTEN is swallowed: a transaction pooler is in the way"
        return BellState(trouble, self._heard_at, max(0, self._connects - 1), self._trouble)

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
            if not seconds:
                self._sleepers += 1
                rings = self._rings
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

    def _fall_asleep(self) -> float:
        """Take the lock, or see that another process has it, and return 0; else the seconds to wait without a bell."""
        try:
            if not self.is_connected:
                self._connect()
                return self.BUSY_PAUSES[0]  # read the log first: rings sent meanwhile never come again
            self._settle()
            if not self.heard:
                self._ping_now_and_then()
                self._trouble.ends()
                return self.DEAF_PAUSE
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
        self._has_lock, is_held = self._connection.execute(_TRY_LOCK, BELL * 2).fetchone() or (False, False)
        return self._has_lock or is_held

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

    def _receive(self, seconds: float) -> bool:
        """Wait for a ring. What we sent ourselves, for the others, is none."""
        assert self._connection is not None  # noqa: S101
        own = self._connection.info.backend_pid
        # stop_after=1 ends after the whole packet; leaving the loop by break would drop the rest of it
        packet = list(self._connection.notifies(timeout=seconds, stop_after=1))
        self.heard |= any(notify.channel != CHANNEL for notify in packet)
        return any(notify.channel == CHANNEL and notify.pid != own for notify in packet)

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
        ring = f", pg_notify('{CHANNEL}', '')" if and_ring else ""
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
        if self._connection is not None:
            self._connection.close()

    def _connect(self) -> None:
        self._connection = psycopg.connect(**{**FAIL_FAST, **self._params}, autocommit=True)
        self._connects += 1
        sql, limits = own_limits(is_local=False)
        self._connection.execute(sql, limits)
        # Our own rings change nothing that must survive a crash: they need not wait for the disk.
        self._connection.execute("SET synchronous_commit = off")
        self._connection.execute(f"LISTEN {CHANNEL}")
        self._connection.execute(f"LISTEN {CHANNEL}_{self._connection.info.backend_pid}")
        self._ping()

    def _ping_now_and_then(self) -> bool:
        """Ping if it is time to; return whether a ring came in meanwhile."""
        now = time.monotonic()
        if now < self._ping_at:
            return False
        if not self.heard or now >= self._ring_at or not psycopg.Pipeline.is_supported():
            return self._ping()
        self._touch()
        return False  # a ring that came in is kept by psycopg for the next look

    def _touch(self) -> None:
        """Have the server's session answer: a bare Sync of the protocol, no query and no transaction.

        It goes all the way, through whatever proxies there are, as keepalives of TCP do not.
        """
        assert self._connection is not None  # noqa: S101
        self._pinging_since = time.monotonic()
        try:
            with self._connection.pipeline():
                pass  # its end sends the Sync and waits for the answer
        finally:
            self._pinging_since = None
        self._ping_at, self._heard_at = time.monotonic() + self.PING_EVERY, time.time()

    def _ping(self) -> bool:
        """Ring ourselves: only this proves that a ring arrives. A transaction pooler swallows LISTEN silently.

        Raises:
            psycopg.OperationalError: a ring no longer arrives that did before.
        """
        assert self._connection is not None  # noqa: S101
        self._pinging_since = time.monotonic()
        deadline = self._pinging_since + self.PING_TIMEOUT
        was_heard, self.heard, rung = self.heard, False, False
        try:
            self._connection.execute("SELECT pg_notify(%s, '')", [f"{CHANNEL}_{self._connection.info.backend_pid}"])
            while not self.heard and (left := deadline - time.monotonic()) > 0:
                rung |= self._receive(left)
        finally:
            self._pinging_since = None
        self._ping_at = time.monotonic() + (self.PING_EVERY if self.heard else self.DEAF_PING_EVERY)
        self._ring_at = time.monotonic() + self.RING_EVERY
        if self.heard:
            self._heard_at = time.time()
        if was_heard and not self.heard:
            raise psycopg.OperationalError("a ring to ourselves did not come back")
        return rung
