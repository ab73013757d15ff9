"""Gives up deaf connections: kept alive by something in between that passes nothing on.

TCP finds nothing wrong with one, and libpq waits for ever. A long statement looks the same from here, so the server is
asked over a new connection whether it still works for the session that somebody here waits for. While it cannot be
asked nothing is given up: then the whole network is gone, which TCP notices by itself (see connecting.py).
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, InterfaceError, connections, transaction

from hc_signals.observing import Helper
from hc_signals.postgres.connecting import own_options, shut_down
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.limits import own_limits
from hc_signals.worker.helper_threads import keep_turning

logger = logging.getLogger("hc_signals")

IDLE_SECONDS = 3.0
"""A session for which the server has had nothing to do for so long owes nobody an answer."""
STALLED_SECONDS = 60.0
"""For so long an answer may be on its way, the largest one over the slowest line. A receiver's may take its time."""

# The application_name is what the server has told us last: a number that another process has by now is not ours.
# Behind a pooler that hands out numbers of its own nothing can be said.
_ASK = """
SELECT a.pid, CASE
    WHEN pg_backend_pid() <> %(asker)s THEN NULL
    WHEN a.pid IS NULL THEN 'knows nothing of it any more'
    WHEN a.state LIKE 'idle%%' AND a.state_change < clock_timestamp() - make_interval(secs => %(idle)s)
        THEN 'has nothing to do for it'
    WHEN a.state = 'active' AND a.wait_event_type = 'Client' AND NOT %(in_receiver)s
        AND a.query_start < clock_timestamp() - make_interval(secs => %(stalled)s) THEN 'cannot get rid of its answer'
END
FROM (SELECT) one LEFT JOIN pg_stat_activity a
    ON a.pid = %(pid)s AND a.application_name = %(application_name)s AND a.datname = current_database()
"""


@dataclass
class Watched:
    """A connection of one thread after the other, and how long somebody has been seen to wait at it."""

    name: str
    connection: Callable[[], Any]
    progress: Callable[[], object]
    in_receiver: Callable[[], bool]
    patience: int = 1
    """Doubled each time it was given up; 1 again when its thread has come on since."""
    looks: int = 0
    raw: Any = None
    come_to: object = None
    suspect: Any = None
    """The one it had when another connection of the process was given up: likely as deaf, it gets one look."""

    def look(self) -> None:
        """Count the looks in a row that have found a thread waiting for an answer, without having come on."""
        raw, come_to = self.connection(), self.progress()
        if come_to != self.come_to:
            self.come_to, self.patience, self.looks, self.suspect = come_to, 1, 0, None
        is_same, self.raw = raw is self.raw, raw
        self.looks = self.looks + 1 if is_same and self.is_waiting() else 0

    def is_due(self, looks: int) -> bool:
        """Tell whether somebody has waited for long enough, where so many looks are the least."""
        return self.looks >= (1 if self.raw is self.suspect else looks * self.patience)

    def is_waiting(self) -> bool:
        """Tell whether a statement is under way. Reads one field of libpq, which any thread may do."""
        return self.raw is not None and not self.raw.closed and self.raw.info.transaction_status.name == "ACTIVE"


class Watchdog(threading.Thread):
    """Looks after the connections of a process until :meth:`end`.

    Args:
        using: database alias.
    """

    EVERY = 1.0
    """Seconds between two looks."""
    LOOKS = 5
    """So many looks in a row must find a thread waiting before the server is asked: with IDLE_SECONDS, a deaf
    connection is given up before the process is called stuck (10 s, see liveness.py). Looks and no seconds: a process
    that was stopped for a while has not waited."""
    STUCK_SECONDS = 60.0
    """Longest time for one connection: it may ask twice."""
    ASK_SECONDS = 15.0
    """The watchdog's own question, for which it has to connect, may meet a deaf connection as well."""

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
        """Look after one more.

        Args:
            name: whose it is, for the log.
            connection: returns the psycopg connection of now, or None.
            progress: returns what changes whenever some work is done.
            in_receiver: tells whether a receiver has the connection now.
        """
        self._watched.append(Watched(name, connection, progress, in_receiver))

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def run(self) -> None:
        """Look, ask, give up."""
        with own_options(self.using):
            keep_turning("watchdog", self._look, self._ended, limit=self.STUCK_SECONDS)

    def _look(self, helper: Helper) -> float:
        for watched in tuple(self._watched):
            watched.look()
            if watched.is_due(self.LOOKS):
                watched.looks = 0
                self._ask_about(watched)
                helper.turn()
        return self.EVERY

    def _ask_about(self, watched: Watched) -> None:
        raw = watched.raw
        answer = self._ask(
            _ASK,
            {
                "pid": raw.info.backend_pid,
                "application_name": raw.info.parameter_status("application_name"),
                "in_receiver": watched.in_receiver(),
                "idle": IDLE_SECONDS,
                "stalled": STALLED_SECONDS * watched.patience,
            },
        )
        # Whoever waited may have been answered meanwhile.
        if answer and answer[1] and watched.connection() is raw and watched.is_waiting():
            self._give_up(watched, *answer)

    def _give_up(self, watched: Watched, pid: int | None, found: str) -> None:
        if pid is not None:  # what is in between may keep its session, and with it the claim of a shard, for ever
            self._ask("SELECT pg_terminate_backend(%(pid)s)", {"pid": pid})
        cut(watched.raw, self.using)
        watched.patience *= 2
        for other in self._watched:
            other.suspect = None if other is watched else other.connection()
        logger.warning(
            "The connection of %s is deaf: an answer has been waited for, but the server %s. It is cut and made anew.",
            watched.name,
            found,
        )

    def _ask(self, sql: str, params: dict[str, Any]) -> Any:
        """Return a row over a new connection; None if there is none."""
        connection: Any = connections[self.using]
        limit = threading.Timer(self.ASK_SECONDS, lambda: cut(connection.connection, self.using))
        limit.start()
        try:
            connection.ensure_connection()
            with transaction.atomic(using=self.using), connection.cursor() as cursor:
                cursor.execute(*own_limits(is_local=True))
                cursor.execute(sql, {**params, "asker": connection.connection.info.backend_pid})
                return cursor.fetchone()
        except (DatabaseError, InterfaceError) as error:
            logger.debug("The server cannot be asked about a connection (%s).", one_line(error))
            return None
        finally:
            limit.cancel()
            connection.close()


def cut(raw: Any, using: str) -> None:
    """Let whoever waits at a psycopg connection get an error, from any thread; nothing if it is closed or None."""
    with suppress(OSError, DatabaseError, InterfaceError), connections[using].wrap_database_errors:
        if raw is not None:
            shut_down(raw.fileno())
