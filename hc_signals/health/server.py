"""The server itself: version, role, and whether the log is there and of this server."""

from collections.abc import Iterator

from django.db import connections

from hc_signals.health.findings import Finding, fine, problem
from hc_signals.log.restoring import is_restored

_SERVER = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery(), current_user,
       current_database(), to_regclass('public.hc_signals_change') IS NOT NULL
"""
OLDEST = 140000


def server(using: str) -> Iterator[Finding]:
    """Look at the server; ``log-missing`` means that nothing else can be looked at."""
    with connections[using].cursor() as cursor:
        cursor.execute(_SERVER)
        version, number, in_recovery, role, database, has_log = cursor.fetchone()
    text = f"PostgreSQL {version}, {'follower' if in_recovery else 'leader'}; database {database!r} as {role!r}"
    facts = {"version": version, "in_recovery": in_recovery, "role": role, "database": database}
    if number < OLDEST:
        yield problem("server-too-old", "server", text, **facts)
    elif in_recovery:
        yield problem("server-follower", "server", text, **facts)
    else:
        yield fine("server", text, **facts)
    if not has_log:
        yield problem("log-missing", "log", "the change log does not exist")
    elif not in_recovery and is_restored(using):
        yield problem("restored", "log", "this database was restored from another server; no worker has run since")
