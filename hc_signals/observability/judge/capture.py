"""Capture: the triggers of each table, a pause, gaps to report, rows to read again, reloads."""

from collections.abc import Iterator
from datetime import timedelta

from hc_signals.capture.reloads import under_way
from hc_signals.observability.findings import Finding, finding
from hc_signals.observability.survey import Survey
from hc_signals.postgres.moments import age, now
from hc_signals.postgres.query import rows

LONG_RELOAD = timedelta(hours=6)
"""A reload that takes longer is a problem."""


def capture(survey: Survey) -> Iterator[Finding]:
    """Judge the triggers of every table."""
    if not survey.models:
        yield finding("capture", "there is no connected model", "capture-no-models")
    for status in (*survey.statuses, *survey.orphans):
        text = f"{status.table}: {status.state}" + (f" ({status.detail})" if status.detail else "")
        facts = {"table": status.table, "state": status.state}
        watched = survey.watched.get(status.table)
        problem = status.aside if status.state == "installed" else status.state
        if status.state == "missing" and survey.pause.is_removed:
            text, problem = f"{status.table}: taken off until `resume`", "paused"
        elif status.state == "missing" and watched is not None and watched.uninstalled_at is not None:
            text, problem = f"{status.table}: uninstalled {age(watched.uninstalled_at)} ago", "uninstalled"
        if problem or not status.absent_columns:
            yield finding("capture", text, f"capture-{problem}" if problem else "", **facts)
        if status.absent_columns:
            names = ", ".join(status.absent_columns)
            text = f"{status.table}: the table has no {names}, so no change of it can be delivered"
            yield finding("capture", text, "capture-columns", **facts, columns=list(status.absent_columns))


# Rows of our own tables that are hidden from this role; rows of captured tables that are hidden from it, or from the
# owner of the capture function.
_HIDDEN = """
SELECT c.oid::regclass::text, current_user, coalesce(bool_or(row_security_active(c.oid)), false),
    array_remove(array_agg(DISTINCT o.rolname::text), NULL)
FROM pg_class c
LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname LIKE 'hc\\_signals\\_%%'
LEFT JOIN pg_proc p ON p.oid = t.tgfoid
LEFT JOIN pg_roles o ON o.oid = p.proowner AND NOT o.rolsuper AND NOT o.rolbypassrls
    AND (c.relforcerowsecurity OR NOT pg_has_role(o.oid, c.relowner, 'USAGE'))
WHERE c.relrowsecurity AND (
    c.oid = ANY (%s::oid[]) OR c.relnamespace = 'public'::regnamespace AND c.relname LIKE 'hc\\_signals\\_%%')
GROUP BY c.oid ORDER BY 1
"""


def row_security(survey: Survey) -> Iterator[Finding]:
    """Check whether row-level security hides rows from hc_signals; no finding if it does not."""
    oids = [table.oid for table in survey.tables if table.oid is not None]
    for table, user, is_hidden, owners in rows(survey.using, _HIDDEN, [oids]):
        roles = sorted({*([user] if is_hidden else []), *owners})
        if roles:
            text = f"{table}: row-level security hides rows from {', '.join(roles)}"
            yield finding("capture", text, "capture-row-security", table=table, roles=roles)


def pause(survey: Survey) -> Iterator[Finding]:
    """Check whether capture is switched off; no finding if it is not."""
    found = survey.pause
    if found.since:
        how = "switched off and taken off the tables" if found.is_removed else "switched off"
        yield finding("capture", f"{how} {age(found.since)} ago", "capture-paused", since=found.since)
    if found.owed:
        text = f"the gap of {age(found.owed)} ago is not written"
        yield finding("capture", text, "capture-gap-owed", since=found.owed)


def incomplete(survey: Survey) -> Iterator[Finding]:
    """Find tables whose gap is not reported yet, or whose rows are not read again yet."""
    for table in survey.watched.values():
        if table.cause:
            since = "an unknown time" if table.good_at is None else f"{age(table.good_at)} ago"
            text = f"{table.table}: {table.cause}, complete until {since}"
            yield finding("capture", text, "capture-gap-unreported", table=table.table, since=table.good_at)
        if table.reread_since:
            text = f"{table.table}: to be read again, what changed since {age(table.reread_since)} ago"
            yield finding("capture", text, "capture-reread", table=table.table, since=table.reread_since)


def reloads(survey: Survey) -> Iterator[Finding]:
    """Find tables that are being reloaded."""
    for reload in under_way(survey.using):
        text = f"{reload.table}: reloading for {age(reload.since)}, {reload.records} record(s) were cleared"
        key = "reload-long" if now() - reload.since > LONG_RELOAD else ""
        yield finding("reload", text, key, table=reload.table, since=reload.since, records=reload.records)
