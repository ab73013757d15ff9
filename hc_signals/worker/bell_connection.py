"""The doorbell's connection: it LISTENs, and proves by pings that notifications arrive.

LISTEN needs a server session of our own. Behind a pooler in transaction mode LISTEN succeeds, and stays with a session
that the pooler lends to other clients. Behind one in session mode it works if the pooler clears a session before it
lends it again. :func:`~hc_signals.postgres.sessions.session_kind` finds out which it is.
"""

import logging
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import DatabaseError, InterfaceError, connections

from hc_signals.log.presence import ANNOUNCE, announce_on
from hc_signals.postgres.held_lock import HeldLock
from hc_signals.postgres.limits import own_limits
from hc_signals.postgres.locks import PRESENCE
from hc_signals.postgres.own_connections import FAIL_FAST, NEVER_COMPILE, application_name
from hc_signals.postgres.sessions import (
    PROOF_SECONDS,
    SessionKind,
    answering_within,
    backend_pid,
    session_kind,
    sync,
)
from hc_signals.postgres.trouble import Trouble

logger = logging.getLogger("hc_signals")

CHANNEL = "hc_signals"
"""Writers notify on this channel."""

# Our own notifications need not survive a crash, so they do not wait for the disk.
NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, '')"
# For a session in which a pooler has left our state, and that no client uses now. The pooler reconnects.
_END_IDLE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND state = 'idle'"


@dataclass(frozen=True)
class BellState:
    """Whether a notification would arrive now."""

    trouble: str
    """Why it would not; empty if it would."""
    heard_at: float | None
    """When the server last answered, as a Unix time."""
    reconnects: int
    errors: Trouble | None = None
    """Why the doorbell cannot connect, in the server's words, and how many tries have failed so far."""
    polls: str = ""
    """Why the worker polls although nothing is broken; empty if it need not."""

    @property
    def listens(self) -> bool:
        """True if a notification would arrive."""
        return not self.trouble and not self.polls


POOLED = "a pooler shares sessions: no LISTEN, the log is read every 0.05 to 2 s"
"""What /healthz says of a worker behind a pooler."""
_POLLS = "The worker reads the log every %s s at most; use a direct connection for hc_listen."
_SHARED = f"A pooler shares this connection's server session with other clients, so LISTEN cannot be used. {_POLLS}"
_SWALLOWED = f"LISTEN is swallowed: a notification from another session did not arrive. {_POLLS}"


class BellConnection:
    """LISTENs, and pings itself. Any thread may call :meth:`state`; the user serializes all other calls.

    These raise psycopg.Error if the connection is lost, and Django's errors if the calling thread's own one is.
    """

    PING_TIMEOUT = 5.0
    """Most seconds until a ping comes back."""
    PING_EVERY = 8.0
    """Seconds between two pings. With PING_TIMEOUT, an unresponsive connection is known within 13 seconds."""
    NOTIFY_EVERY = 300.0
    """Seconds between two pings that are notifications, which cost a query each. A session that has received one keeps
    receiving them. Behind a pooler every ping is a notification."""
    PING_AGAIN = 60.0
    """Seconds between two pings while no notification arrives: each ping blocks the worker for PING_TIMEOUT."""
    POLL_PAUSES = (0.05, 2.0)
    """First and longest seconds between two reads of the log while no notification can arrive; doubled each time."""

    def __init__(self, using: str, consumer: str) -> None:
        self._using, self._consumer = using, consumer
        # Prepared statements are state of the session too.
        given = connections[using].get_connection_params()
        self.params = {key: given[key] for key in given.keys() - {"cursor_factory", "context", "pool"}}
        self.params |= {"prepare_threshold": None}
        self._own_channel = f"{CHANNEL}_{secrets.token_hex(8)}"
        """For pings: no other session notifies on it."""
        self.raw: psycopg.Connection | None = None
        self.pid: int | None = None
        """The server process of the session in which LISTEN was executed."""
        self.hears = False
        """True while notifications arrive: the last ping came back."""
        self.trouble = Trouble("The doorbell", longest=self.POLL_PAUSES[1])
        self._kind = SessionKind.DIRECT
        self._ping_at = self._notify_at = 0.0
        self._pinging_since: float | None = None
        self._heard_at: float | None = None
        self._connects = 0
        self._presence = HeldLock(using, application_name(consumer, "pooled"))
        self._logged = ""

    @property
    def is_connected(self) -> bool:
        """True if there is a connection that is not known to be broken."""
        return self.raw is not None and not self.raw.closed

    @property
    def is_pooled(self) -> bool:
        """True if there is no LISTEN, because a pooler shares the session with other clients."""
        return self._kind is SessionKind.SHARED

    def state(self) -> BellState:
        """Return whether a notification would arrive. Any thread may ask; the answer never waits for the database."""
        hears, pinging, trouble, polls = self.hears, self._pinging_since, "", ""
        if self.is_pooled:
            polls = POOLED
        elif not self.is_connected:
            trouble = "the LISTEN connection is broken"
        elif pinging is not None and (silent := time.monotonic() - pinging) > self.PING_TIMEOUT:
            trouble = f"the LISTEN connection is unresponsive: no answer for {silent:.0f} s"
        elif pinging is None and not (hears or self.hears):  # read before and after: a ping may just have ended
            trouble = "LISTEN is swallowed: a transaction pooler is in the way"
        return BellState(trouble, self._heard_at, max(0, self._connects - 1), self.trouble, polls)

    def connect(self) -> None:
        """Connect; LISTEN and ping. Close the connection again if a pooler shares its session with other clients."""
        self._kind, self.hears, self._heard_at = SessionKind.DIRECT, False, None
        self.raw = self._open()
        self._connects += 1
        self._kind = session_kind(self.raw, self._open)
        if self._kind is SessionKind.SHARED:
            self.raw.close()
            self._show_presence()
        else:
            self._listen(self.raw)
        self._log_change()

    def _open(self) -> psycopg.Connection:
        return psycopg.connect(**{**FAIL_FAST, **self.params}, autocommit=True)

    def _listen(self, raw: psycopg.Connection) -> None:
        self.pid = backend_pid(raw)
        raw.execute(NEVER_COMPILE)
        # Not when the connection is opened: a pooler keeps the name, and hc_status would count a listener.
        raw.execute("SELECT set_config('application_name', %s, false)", [application_name(self._consumer, "bell")])
        raw.execute(own_limits(is_local=False))
        raw.execute(f"LISTEN {CHANNEL}")
        raw.execute(f"LISTEN {self._own_channel}")
        if self._kind is SessionKind.LENT:  # a worker cannot know that its own session is not shared
            raw.execute(ANNOUNCE, [PRESENCE, self._consumer])
        self._ping()

    def must_poll(self) -> bool:
        """Return True if no notification can arrive; check again from time to time."""
        if self.is_pooled:
            if not self._presence.is_held or time.monotonic() >= self._ping_at:
                self._show_presence()
            return self.is_pooled
        if self.is_connected and not self.hears:
            self.ping_if_due()
            self._log_change()
            return not self.hears
        return False

    def _show_presence(self) -> None:
        """Hold the share of the consumer's lock that shows a running worker, in a transaction that stays open.

        If the lock is lost, the next turn connects again, and finds out again whether there is a pooler.
        """
        self._ping_at = time.monotonic() + self.POLL_PAUSES[1]
        try:
            if self._presence.is_held:
                self._presence.confirm()
            else:
                announce_on(self._presence, self._consumer)
            self._heard_at = time.time()
        except (DatabaseError, InterfaceError) as error:
            self.trouble.happens(error)
            self._kind = SessionKind.DIRECT  # until the next connect() finds out

    def _log_change(self) -> None:
        """Log once whether notifications arrive, if they do not, or did not before."""
        problem = _SHARED if self.is_pooled else "" if self.hears else _SWALLOWED
        if problem == self._logged:
            return
        self._logged = problem
        if problem:
            logger.warning(problem, self.POLL_PAUSES[1])
        else:
            logger.warning("LISTEN works again: hc_listen is woken at once.")

    def hang_up(self) -> None:
        """Close the connection. A pooler keeps the session, so our state in it is given back before."""
        self._presence.close()
        if self.raw is None or self.raw.closed:
            return
        if self._kind is SessionKind.LENT and not self.raw.broken:
            with suppress(psycopg.Error, OSError), answering_within(PROOF_SECONDS, lambda: self.raw):
                self._give_back(self.raw)
        self.raw.close()

    def _give_back(self, raw: psycopg.Connection) -> None:
        if backend_pid(raw) == self.pid:
            raw.execute("UNLISTEN *")
            raw.execute("SELECT pg_advisory_unlock_all()")
        else:
            raw.execute(_END_IDLE, [self.pid])

    def receive(self, seconds: float) -> bool:
        """Wait for a notification; return True if another session sent one. Our own are for the other processes."""
        assert self.raw is not None  # noqa: S101
        # stop_after=1 ends after the whole packet; leaving the loop by break would drop the rest of it
        packet = list(self.raw.notifies(timeout=seconds, stop_after=1))
        self.hears |= any(notify.channel == self._own_channel for notify in packet)
        return any(notify.channel == CHANNEL and notify.pid != self.pid for notify in packet)

    def ping_if_due(self) -> bool:
        """Ping if PING_EVERY is over; return True if a notification of another session arrived during the ping."""
        now = time.monotonic()
        if now < self._ping_at:
            return False
        # A pooler may begin to share the session at any moment: only a notification proves that it does not.
        is_sure = self.hears and now < self._notify_at and self._kind is SessionKind.DIRECT
        if not is_sure or not psycopg.Pipeline.is_supported():
            return self._ping()
        self._sync()
        return False  # psycopg keeps a notification that arrived for the next receive()

    def _sync(self) -> None:
        """Make the server session answer. The watchdog breaks the connection if no answer comes."""
        assert self.raw is not None  # noqa: S101
        self._pinging_since = time.monotonic()
        try:
            sync(self.raw)
        finally:
            self._pinging_since = None
        self._ping_at, self._heard_at = time.monotonic() + self.PING_EVERY, time.time()

    def _ping(self) -> bool:
        """Notify ourselves from another session: this alone proves that notifications arrive.

        Raises:
            psycopg.OperationalError: notifications arrived before, and this one did not.
        """
        self._pinging_since = time.monotonic()
        deadline = self._pinging_since + self.PING_TIMEOUT
        was_heard, self.hears, rung = self.hears, False, False
        try:
            self._notify_from_another_session()
            while not self.hears and (left := deadline - time.monotonic()) > 0:
                rung |= self.receive(left)
        finally:
            self._pinging_since = None
        self._ping_at = time.monotonic() + (self.PING_EVERY if self.hears else self.PING_AGAIN)
        self._notify_at = time.monotonic() + self.NOTIFY_EVERY
        if self.hears:
            self._heard_at = time.time()
        if was_heard and not self.hears:
            raise psycopg.OperationalError("our notification to ourselves did not come back")
        return rung

    def _notify_from_another_session(self) -> None:
        """Use the connection of the calling thread: a session hears its own notifications even if LISTEN is lost."""
        connection: Any = connections[self._using]
        connection.ensure_connection()
        with connection.wrap_database_errors:
            connection.connection.execute(NOTIFY, [self._own_channel])
