"""The state of a session's transaction, as libpq knows it without asking the server."""

from typing import Any

from psycopg.pq import TransactionStatus

IDLE = int(TransactionStatus.IDLE)
ACTIVE = int(TransactionStatus.ACTIVE)
IN_TRANSACTION = int(TransactionStatus.INTRANS)
IN_ERROR = int(TransactionStatus.INERROR)
UNKNOWN = int(TransactionStatus.UNKNOWN)
"""The connection is closed, or is known to be lost."""


def status(connection: Any) -> int:
    """Return the state of the transaction of a Django connection."""
    raw = connection.connection
    return UNKNOWN if raw is None else int(raw.pgconn.transaction_status)


def received_status(connection: Any) -> int:
    """Return the state after reading the socket: the server may have closed an idle session."""
    try:
        connection.connection.pgconn.consume_input()
    except Exception:
        return UNKNOWN
    return status(connection)
