"""All advisory locks that hc_signals takes. migrations_sql/ has the same numbers.

A lock is a pair of keys, as in ``pg_advisory_lock(key1, key2)``. A class fixes the first key; the second is a hash. The
numbers mean nothing; another application in the same database is unlikely to use them.
"""

BELL = (1212372819, 1)
"""Held by a worker that sleeps; shared by writers that need not notify: see hc_signals_ring()."""
UNTOLD = (1212372819, 2)
"""Shared by transactions that changed something uncaptured, until they end. The session that reports the gap waits for
them."""
INSTALLER = (1212372819, 3)
"""Held by an installer of triggers, so that two installers take turns."""
PROBE = (1212372819, 4)
"""Held by a running `hc_triggers probe`; a writer's trigger notes nothing if it could share the lock."""
CLAIMS = 1212372820
"""Class, by consumer and shard: held by the worker that delivers the shard. And by consumer: see log/layout.py."""
RELOADS = 1212372823
"""Class, by table: shared by writers while it is reloaded; held by the session that ends the reload."""
PRESENCE = 1212372824
"""Class, by consumer: shared by the open connections of its workers."""
RUNS = 1212372825
"""Class, by run: shared by the open connections of one worker process."""
