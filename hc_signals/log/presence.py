"""Shows which consumers have a running worker: each of its connections holds a share of the consumer's lock.

A lock ends with the connection, however the worker dies; a row with a time in it would not. Behind a pooler a worker
process has one connection for the lock, with an open transaction. Elsewhere each connection that delivers has a share.
"""

from hc_signals.postgres.held_lock import HeldLock
from hc_signals.postgres.locks import PRESENCE
from hc_signals.postgres.query import execute, row

ANNOUNCE = "SELECT pg_advisory_lock_shared(%s, hashtext(%s))"
"""For a session of our own: see ``postgres/session_kind.py``."""
_WORKERS = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND locktype = 'advisory' AND mode = 'ShareLock' AND granted
  AND classid = %s AND objid = hashtext(%s)::oid AND objsubid = 2
"""


def announce(using: str, consumer: str) -> None:
    """Show on this connection, until it closes, that a worker of the consumer is running."""
    execute(using, ANNOUNCE, [PRESENCE, consumer])


def announce_on(held: HeldLock, consumer: str) -> bool:
    """Show it until the held lock is released, behind any pooler; False while the consumer is being removed."""
    return held.take("pg_try_advisory_xact_lock_shared(%s, hashtext(%s))", [PRESENCE, consumer])


def is_absent(using: str, consumer: str) -> bool:
    """Return whether no other connection is announced; if so, none can be until the transaction ends."""
    return bool(row(using, "SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))", [PRESENCE, consumer])[0])


def workers(using: str, consumer: str) -> int:
    """Return the number of connections of the consumer's running workers."""
    return int(row(using, _WORKERS, [PRESENCE, consumer])[0])
