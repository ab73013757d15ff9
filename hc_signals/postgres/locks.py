"""The advisory locks that hc_signals takes, all of them: here, and with the same numbers in migrations_sql/.

Each is a pair of keys, as in ``pg_advisory_lock(key1, key2)``; of a class only the first is fixed, the second a hash.
The numbers mean nothing: that another application in the same database has chosen them too is unlikely.
"""

BELL = (1212372819, 1)
"""Held by a worker that sleeps; shared by writers that need not ring: see hc_signals_ring()."""
UNTOLD = (1212372819, 2)
"""Shared by transactions that changed something uncaptured, until they end; who tells of it as a gap waits for them."""
INSTALLER = (1212372819, 3)
"""Held by an installer of triggers, so that two take turns."""
CLAIMS = 1212372820
"""Class, by consumer and shard: held by the worker that delivers the shard. And by consumer: see log/layout.py."""
RELOADS = 1212372823
"""Class, by table: shared by writers while it is reloaded; held when the end of the reload is told."""
PRESENCE = 1212372824
"""Class, by consumer: shared by the connections of its workers as long as they live."""
RUNS = 1212372825
"""Class, by run: shared by the connections of one worker process as long as they live."""
