"""Whose is the server session at the other end of a connection? Session state may only be taken in one that is ours.

Session state is what outlives a transaction: SET, LISTEN, advisory locks of the session, prepared statements. Behind a
pooler it stays in a session that the pooler lends to others next.
"""

from collections import deque
from typing import Any

from django.db import connections


def is_ours(raw: Any) -> bool:
    """Tell whether the server session is this connection's alone, and ends with it; costs a round trip.

    A server names its process when it accepts a connection. A pooler has to invent a name, because it has no server
    session yet; then the two differ.

    Args:
        raw: a psycopg connection.
    """
    return backend_pid(raw) == int(raw.info.backend_pid)


def backend_pid(raw: Any) -> int:
    """Return the process id of the session that has answered; the next statement may meet another one."""
    return int(raw.execute("SELECT pg_backend_pid()").fetchone()[0])


def another_connection(using: str, **options: Any) -> Any:
    """Return another of Django's connections, for one of our threads: not from Django's own pool, which lends few.

    Args:
        using: database alias whose settings are taken.
        options: further ``OPTIONS``; what the project's settings say goes before.
    """
    connection: Any = connections[using].copy()
    own = {**options, **connection.settings_dict.get("OPTIONS", {})}
    own.pop("pool", None)
    connection.settings_dict["OPTIONS"] = own
    connection.queries_log = deque(maxlen=0)  # under DEBUG = True nobody would ever clear it
    return connection
