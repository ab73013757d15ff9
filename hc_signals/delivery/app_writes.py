"""The app's own writes on their way to Salesforce: which values of a change they replace.

The app writes a value while a poll is under way. The poll writes the older value back, and a later poll the app's one.
Heroku expects this. Heroku Connect's trigger log has the app's writes, so an older value can be recognised:

* The write is not sent yet: Salesforce does not have it.
* Salesforce has accepted it, and the record was read before the app wrote it: its ``systemmodstamp`` says so.
* Salesforce has accepted it, and the record was read at about that time, with another value. Either the poll came too
  early, or Salesforce has changed the value once more. It counts as older: a later change shows which of them it was.

The trigger log is read when a receiver asks, once for the changes of a table in a page.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import models

from hc_signals.log.change import Change
from hc_signals.postgres.hstore import hstore_text_to_dict
from hc_signals.postgres.names import literal, quote
from hc_signals.postgres.query import row, rows
from hc_signals.tables import counts_as_change, table_parts

IN_FLIGHT = timedelta(minutes=5)
"""Longest time between Salesforce's answer to a poll and the commit of what the poll has read."""
LOOK_BACK = timedelta(hours=1)
"""Writes that were finished so long before a change are not asked about."""
_SECOND = timedelta(seconds=1)
"""Salesforce rounds its stamps down to seconds."""

STAMP = "systemmodstamp"

# The words of heroku.trigger_log.words, which nothing on a change's way imports.
_OPEN = frozenset({"NEW", "PENDING", "REQUEUE"})
_MERGED = "MERGED"
"""Sent as part of another entry of the record: open as long as one of these is."""
_STATES = [*_OPEN, _MERGED, "SUCCESS"]
_WITH_VALUES = frozenset({"INSERT", "UPDATE", "GAP_CREATE", "GAP_UPDATE"})
"""The operations that give a record values."""

_LOGS = "SELECT to_regclass({live}) IS NOT NULL, to_regclass({archive}) IS NOT NULL"
_COLUMNS = 'id, record_id, sfid, action, state, "values", created_at, processed_at'
_LIVE = f"""
SELECT {_COLUMNS} FROM {{live}}
WHERE table_name = %(table)s AND state = ANY (%(states)s) AND (record_id = ANY (%(rows)s) OR sfid = ANY (%(sfids)s))
"""
# The archive has no index of sfid. A write is found by it only if it deleted the row, and a poll has made a new one.
_ARCHIVED = f"""
SELECT {_COLUMNS} FROM {{archive}}
WHERE table_name = %(table)s AND state = ANY (%(states)s) AND coalesce(processed_at, created_at) > %(since)s
  AND (record_id = ANY (%(rows)s) OR (created_at > %(since)s AND sfid = ANY (%(sfids)s)))
"""

Images = Callable[[Sequence[int], Sequence[str]], Mapping[int, Mapping[str, Any]]]
"""Reads the latest values of some columns, by change: JSON values, or texts as PostgreSQL prints them."""


class AppWrite(NamedTuple):
    """One write of the app that Salesforce has accepted, or is to get."""

    row: int
    sfid: str | None
    action: str
    is_open: bool
    """Salesforce has not answered yet."""
    values: Mapping[str, str | None]
    """The values that the app has written, by column; none for a deletion, which writes them all."""
    created_at: datetime
    processed_at: datetime | None

    def may_replace(self, change: Change, stamp: datetime | None, column: str, value: Any) -> bool:
        """Return whether the value that a change gives to a column is, or may be, older than this write of the column.

        Args:
            stamp: the record's ``systemmodstamp`` after the change.
            column, value: as the change leaves it.
        """
        if self.is_open or (stamp is not None and stamp < self.created_at.replace(microsecond=0)):
            return True
        done = self.processed_at or self.created_at
        is_near = change.captured_at <= done + IN_FLIGHT and (stamp is None or stamp <= done + _SECOND)
        return is_near and (self.action == "DELETE" or not _is_same(value, self.values[column]))


def pending_columns(
    using: str, model: type[models.Model], changes: Sequence[Change], columns: Sequence[str], images: Images
) -> dict[int, tuple[str, ...]]:
    """Return the changed columns whose values a write of the app replaces, or may replace, by change.

    Args:
        changes: of the model's table.
        columns: the columns of the model.
        images: is called for changes of records with an accepted write.

    Raises:
        DatabaseError: the trigger log cannot be read.
    """
    given = [change for change in changes if change.operation in _WITH_VALUES]
    writes_of = _by_change(given, list(_writes(using, model, given))) if given else {}
    if not writes_of:
        return {}
    asked = sorted({STAMP}.union(*(write.values for writes in writes_of.values() for write in writes)))
    answered = [change.id for change in given if any(not each.is_open for each in writes_of.get(change.id, ()))]
    values_of = images(answered, asked) if answered else {}
    found = {}
    for change in given:
        writes, values = writes_of.get(change.id, ()), values_of.get(change.id, {})
        stamp = _moment(values.get(STAMP))
        pending = tuple(
            column
            for column in columns
            if (change.changed is None or column in change.changed)
            and counts_as_change(column)
            and any(write.may_replace(change, stamp, column, values.get(column)) for write in _last(writes, column))
        )
        if pending:
            found[change.id] = pending
    return found


def _writes(using: str, model: type[models.Model], changes: Sequence[Change]) -> Iterator[AppWrite]:
    """Yield the writes to the records of these changes, in order; none that Salesforce has refused or never gets."""
    schema, table = table_parts(model)
    live, archive = (f"{quote(schema)}.{name}" for name in ("_trigger_log", "_trigger_log_archive"))
    has_live, has_archive = row(using, _LOGS.format(live=literal(live), archive=literal(archive)))
    parts = [_LIVE.format(live=live)] * has_live + [_ARCHIVED.format(archive=archive)] * has_archive
    if not parts:
        return
    params = {
        "table": table,
        "states": _STATES,
        "rows": [int(key) for change in changes if (key := change.record_key or "").isdecimal()],
        "sfids": [change.record_id for change in changes if change.record_id],
        "since": min(change.captured_at for change in changes) - LOOK_BACK,
    }
    entries = rows(using, " UNION ALL ".join(parts) + " ORDER BY id", params)
    open_rows = {entry[1] for entry in entries if entry[4] in _OPEN}
    for _, number, sfid, action, state, values, created_at, processed_at in entries:
        written = hstore_text_to_dict(values)
        if action == "INSERT":  # a column without a value is left to Salesforce
            written = {name: value for name, value in written.items() if value is not None}
        written = {name: value for name, value in written.items() if name not in ("id", "sfid")}
        is_open = state in _OPEN or (state == _MERGED and number in open_rows)
        yield AppWrite(number, sfid, action, is_open, written, created_at, processed_at)


def _last(writes: Iterable[AppWrite], column: str) -> list[AppWrite]:
    """Return the last write of a column, and the last deletion: earlier ones are replaced by these."""
    found = {write.action == "DELETE": write for write in writes if write.action == "DELETE" or column in write.values}
    return list(found.values())


def _by_change(changes: Iterable[Change], writes: Iterable[AppWrite]) -> dict[int, list[AppWrite]]:
    by_key: dict[str | None, list[AppWrite]] = defaultdict(list)
    for write in writes:
        by_key[str(write.row)].append(write)
        if write.sfid:
            by_key[write.sfid].append(write)
    found = {change.id: [*by_key[change.record_key], *by_key[change.record_id]] for change in changes}
    return {key: of_change for key, of_change in found.items() if of_change}


def _moment(value: Any) -> datetime | None:
    """Return a stamp of the image: UTC, with or without saying so."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:  # infinity, or before Christ
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _is_same(value: Any, text: str | None) -> bool:
    """Return whether a value of an image is what the trigger log has as text."""
    if value is None or text is None:
        return value is text
    if isinstance(value, bool):
        return text == ("t" if value else "f")
    if isinstance(value, str):
        return text in (value, value.replace("T", " ", 1)) or (value in ("true", "false") and text == value[0])
    try:
        return bool(float(text) == float(value))
    except (TypeError, ValueError):  # JSON, or an array of a customer's own column
        return False
