"""Break unresponsive connections: kept open by something on the way that passes nothing on, such as a proxy or a NAT.

TCP reports nothing for such a connection, and libpq waits for ever. A long statement shows no other sign. So the
watchdog asks the server, over a new connection, whether it still works for the session. While the server cannot be
asked, nothing is broken: then the whole network is down, which TCP reports by itself (see own_connections.py).
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, InterfaceError, connections, transaction

from hc_signals.postgres.errors import one_line
from hc_signals.postgres.limits import own_limits
from hc_signals.postgres.own_connections import own_options
from hc_signals.postgres.query import execute, row
from hc_signals.postgres.sessions import answering_within, shut_down
from hc_signals.worker.threads import Helper, keep_turning

logger = logging.getLogger("hc_signals")

IDLE_SECONDS = 3.0
"""A server session that has been idle for this many seconds has already sent its answer."""
STALLED_SECONDS = 60.0
"""Most seconds that an answer may be on its way: the largest one over the slowest line. A receiver's has no limit."""

# Also match application_name: the pid may belong to another process by now. Behind a pooler, which invents pids, the
# answer is NULL.
_ASK = """
SELECT a.pid, CASE
    WHEN pg_backend_pid() <> %(asker)s THEN NULL
    WHEN a.pid IS NULL THEN 'has ended the session'
    WHEN a.state LIKE 'idle%%' AND a.state_change < clock_timestamp() - make_interval(secs => %(idle)s)
        THEN 'has nothing to do for it'
    WHEN a.state = 'active' AND a.wait_event_type = 'Client' AND NOT %(in_receiver)s
        AND a.query_start < clock_timestamp() - make_interval(secs => %(stalled)s) THEN 'is blocked sending its answer'
END
FROM (SELECT) one LEFT JOIN pg_stat_activity a
    ON a.pid = %(pid)s AND a.application_name = %(application_name)s AND a.datname = current_database()
"""


@dataclass
class Watched:
    """The connection of one thread, and for how many checks the thread has waited for an answer on it."""

    name: str
    connection: Callable[[], Any]
    """Returns the present psycopg connection, or None."""
    progress: Callable[[], object]
    """Returns a value that changes whenever the thread finishes some work."""
    in_receiver: Callable[[], bool]
    """Returns True while a receiver may use the connection."""
    patience: int = 1
    """Doubled each time the connection is broken; 1 again when its thread has made progress since."""
    waits: int = 0
    """Checks in a row that found the thread waiting on the same connection, without progress."""
    raw: Any = None
    progressed_to: object = None
    suspect: Any = None
    """The connection at the time when another one was broken: likely unresponsive as well, so one check is enough."""

    def is_due(self, waits: int) -> bool:
        """Check whether the thread still waits; return True if so many checks in a row found it waiting."""
        raw, progress = self.connection(), self.progress()
        if progress != self.progressed_to:
            self.progressed_to, self.patience, self.waits, self.suspect = progress, 1, 0, None
        is_same, self.raw = raw is self.raw, raw
        self.waits = self.waits + 1 if is_same and self.is_waiting() else 0
        if is_due := self.waits >= (1 if self.raw is self.suspect else waits * self.patience):
            self.waits = 0
        return is_due

    def is_waiting(self) -> bool:
        """Return True if a statement is running. Reads one field of libpq, which any thread may do."""
        return self.raw is not None and not self.raw.closed and self.raw.info.transaction_status.name == "ACTIVE"


class Watchdog(threading.Thread):
    """Watches the connections of a process until :meth:`end`."""

    EVERY = 1.0
    """Seconds between two checks."""
    WAITS = 5
    """Checks in a row that must find a thread waiting before the server is asked. An unresponsive connection is broken
    before /healthz calls the process stuck (10 s, see liveness.py). Checks, not seconds: a process that was suspended
    has not waited."""
    STUCK_SECONDS = 60.0
    """Most seconds for one connection: the watchdog may ask twice."""
    ASK_SECONDS = 15.0
    """Most seconds for one question, with its connection, which may be unresponsive as well."""

    def __init__(self, using: str) -> None:
        super().__init__(name="hc_listen-watchdog", daemon=True)
        self.using = using
        self._watched: list[Watched] = []
        self._ended = threading.Event()

    def watch(
        self,
        name: str,
        connection: Callable[[], Any],
        progress: Callable[[], object],
        in_receiver: Callable[[], bool] = lambda: False,
    ) -> None:
        """Watch one more connection: see :class:`Watched`."""
        self._watched.append(Watched(name, connection, progress, in_receiver))

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    def run(self) -> None:
        """Check every connection, ask the server about those that wait, break the unresponsive ones."""
        with own_options(self.using):
            keep_turning("watchdog", self._turn, self._ended, limit=self.STUCK_SECONDS)

    def _turn(self, helper: Helper) -> float:
        for watched in tuple(self._watched):
            if watched.is_due(self.WAITS):
                self._ask_about(watched)
                helper.turn()
        return self.EVERY

    def _ask_about(self, watched: Watched) -> None:
        raw = watched.raw
        params = {
            "pid": raw.info.backend_pid,
            "application_name": raw.info.parameter_status("application_name"),
            "in_receiver": watched.in_receiver(),
            "idle": IDLE_SECONDS,
            "stalled": STALLED_SECONDS * watched.patience,
        }
        answer = self._ask(_ASK, params)
        # The thread may have got its answer while we asked.
        if answer and answer[1] and watched.connection() is raw and watched.is_waiting():
            self._break(watched, *answer)

    def _break(self, watched: Watched, pid: int | None, found: str) -> None:
        if pid is not None:  # a proxy may keep the session for ever, and with it the claim of a shard
            self._ask("SELECT pg_terminate_backend(%(pid)s)", {"pid": pid})
        shut_down(watched.raw)
        watched.patience *= 2
        for other in self._watched:
            other.suspect = None if other is watched else other.connection()
        text = "The connection of %s is unresponsive: it waits for an answer, but the server %s. It is reconnected."
        logger.warning(text, watched.name, found)

    def _ask(self, sql: str, params: dict[str, Any]) -> Any:
        """Return a row over a new connection; None if the server cannot be asked."""
        connection: Any = connections[self.using]
        try:
            with answering_within(self.ASK_SECONDS, lambda: connection.connection):
                connection.ensure_connection()
                with transaction.atomic(using=self.using):
                    execute(self.using, own_limits(is_local=True))
                    return row(self.using, sql, {**params, "asker": connection.connection.info.backend_pid})
        except (DatabaseError, InterfaceError) as error:
            logger.debug("The watchdog cannot ask the server about a connection (%s).", one_line(error))
            return None
        finally:
            connection.close()
