"""Connections: the limits of server, role and database, how many are taken, and how many hc_listen takes."""

from collections.abc import Iterator

from hc_signals.observability.findings import Finding, fine, problem
from hc_signals.postgres.query import rows

FEW = 2
"""Most free connections that are a problem: the server may refuse the next one to hc_listen."""

# A role without pg_read_all_stats sees no backend_type of other roles' sessions, but it sees whose they are.
_LIMITS = """
WITH clients AS (
    SELECT usename, datname FROM pg_stat_activity
    WHERE coalesce(backend_type = 'client backend', usesysid IS NOT NULL)
)
SELECT 'max_connections, less those reserved', current_setting('max_connections')::int - CASE WHEN r.rolsuper THEN 0
           ELSE current_setting('superuser_reserved_connections')::int
                + coalesce(current_setting('reserved_connections', true)::int, 0) END,
       (SELECT count(*) FROM clients)
FROM pg_roles r WHERE r.rolname = current_user
UNION ALL
SELECT 'limit of role ' || quote_literal(r.rolname), r.rolconnlimit,
       (SELECT count(*) FROM clients WHERE usename = r.rolname)
FROM pg_roles r WHERE r.rolname = current_user AND r.rolconnlimit >= 0 AND NOT r.rolsuper
UNION ALL
SELECT 'limit of database ' || quote_literal(d.datname), d.datconnlimit,
       (SELECT count(*) FROM clients WHERE datname = d.datname)
FROM pg_database d WHERE d.datname = current_database() AND d.datconnlimit >= 0
"""
_OURS = """
SELECT application_name, count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'hc\\_listen %' GROUP BY 1 ORDER BY 1
"""


def free_connections(using: str) -> Iterator[Finding]:
    """Judge the tightest limit. The connection of this check counts too."""
    of, limit, taken = min(rows(using, _LIMITS), key=lambda row: row[1] - row[2])
    ours = dict(rows(using, _OURS))
    text = f"{taken} of {limit} taken ({of}), {sum(ours.values())} by hc_listen"
    if ours:
        text += ": " + ", ".join(f"{name.removeprefix('hc_listen ')} {count}" for name, count in ours.items())
    facts = {"taken": taken, "limit": limit, "limit_of": of, "hc_listen": ours}
    if limit - taken <= FEW:
        yield problem("connections-few", "connections", text, **facts)
    else:
        yield fine("connections", text, **facts)
