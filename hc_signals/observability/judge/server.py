"""The server: its version and role, limits and publications; whether it has the log, and made it itself."""

from collections.abc import Iterator

from hc_signals.log.restoring import WORDS, moved
from hc_signals.log.schema import exists, is_current
from hc_signals.observability.findings import Finding, finding
from hc_signals.postgres.query import row, rows

_SERVER = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery(), current_user,
       current_database(), current_setting('transaction_read_only')::bool
"""
# With a list of columns or a condition on rows (PostgreSQL 15), the server refuses some statements on our tables.
_PUBLICATIONS = r"""
SELECT t.pubname, current_setting('wal_level') = 'logical', bool_or(
    c.relkind = 'r' AND c.relname LIKE 'hc\_signals\_change\_%' AND c.relreplident <> 'f'
    OR to_jsonb(r)->>'prattrs' IS NOT NULL OR to_jsonb(r)->>'prqual' IS NOT NULL)
FROM pg_publication_tables t
JOIN pg_publication p ON p.pubname = t.pubname
JOIN pg_class c ON c.oid = format('%I.%I', t.schemaname, t.tablename)::regclass
LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
WHERE t.schemaname = 'public' AND t.tablename LIKE 'hc\_signals\_%'
GROUP BY t.pubname ORDER BY t.pubname
"""
# The limit of this session, then the limits of other roles: one of them is Heroku Connect's.
_TEMP_FILE_LIMITS = """
SELECT 'this session', current_setting('temp_file_limit') WHERE current_setting('temp_file_limit') <> '-1'
UNION
SELECT 'role ' || r.rolname, split_part(setting, '=', 2)
FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) setting
WHERE setting LIKE 'temp_file_limit=%' AND setting <> 'temp_file_limit=-1'
  AND (s.setdatabase = 0 OR s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
# A role without pg_read_all_stats sees no backend_type of other roles' sessions, but it sees whose they are.
_CONNECTION_LIMITS = """
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
OLDEST = 140000
"""Oldest server_version_num that hc_signals supports."""
FEW = 2
"""Most free connections that are a problem: the server may refuse the next one to hc_listen."""


def server(using: str) -> Iterator[Finding]:
    """Judge the server; after the problem ``log-missing`` no other check can run."""
    version, number, in_recovery, role, database, is_read_only = row(using, _SERVER)
    text = f"PostgreSQL {version}, {'follower' if in_recovery else 'leader'}; database {database!r} as {role!r}"
    facts = {"version": version, "in_recovery": in_recovery, "role": role, "database": database}
    key = "server-too-old" if number < OLDEST else "server-follower" if in_recovery else ""
    if not key and is_read_only:
        text, key = f"{text}; read-only", "server-read-only"
    yield finding("server", text, key, **facts)
    if limits := dict(rows(using, _TEMP_FILE_LIMITS)):
        listed = ", ".join(f"{value} for {of_whom}" for of_whom, value in sorted(limits.items()))
        yield finding("server", f"temp_file_limit is {listed}", "server-temp-files", limits=limits)
    if not is_current(using):
        text = "the change log is of an older version" if exists(using) else "the change log does not exist"
        yield finding("log", text, "log-missing")
        return
    if not in_recovery and (cause := moved(using)):
        yield finding("log", f"{WORDS[cause][0].lower()}{WORDS[cause][1:]}; no worker has run since", "restored")
    for name, is_decoded, is_partial in rows(using, _PUBLICATIONS):
        text = f"the publication {name!r} covers tables of hc_signals"
        text += "; subscribers receive the contents of records" if is_decoded else ""
        text += "; a nested change becomes a gap, because PostgreSQL refuses to move its row" if is_partial else ""
        yield finding("log", text, "log-published", publication=name, decoded=is_decoded, partial=is_partial)


def free_connections(using: str) -> Iterator[Finding]:
    """Judge the tightest limit of connections. The connection of this check counts too."""
    of, limit, taken = min(rows(using, _CONNECTION_LIMITS), key=lambda row: row[1] - row[2])
    ours = dict(rows(using, _OURS))
    text = f"{taken} of {limit} taken ({of}), {sum(ours.values())} by hc_listen"
    if ours:
        text += ": " + ", ".join(f"{name.removeprefix('hc_listen ')} {count}" for name, count in ours.items())
    key = "connections-few" if limit - taken <= FEW else ""
    yield finding("connections", text, key, taken=taken, limit=limit, limit_of=of, hc_listen=ours)
