"""Finds out whose the server session behind a connection is, without taking anything in it."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from threading import Timer
from typing import Any

import psycopg

from hc_signals.postgres.connecting import shut_down
from hc_signals.postgres.sessions import is_ours

PROOF_ROUNDS = 2
CLEARED_SECONDS = 1.0
"""Most seconds until a pooler has cleared a session that was given back."""
PROOF_SECONDS = 5.0
"""Most seconds for the whole of a proof: a pooler without a free session does not answer."""
CLEARED = "DISCARD ALL"
"""PgBouncer's ``server_reset_query`` in session mode, unless it is set to something else."""

_LAST_QUERY = "SELECT query FROM pg_stat_activity WHERE pid = %s"


class SessionKind(Enum):
    """Whose the server session of a connection is."""

    DIRECT = "there is no pooler"
    LENT = "a pooler in session mode, which clears the session afterwards"
    SHARED = "a pooler that may give the session to others with anything that we leave in it"


def session_kind(raw: psycopg.Connection, connect: Callable[[], psycopg.Connection]) -> SessionKind:
    """Find out by what the server shows, without taking any state of a session.

    A second connection asks something and then is idle. If its session's last statement stays what it asked, nobody
    else is given the session meanwhile, not even this connection, whose statements a pooler in transaction mode would
    most likely give to just that one. When it is closed, the last statement must become the pooler's ``DISCARD ALL``.
    What cannot be seen proves nothing: then the session counts as shared.

    Args:
        raw: the connection in question, in autocommit mode.
        connect: makes another one to the same address.
    """
    if is_ours(raw):
        return SessionKind.DIRECT
    is_lent = all(_is_cleared(raw, connect) for _ in range(PROOF_ROUNDS))
    return SessionKind.LENT if is_lent else SessionKind.SHARED


def _is_cleared(raw: psycopg.Connection, connect: Callable[[], psycopg.Connection]) -> bool:
    with answering_within(raw, PROOF_SECONDS):
        with connect() as probe, answering_within(probe, PROOF_SECONDS - CLEARED_SECONDS):
            token = secrets.token_hex(8)
            row = probe.execute(f"SELECT pg_backend_pid() /* {token} */".encode()).fetchone()
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


@contextmanager
def answering_within(raw: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Break the connection if the block takes longer: a pooler without a free session does not answer."""
    timer = Timer(seconds, shut_down, [raw.fileno()])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # so that it cannot shut down a descriptor that was used again
