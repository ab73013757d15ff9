"""The connections of a worker: how they notice a dead server, how they differ from the project's, how they are named.

A worker uses the project's DATABASES with options of its own. The names of its sessions in pg_stat_activity say whose
they are, and whether the worker cannot deliver.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import Error, connections

from hc_signals.postgres.limits import KEEPALIVES, set_configs
from hc_signals.postgres.query import execute
from hc_signals.postgres.sessions import is_ours

FAIL_FAST: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 14_000,
}
"""Options of libpq: TCP reports a dead server within 14 seconds. They mean nothing over a Unix socket."""

# The server ends a query whose client is gone, and never the session of a worker that sleeps. Receivers are called in a
# transaction, where idle_session_timeout does not act.
_AT_THE_SERVER = set_configs(
    {**KEEPALIVES, "client_connection_check_interval": "5000", "idle_session_timeout": "0"}, is_local=False
)

NEVER_COMPILE = "SET jit = off"
"""For a session of our own. The server does not plan a SET, and so does not compile it."""

SERVER = "SELECT pg_postmaster_start_time()::text"
"""Identifies a running server. A name can lead to another one with each new connection: after a failover, with several
hosts in ``HOST``, by a load balancer."""

_NAME_SESSION = "SELECT set_config('application_name', %s, false)"

TROUBLED = r"^hc_listen !([0-9A-Z]{5}) (.*)$"
"""Regular expression for the name of a session whose worker cannot deliver: SQLSTATE and consumer."""


def application_name(consumer: str, part: str = "") -> str:
    """Return the name of a worker's connection in pg_stat_activity; PostgreSQL keeps 63 bytes of it."""
    return f"hc_listen {consumer} {part}".strip()


@contextmanager
def own_options(using: str) -> Iterator[None]:
    """Give this thread's connection the options of FAIL_FAST during the block, and autocommit.

    The project's own options win. Its settings and the connections of other threads stay unchanged. A connection that
    is open keeps the options with which it was opened. With ``AUTOCOMMIT = False`` Django would commit nothing of ours.
    """
    connection: Any = connections[using]
    settings = connection.settings_dict
    options = {**FAIL_FAST, **settings.get("OPTIONS", {})}
    connection.settings_dict = {**settings, "OPTIONS": options, "AUTOCOMMIT": True}
    try:
        yield
    finally:
        connection.settings_dict = settings


def another_connection(using: str, **options: Any) -> Any:
    """Return another connection of Django's, for one of our threads: not from Django's own pool, which lends few.

    ``options`` are further ``OPTIONS``; those of the alias win.
    """
    connection: Any = connections[using].copy()
    own = {**options, **connection.settings_dict.get("OPTIONS", {})}
    own.pop("pool", None)
    connection.settings_dict["OPTIONS"] = own
    connection.queries_log = deque(maxlen=0)  # under DEBUG = True no request would ever clear it
    return connection


class OwnConnection:
    """A further connection of one thread; a subclass opens it when first used, and an error closes it."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._connection: Any = None
        self._is_awaited = False
        self.server: str | None = None
        """What :data:`SERVER` answers on the connection that delivers; None: not known, any server will do."""

    @property
    def awaited(self) -> Any:
        """The psycopg connection while a thread is blocked on it (read by the watchdog); otherwise None."""
        connection = self._connection
        return connection.connection if self._is_awaited and connection is not None else None

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Mark the thread as blocked during the block; an error closes the connection."""
        self._is_awaited = True
        try:
            yield
        except Error:
            self.close()
            raise
        finally:
            self._is_awaited = False

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        with suppress(Error):
            if connection is not None:
                connection.close()


def set_up_session(connection: Any, consumer: str, part: str = "") -> bool:
    """Make the server watch a worker's connection and show the worker's name; return False behind a pooler.

    There the settings would stay with the client that gets the session next. A name of the project's own settings wins.
    A closed connection is opened.
    """
    return name_session(connection, application_name(consumer, part))


def name_session(connection: Any, name: str) -> bool:
    """Do what :func:`set_up_session` does, with this name."""
    if not disable_jit(connection):
        return False
    execute(connection, f"{_NAME_SESSION}, {_AT_THE_SERVER}", [_own_name(connection) or name])
    return True


def disable_jit(connection: Any) -> bool:
    """Make the server compile no statement of a connection; return False behind a pooler, where nothing is set.

    A project may set ``jit_above_cost`` so low that every statement is compiled, which takes 20 to 100 ms each. A
    closed connection is opened.
    """
    connection.ensure_connection()
    with connection.wrap_database_errors:
        if not is_ours(connection.connection):
            return False
    execute(connection, NEVER_COMPILE)
    return True


def show_trouble(connection: Any, consumer: str, code: str) -> None:
    """Show hc_status why a worker cannot deliver, by the SQLSTATE in the name of its session, if it is open.

    A table may refuse to be written to. A name of the project's own settings stays; then hc_status does not know.
    """
    raw = connection.connection
    if raw is not None and not raw.closed and not _own_name(connection):
        with suppress(Error):
            execute(connection, _NAME_SESSION, [f"hc_listen !{code} {consumer}"])


def _own_name(connection: Any) -> Any:
    return connection.settings_dict.get("OPTIONS", {}).get("application_name")
