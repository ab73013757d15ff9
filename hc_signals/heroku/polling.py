"""Evidence whether Heroku Connect reads Salesforce and sends the app's writes, from its own tables.

Nothing in the database says when Heroku Connect has polled. A poll that finds nothing leaves no trace, so a quiet
object and a polling that is stuck look the same, unless one of these says more:

- a new systemmodstamp in any table of the connection: it polls;
- writes of the app that wait in the trigger log while none is processed: it does nothing;
- a write that Salesforce accepted, which changes the record's systemmodstamp: the next poll must read it back.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Model

from hc_signals.heroku.trigger_log.models import trigger_log_of
from hc_signals.heroku.trigger_log.words import TriggerLogState
from hc_signals.postgres.moments import aware, now
from hc_signals.postgres.names import quote
from hc_signals.postgres.query import row, rows
from hc_signals.tables import quoted_table, table_label, table_parts

NEWEST = 1_000
"""Newest rows of each trigger log that are searched for processed writes: it has no index for them."""
RECENT = timedelta(hours=24)
"""Older accepted writes prove nothing: their records may have changed or gone since."""
CLOCKS = 120.0
"""Seconds by which the clocks of Salesforce and Heroku Connect may differ."""

# Heroku Connect makes this index. Without it the newest stamp would cost a scan of the whole table.
_INDEXED = """
SELECT wanted.number FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY wanted (schema, name, number)
JOIN pg_namespace n ON n.nspname = wanted.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
WHERE has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AND EXISTS (
    SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND a.attname = 'systemmodstamp')
"""


@dataclass(frozen=True)
class Writes:
    """The app's writes in the trigger log of one connection."""

    waiting: int = 0
    """Writes that wait for Salesforce, counted up to NEWEST."""
    waiting_since: datetime | None = None
    """When the oldest of them was made."""
    processed_at: datetime | None = None
    """When Heroku Connect has processed the newest write."""
    accepted: Mapping[str, tuple[int, datetime]] | None = None
    """By table without schema: the record of the newest accepted write in RECENT, and when it was accepted."""


def newest_stamps(using: str, models: Iterable[type[Model]]) -> dict[str, float]:
    """Return the newest systemmodstamp of each table as Unix time; without tables that have no index of it, or no row.

    A stamp moves with changes of unmapped fields too, which are in no log.
    """
    parts = {table_parts(model): model for model in models}
    schemas, names = [schema for schema, _ in parts], [name for _, name in parts]
    known = list(parts.values())
    found = [known[number - 1] for (number,) in rows(using, _INDEXED, [schemas, names])]
    if not found:
        return {}
    newest = " UNION ALL ".join(
        f"SELECT %s, (SELECT extract(epoch FROM max(systemmodstamp))::float8 FROM {quoted_table(model)})"
        for model in found
    )
    stamps: list[Any] = rows(using, newest, [table_label(model) for model in found])
    return {table: stamp for table, stamp in stamps if stamp is not None}


def writes(using: str, schema: str) -> Writes | None:
    """Return the app's writes of one connection; None if it has no trigger log."""
    live, archive = trigger_log_of(schema)
    if not live.objects.using(using).has_table():
        return None
    waiting = live.objects.using(using).filter(state__in=[TriggerLogState.NEW, TriggerLogState.PENDING])
    found: list[Any] = list(waiting.order_by("id").values_list("created_at", flat=True)[:NEWEST])
    processed: list[Any] = []
    for log in (live, archive):
        if log.objects.using(using).has_table():
            newest = log.objects.using(using).order_by("-id")
            processed += newest.values_list("table_name", "record_id", "action", "state", "processed_at")[:NEWEST]
    ended = [(*entry[:4], aware(entry[4])) for entry in processed if entry[4] is not None]
    return Writes(
        waiting=len(found),
        waiting_since=min((aware(at) for at in found if at is not None), default=None),
        processed_at=max((entry[4] for entry in ended), default=None),
        accepted=_accepted(ended),
    )


def _accepted(ended: Iterable[tuple[str, int, str, str, datetime]]) -> dict[str, tuple[int, datetime]]:
    found: dict[str, tuple[int, datetime]] = {}
    for table, record, action, state, at in sorted(ended, key=lambda entry: entry[4]):
        if state == TriggerLogState.SUCCESS and action != "DELETE" and at > now() - RECENT:
            found[table] = record, at
    return found


def is_unread(using: str, model: type[Model], record: int, accepted_at: datetime) -> bool:
    """Return whether the record still has a systemmodstamp from before its accepted write: no poll has read it since.

    False if there is no such record any more, or it has no stamp.
    """
    sql = f"SELECT extract(epoch FROM systemmodstamp)::float8 FROM {quoted_table(model)} WHERE {quote('id')} = %s"
    found = row(using, sql, [record])
    return bool(found and found[0] is not None and found[0] < accepted_at.timestamp() - CLOCKS)
