"""Capture: the triggers of each table, a pause, what was missed, reloads that are under way."""

from collections.abc import Iterator
from datetime import timedelta

from django.db import connections

from hc_signals.capture import orphans, pausing, table_state, triggers
from hc_signals.capture.reloads import under_way
from hc_signals.observability.findings import Finding, fine, problem
from hc_signals.postgres.moments import age, now
from hc_signals.tables import connected_models

LONG_RELOAD = timedelta(hours=6)


def capture(using: str) -> Iterator[Finding]:
    """Look at every table's triggers."""
    models = connected_models()
    if not models:
        yield problem("capture-no-models", "capture", "there is no connected model")
    found = [triggers.compare(model, each) for model, each in zip(models, triggers.find(models, using), strict=True)]
    of_tables, is_removed = table_state.read(using), pausing.find(using).is_removed
    for status in (*found, *orphans.find(models, using)):
        text = f"{status.table}: {status.state}" + (f" ({status.detail})" if status.detail else "")
        facts = {"table": status.table, "state": status.state}
        before = of_tables.get(status.table)
        if status.state == "missing" and is_removed:
            yield problem("capture-paused", "capture", f"{status.table}: taken off until `resume`", **facts)
        elif status.state == "missing" and before is not None and before.uninstalled_at is not None:
            text = f"{status.table}: uninstalled {age(before.uninstalled_at)} ago"
            yield problem("capture-uninstalled", "capture", text, **facts)
        elif status.state != "installed":
            yield problem(f"capture-{status.state}", "capture", text, **facts)
        elif status.aside:
            yield problem(f"capture-{status.aside}", "capture", text, **facts)
        elif not status.absent_columns:
            yield fine("capture", text, **facts)
        if status.absent_columns:
            names = ", ".join(status.absent_columns)
            text = f"{status.table}: the table has no {names}, so no change of it can be delivered"
            yield problem("capture-columns", "capture", text, **facts, columns=list(status.absent_columns))


# Of our own tables, whether rows are hidden from whoever asks; of captured ones, from the function's owner as well.
_HIDDEN = """
SELECT c.oid::regclass::text, coalesce(bool_or(row_security_active(c.oid)), false), string_agg(DISTINCT o.rolname, ', ')
FROM pg_class c
LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname LIKE 'hc\\_signals\\_%%'
LEFT JOIN pg_proc p ON p.oid = t.tgfoid
LEFT JOIN pg_roles o ON o.oid = p.proowner AND NOT o.rolsuper AND NOT o.rolbypassrls
    AND (c.relforcerowsecurity OR NOT pg_has_role(o.oid, c.relowner, 'USAGE'))
WHERE c.relrowsecurity AND (
    c.oid = ANY (%s::oid[]) OR c.relnamespace = 'public'::regnamespace AND c.relname LIKE 'hc\\_signals\\_%%')
GROUP BY c.oid ORDER BY 1
"""


def row_security(using: str) -> Iterator[Finding]:
    """Look whether row-level security hides rows from us; no finding if it does not."""
    oids = [found.oid for found in triggers.find(connected_models(), using) if found.oid is not None]
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT current_user")
        user = cursor.fetchone()[0]
        cursor.execute(_HIDDEN, [oids])
        for table, is_hidden, owners in cursor.fetchall():
            roles = sorted({*([user] if is_hidden else []), *(owners.split(", ") if owners else [])})
            if roles:
                text = f"{table}: row-level security hides rows from {', '.join(roles)}"
                yield problem("capture-row-security", "capture", text, table=table, roles=roles)


def pause(using: str) -> Iterator[Finding]:
    """Look whether capture is switched off; no finding if it is not."""
    found = pausing.find(using)
    if found.since:
        how = "switched off and taken off the tables" if found.is_removed else "switched off"
        yield problem("capture-paused", "capture", f"{how} {age(found.since)} ago", since=found.since)
    if found.owed:
        yield problem(
            "capture-gap-owed", "capture", f"the gap of {age(found.owed)} ago is not written", since=found.owed
        )


def incomplete(using: str) -> Iterator[Finding]:
    """Look what the drift watch still has to tell or to read again; no finding where nothing is."""
    for table in table_state.read(using).values():
        if table.cause:
            since = "nobody knows when" if table.good_at is None else f"{age(table.good_at)} ago"
            text = f"{table.table}: {table.cause}, complete until {since}"
            yield problem("capture-gap-untold", "capture", text, table=table.table, since=table.good_at)
        if table.reread_since:
            text = f"{table.table}: to be read again, what changed since {age(table.reread_since)} ago"
            yield problem("capture-reread", "capture", text, table=table.table, since=table.reread_since)


def reloads(using: str) -> Iterator[Finding]:
    """Look which tables are being reloaded; no finding if none."""
    for reload in under_way(using):
        text = f"{reload.table}: reloading for {age(reload.since)}, {reload.records} record(s) were cleared"
        facts = {"table": reload.table, "since": reload.since, "records": reload.records}
        if now() - reload.since > LONG_RELOAD:
            yield problem("reload-long", "reload", text, **facts)
        else:
            yield fine("reload", text, **facts)
