"""Break a connection on which another thread is blocked; find out whether a connection has a session of its own.

Only in a session of its own may a worker take session state: SET, LISTEN, advisory locks of the session, prepared
statements. It outlives a transaction. Behind a pooler it stays in a session that other clients get next.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any

import psycopg

PROOF_ROUNDS = 2
"""How many times a pooler must be seen to clear a session."""
CLEARED_SECONDS = 1.0
"""Most seconds until a pooler has cleared a session that was given back."""
PROOF_SECONDS = 5.0
"""Most seconds for a whole proof: a pooler without a free session does not answer."""
CLEARED = "DISCARD ALL"
"""PgBouncer's ``server_reset_query`` in session mode, unless it is set to something else."""

_LAST_QUERY = "SELECT query FROM pg_stat_activity WHERE pid = %s"


def shut_down(raw: Any) -> None:
    """Shut down the socket of a psycopg connection, if it is open, from any thread.

    The connection's own thread still closes the descriptor.
    """
    if raw is not None:
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(raw.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)


def sync(raw: psycopg.Connection) -> None:
    """Make the server session answer a bare Sync of the protocol, which is neither a query nor a transaction.

    A Sync passes every proxy on the way; keepalives of TCP end at the first one. libpq before 14 cannot send it:
    ``psycopg.Pipeline.is_supported()``.

    Raises:
        psycopg.Error: the connection is broken.
    """
    with raw.pipeline():
        pass  # the end of the block sends the Sync and waits for the answer


def answers_sync(raw: psycopg.Connection) -> bool:
    """Return whether the session answers :func:`sync`; True without asking if libpq cannot send it."""
    try:
        if psycopg.Pipeline.is_supported():
            sync(raw)
    except psycopg.Error:
        return False
    return True


@contextmanager
def answering_within(seconds: float, connection: Callable[[], Any]) -> Iterator[None]:
    """Break the connection that ``connection`` returns if the block takes longer, so that the block raises."""
    timer = threading.Timer(seconds, lambda: shut_down(connection()))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # the timer must not shut down a descriptor that was used again


class SessionKind(Enum):
    """Who uses the server session of a connection."""

    DIRECT = "there is no pooler"
    LENT = "a pooler in session mode, which clears the session afterwards"
    SHARED = "a pooler that may give the session to other clients with anything that we leave in it"


def is_ours(raw: Any) -> bool:
    """Return True if the session of a psycopg connection belongs to it alone and ends with it; costs a round trip.

    A server names its process when it accepts a connection. A pooler has to invent a name, because it has no server
    session yet; then the two differ.
    """
    return backend_pid(raw) == int(raw.info.backend_pid)


def backend_pid(raw: Any) -> int:
    """Return the process id of the session that answered; behind a pooler the next statement may use another one."""
    return int(raw.execute("SELECT pg_backend_pid()").fetchone()[0])


def session_kind(raw: psycopg.Connection, connect: Callable[[], psycopg.Connection]) -> SessionKind:
    """Find out the kind of an autocommit session from pg_stat_activity, without taking any session state.

    A second connection to the same address runs a query and then is idle. If the query stays its session's last one,
    the pooler gave that session to no other client. A pooler in transaction mode would most likely have given it to the
    first connection. After the second connection is closed, the last query must become the pooler's ``DISCARD ALL``.
    What cannot be seen proves nothing: then the session counts as shared.
    """
    if is_ours(raw):
        return SessionKind.DIRECT
    is_lent = all(_is_cleared(raw, connect) for _ in range(PROOF_ROUNDS))
    return SessionKind.LENT if is_lent else SessionKind.SHARED


def _is_cleared(raw: psycopg.Connection, connect: Callable[[], psycopg.Connection]) -> bool:
    with answering_within(PROOF_SECONDS, lambda: raw):
        with connect() as probe, answering_within(PROOF_SECONDS - CLEARED_SECONDS, lambda: probe):
            token = secrets.token_hex(8)
            row = probe.execute(f"SELECT pg_backend_pid() /* {token} */").fetchone()
            pid = row[0] if row else None
            for _ in range(3):
                if token not in _last_query(raw, pid):
                    return False
                time.sleep(0.02)
        deadline = time.monotonic() + CLEARED_SECONDS
        while (query := _last_query(raw, pid)) and token in query and time.monotonic() < deadline:
            time.sleep(0.02)
        return query == CLEARED


def _last_query(raw: psycopg.Connection, pid: Any) -> str:
    row = raw.execute(_LAST_QUERY, [pid]).fetchone()
    return (row[0] if row else None) or ""
