"""The connection that LISTENs: it may only do so in a server session that is ours, and proves that rings arrive.

Behind a pooler in transaction mode LISTEN succeeds, and stays with a session that is lent to others. Behind one in
session mode it works, if the pooler clears a session before it lends it again. session_kind.py tells which it is.
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
from hc_signals.postgres.connecting import FAIL_FAST, application_name
from hc_signals.postgres.held_lock import HeldLock
from hc_signals.postgres.limits import own_limits
from hc_signals.postgres.locks import PRESENCE
from hc_signals.postgres.session_kind import PROOF_SECONDS, SessionKind, answering_within, session_kind
from hc_signals.postgres.sessions import backend_pid
from hc_signals.postgres.trouble import Trouble

logger = logging.getLogger("hc_signals")

CHANNEL = "hc_signals"
"""On which writers ring."""

# Our own rings change nothing that must survive a crash: they need not wait for the disk.
NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, '')"
# A session in which a pooler has left what is ours, and that nobody uses now. The pooler connects again.
_END_IDLE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND state = 'idle'"


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
    polls: str = ""
    """Why the worker looks at the log by itself although nothing is broken; empty where it need not."""

    @property
    def listens(self) -> bool:
        """Whether a ring would be heard."""
        return not self.trouble and not self.polls


POOLED = "a pooler shares sessions: no LISTEN, the log is looked at every 0.05 to 2 s"
"""What /healthz says of a worker behind a pooler."""


class Line:
    """LISTENs, and proves by pings that a ring is heard. Its user takes care that one thread at a time uses it.

    Args:
        using: database alias whose connection parameters are taken.
        name: of the consumer; pg_stat_activity shows the connection under it.
    """

    PING_TIMEOUT = 5.0
    PING_EVERY = 8.0
    """Seconds between two proofs that the other end answers: with PING_TIMEOUT, an unresponsive connection is known in
    13."""
    RING_EVERY = 300.0
    """Seconds between two proofs that a ring arrives, which cost a query each. Where one did once, the same session of
    the server keeps sending them. Behind a pooler every ping is a ring."""
    DEAF_PING_EVERY = 60.0
    """The same while none arrives: each try keeps the worker waiting for PING_TIMEOUT."""
    POLL_PAUSES = (0.05, 2.0)
    """First and longest pause between two looks at the log while no ring can be heard; doubled from look to look."""

    def __init__(self, using: str, name: str = "") -> None:
        self._using, self._consumer = using, name
        # Prepared statements are state of the session too.
        self._params: dict[str, Any] = {
            key: value
            for key, value in connections[using].get_connection_params().items()
            if key not in ("cursor_factory", "context", "pool")
        } | {"prepare_threshold": None}
        self._params["application_name"] = application_name(name, "bell")
        # Nobody else's: what comes on it was sent by us.
        self._own_channel = f"{CHANNEL}_{secrets.token_hex(8)}"
        self._connection: psycopg.Connection | None = None
        self._kind = SessionKind.DIRECT
        self._pid: int | None = None
        """Of the server session in which the state was taken."""
        self._ping_at = self._ring_at = 0.0
        self._pinging_since: float | None = None
        self._heard_at: float | None = None
        self._connects = 0
        self._presence = HeldLock(using, application_name(name, "pooled"))
        self._trouble = Trouble("The doorbell", longest=self.POLL_PAUSES[1])
        self._logged = ""
        self.heard = False
        """False when no ping came back, or there is no LISTEN at all: the worker polls."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that is not known to be broken."""
        return self._connection is not None and not self._connection.closed

    @property
    def is_pooled(self) -> bool:
        """Whether there is no LISTEN, because a pooler shares the session with others."""
        return self._kind is SessionKind.SHARED

    def state(self) -> BellState:
        """Tell whether a ring would be heard; any thread may ask, and it never waits."""
        heard, pinging, trouble, polls = self.heard, self._pinging_since, "", ""
        if self.is_pooled:
            polls = POOLED
        elif not self.is_connected:
            trouble = "the LISTEN connection is broken"
        elif pinging is not None and (silent := time.monotonic() - pinging) > self.PING_TIMEOUT:
            trouble = f"the LISTEN connection is deaf: no answer for {silent:.0f} s"
        elif pinging is None and not (heard or self.heard):  # read before and after: a ping may just have ended
            trouble = "LISTEN is swallowed: a transaction pooler is in the way"
        return BellState(trouble, self._heard_at, max(0, self._connects - 1), self._trouble, polls)

    def _open(self) -> psycopg.Connection:
        return psycopg.connect(**{**FAIL_FAST, **self._params}, autocommit=True)

    def _connect(self) -> None:
        """Connect; LISTEN and ping where the session is ours. Else the connection is closed again."""
        self._kind, self.heard, self._heard_at = SessionKind.DIRECT, False, None
        self._connection = self._open()
        self._connects += 1
        self._kind = session_kind(self._connection, self._open)
        if self._kind is SessionKind.SHARED:
            self._connection.close()
            self._show_presence()
        else:
            self._listen(self._connection)
        self._log_change()

    def _listen(self, connection: psycopg.Connection) -> None:
        self._pid = backend_pid(connection)
        sql, limits = own_limits(is_local=False)
        connection.execute(sql, limits)
        connection.execute(f"LISTEN {CHANNEL}")
        connection.execute(f"LISTEN {self._own_channel}")
        if self._kind is SessionKind.LENT:  # to workers their sessions are not known to be theirs
            connection.execute(ANNOUNCE, [PRESENCE, self._consumer])
        self._ping()

    def _must_poll(self) -> bool:
        """Tell whether no ring can be heard; now and then try whether one can."""
        if self.is_pooled:
            if not self._presence.is_held or time.monotonic() >= self._ping_at:
                self._show_presence()
            return self.is_pooled
        if self.is_connected and not self.heard:
            self._ping_now_and_then()
            self._log_change()
            return not self.heard
        return False

    def _show_presence(self) -> None:
        """Hold the share of the consumer's lock that shows a running worker, in a transaction that is left open.

        If it is lost the next turn connects anew, and finds out anew what is in between.
        """
        self._ping_at = time.monotonic() + self.POLL_PAUSES[1]
        try:
            if self._presence.is_held:
                self._presence.confirm()
            else:
                announce_on(self._presence, self._consumer)
            self._heard_at = time.time()
        except (DatabaseError, InterfaceError) as error:
            self._trouble.happens(error)
            self._kind = SessionKind.DIRECT  # as long as nothing is known

    def _log_change(self) -> None:
        """Log once how rings come, where that is not as it should be or was not before."""
        how = "pooled" if self.is_pooled else "" if self.heard else "swallowed"
        if how == self._logged:
            return
        self._logged = how
        longest = self.POLL_PAUSES[1]
        if how == "pooled":
            logger.warning(
                "A pooler shares this connection's server session with others, so LISTEN cannot be used. Looking at "
                "the log every %s s at most; use a direct connection for hc_listen.",
                longest,
            )
        elif how:
            logger.warning(
                "LISTEN is swallowed: a ring from another session did not arrive. Looking at the log every %s s at "
                "most; use a direct connection for hc_listen.",
                longest,
            )
        else:
            logger.warning("LISTEN works again: hc_listen is woken at once.")

    def _hang_up(self) -> None:
        """Close the connection. A pooler keeps the session: what is ours in it is given back before."""
        self._presence.close()
        if self._connection is None or self._connection.closed:
            return
        if self._kind is SessionKind.LENT and not self._connection.broken:
            with suppress(psycopg.Error, OSError), answering_within(self._connection, PROOF_SECONDS):
                self._give_back(self._connection)
        self._connection.close()

    def _give_back(self, connection: psycopg.Connection) -> None:
        if backend_pid(connection) == self._pid:
            connection.execute("UNLISTEN *")
            connection.execute("SELECT pg_advisory_unlock_all()")
        else:
            connection.execute(_END_IDLE, [self._pid])

    def _receive(self, seconds: float) -> bool:
        """Wait for a ring. What we sent ourselves, for the others, is none."""
        assert self._connection is not None  # noqa: S101
        # stop_after=1 ends after the whole packet; leaving the loop by break would drop the rest of it
        packet = list(self._connection.notifies(timeout=seconds, stop_after=1))
        self.heard |= any(notify.channel == self._own_channel for notify in packet)
        return any(notify.channel == CHANNEL and notify.pid != self._pid for notify in packet)

    def _ping_now_and_then(self) -> bool:
        """Ping if it is time to; return whether a ring came in meanwhile."""
        now = time.monotonic()
        if now < self._ping_at:
            return False
        # A pooler may lend the session after all, from one moment to the next: only a ring tells.
        is_sure = self.heard and now < self._ring_at and self._kind is SessionKind.DIRECT
        if not is_sure or not psycopg.Pipeline.is_supported():
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
        """Ring ourselves from another session: only this proves that a ring arrives.

        Raises:
            psycopg.OperationalError: a ring no longer arrives that did before.
            DatabaseError: the calling thread's own connection is lost.
        """
        assert self._connection is not None  # noqa: S101
        self._pinging_since = time.monotonic()
        deadline = self._pinging_since + self.PING_TIMEOUT
        was_heard, self.heard, rung = self.heard, False, False
        try:
            self._ring_from_elsewhere()
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

    def _ring_from_elsewhere(self) -> None:
        """By the connection of the calling thread: a session would hear its own rings with the answer to them."""
        connection: Any = connections[self._using]
        connection.ensure_connection()
        with connection.wrap_database_errors:
            connection.connection.execute(NOTIFY, [self._own_channel])
