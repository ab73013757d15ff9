"""Tells which consumers have a running worker: each of its connections holds a share of the consumer's lock.

A lock and no row with a time in it: it ends with the connection, however the worker dies. Behind a pooler a worker
process has one connection for it, with an open transaction; elsewhere each connection that delivers holds a share.
"""

from django.db import connections

from hc_signals.postgres.held_lock import HeldLock
from hc_signals.postgres.locks import PRESENCE

ANNOUNCE = "SELECT pg_advisory_lock_shared(%s, hashtext(%s))"
"""Only in a session that is ours: see postgres/sessions.py."""


def announce(using: str, consumer: str) -> None:
    """Show on this connection, until it is closed, that a worker of the consumer is running."""
    with connections[using].cursor() as cursor:
        cursor.execute(ANNOUNCE, [PRESENCE, consumer])


def announce_on(held: HeldLock, consumer: str) -> bool:
    """The same until the held lock is released, behind any pooler; False while the consumer is just being removed."""
    return held.take("pg_try_advisory_xact_lock_shared(%s, hashtext(%s))", [PRESENCE, consumer])


def is_absent(using: str, consumer: str) -> bool:
    """Tell whether no other connection has announced itself; if so, none can until the transaction ends."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))", [PRESENCE, consumer])
        return bool(cursor.fetchone()[0])


def workers(using: str, consumer: str) -> int:
    """Return on how many connections workers of the consumer live."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
            "WHERE d.datname = current_database() AND locktype = 'advisory' AND mode = 'ShareLock' AND granted "
            "AND classid = %s AND objid = hashtext(%s)::oid AND objsubid = 2",
            [PRESENCE, consumer],
        )
        return int(cursor.fetchone()[0])
