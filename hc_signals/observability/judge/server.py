"""The server: its version and role, limits and publications; whether it has the log, and made it itself."""

from collections.abc import Iterator

from hc_signals.log.restoring import WORDS, moved
from hc_signals.log.schema import exists
from hc_signals.observability.findings import Finding, fine, problem
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
OLDEST = 140000
"""Oldest server_version_num that hc_signals supports."""


def server(using: str) -> Iterator[Finding]:
    """Judge the server; after the problem ``log-missing`` no other check can run."""
    version, number, in_recovery, role, database, is_read_only = row(using, _SERVER)
    has_log = exists(using)
    text = f"PostgreSQL {version}, {'follower' if in_recovery else 'leader'}; database {database!r} as {role!r}"
    facts = {"version": version, "in_recovery": in_recovery, "role": role, "database": database}
    if number < OLDEST:
        yield problem("server-too-old", "server", text, **facts)
    elif in_recovery:
        yield problem("server-follower", "server", text, **facts)
    elif is_read_only:
        yield problem("server-read-only", "server", f"{text}; read-only", **facts)
    else:
        yield fine("server", text, **facts)
    yield from _temp_file_limits(using)
    if not has_log:
        yield problem("log-missing", "log", "the change log does not exist")
    elif not in_recovery and (cause := moved(using)):
        yield problem("restored", "log", f"{WORDS[cause][0].lower()}{WORDS[cause][1:]}; no worker has run since")
    if has_log:
        yield from _publications(using)


def _publications(using: str) -> Iterator[Finding]:
    for name, is_decoded, is_partial in rows(using, _PUBLICATIONS):
        text = f"the publication {name!r} covers tables of hc_signals"
        if is_decoded:
            text += "; subscribers receive the contents of records"
        if is_partial:
            text += "; a nested change becomes a gap, because PostgreSQL refuses to move its row"
        yield problem("log-published", "log", text, publication=name, decoded=is_decoded, partial=is_partial)


def _temp_file_limits(using: str) -> Iterator[Finding]:
    limits = dict(rows(using, _TEMP_FILE_LIMITS))
    if limits:
        listed = ", ".join(f"{value} for {of_whom}" for of_whom, value in sorted(limits.items()))
        yield problem("server-temp-files", "server", f"temp_file_limit is {listed}", limits=limits)
