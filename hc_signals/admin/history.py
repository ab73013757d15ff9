"""What happened to one record, in the order of time: changes, gaps, the app's writes, Salesforce's answers."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from django.db import models
from django.db.models import Q

from hc_signals.admin.difference import Line, lines_of
from hc_signals.admin.filters import CHANGE_TYPE
from hc_signals.admin.text import visible
from hc_signals.conf import mirror_origin
from hc_signals.delivery.routing import is_link
from hc_signals.heroku.trigger_log.words import TriggerLogState
from hc_signals.log import heard, record
from hc_signals.log.record import RecordKeys
from hc_signals.models import Change, Delivery, trigger_log_of
from hc_signals.postgres.moments import aware, shown, until
from hc_signals.tables import table_parts

SHOWN = 50
"""Changes per page."""
SHOWN_FIELDS = 8
"""Fields of one entry that are shown at once."""
SHOWN_OTHERS = 200
"""Most gaps, reloads, calls of one change, and writes of the app per page."""
LONGEST_VALUE = 2000
"""Characters from which on a value is cut: a page has many values."""
ANSWERED = frozenset({TriggerLogState.SUCCESS, TriggerLogState.FAILED, TriggerLogState.MERGED})


class Hearing(NamedTuple):
    """One call of a receiver."""

    receiver: str
    at: str
    took: str
    attempt: int
    result: str
    """``ok``, or ``failed``."""
    remark: str


@dataclass
class Entry:
    """One thing that happened to the record, or to its table."""

    at: datetime
    badge: str
    """Class of the badge's colour."""
    title: str
    change: int | None = None
    """Id of the change in the log."""
    of_record: bool = False
    """It is a change of the record, which can be delivered again."""
    note: str = ""
    lines: Sequence[Line] = ()
    calls: list[Hearing] = field(default_factory=list)
    waiting: Sequence[str] = ()
    """Consumers whose position is not past the change."""
    deliveries: list[Any] = field(default_factory=list)

    @property
    def time(self) -> str:
        """The time with its seconds, in the zone of the page."""
        return shown(self.at, zone=False)

    @property
    def first_lines(self) -> Sequence[Line]:
        """The fields that are shown at once."""
        return self.lines[:SHOWN_FIELDS]

    @property
    def more_lines(self) -> Sequence[Line]:
        """The fields that are shown when the user asks for them."""
        return self.lines[SHOWN_FIELDS:]


@dataclass(frozen=True)
class History:
    """One page of a record's history."""

    entries: list[Entry]
    """The newest first."""
    older: int | None
    """The id below which the next page begins; None: this is the last one."""
    keys: list[str]
    """The ids in the table under which the record was captured, as far as they are known."""
    sfid: str | None
    unsearched: int | None
    """See :class:`hc_signals.log.record.Found`."""
    is_recorded: bool
    """The database has the calls of receivers."""


def read_history(
    using: str, model: type[models.Model], named: RecordKeys, *, before: int, keys: Iterable[str], with_writes: bool
) -> History:
    """Return the page of changes with ids below ``before``.

    Args:
        keys: as the page before has returned them.
        with_writes: whether the entries of the trigger log are read, too.
    """
    named, found, changes = _changes(using, named, before, {*keys, *([named.key] if named.key else [])})
    known = {*keys, *([named.key] if named.key else []), *(c.record_key for c in changes if c.record_key)}
    older = found.ids[SHOWN - 1] if len(found.ids) > SHOWN else None
    entries = _entries(using, changes)
    entries += _table_entries(using, named.table, 0 if older is None else older - 1, before)
    if with_writes:
        since = _captured_at(using, older) if older is not None else None
        entries += _writes(using, model, named.sfid, known, (since, _captured_at(using, before)))
    entries.sort(key=lambda entry: entry.at, reverse=True)
    return History(entries, older, sorted(known), named.sfid, found.unsearched, heard.exists(using))


def _changes(
    using: str, named: RecordKeys, before: int, keys: set[str]
) -> tuple[RecordKeys, record.Found, list[Change]]:
    """Return the keys of the record as the log has them, the ids that were found, and the changes of the page."""
    found = record.changes_of(using, named, keys, before, SHOWN + 1)
    changes = _load(using, found.ids[:SHOWN])
    if named.sfid is None:
        sfid = next((each.record_id for each in changes if each.record_id), None)
        if sfid is None or named.in_table:  # another record had the id, before a reload
            return named, found, [each for each in changes if each.record_id is None]
        return _changes(using, RecordKeys(named.table, sfid, named.key, False), before, keys)
    more = {str(each.record_key) for each in changes if each.record_id} - keys
    if more:
        return _changes(using, named, before, keys | more)
    return named, found, [each for each in changes if each.record_id or _is_earlier(each, named, changes)]


def _is_earlier(change: Change, named: RecordKeys, changes: Sequence[Change]) -> bool:
    """Return whether a change without an sfid is of the record, and not of a later one with the same id."""
    of_key = [each.id for each in changes if each.record_id and each.record_key == change.record_key]
    return (named.in_table and change.record_key == named.key) or not of_key or change.id < of_key[0]


def _load(using: str, ids: Sequence[int]) -> list[Change]:
    rows = Change.objects.using(using).filter(pk__in=ids).order_by("-id") if ids else []
    return [_shortened(row) for row in rows]


def _shortened(row: Change) -> Change:
    for image in filter(None, (row.old, row.new)):
        for column, value in image.items():
            if isinstance(value, str) and len(value) > LONGEST_VALUE:
                image[column] = f"{value[:LONGEST_VALUE]}… ({len(value)} characters)"
    return row


def _entries(using: str, changes: Sequence[Change]) -> list[Entry]:
    ids = [change.id for change in changes]
    waiting = record.waiting_consumers(using, ids) if ids else {}
    calls: dict[int, list[Hearing]] = defaultdict(list)
    for call in heard.calls_of(using, ids) if ids and heard.exists(using) else ():
        calls[call.change_id].append(_hearing(call))
    stored: dict[int, list[Any]] = defaultdict(list)
    columns = ("pk", "change_id", "receiver", "state", "attempt", "next_attempt_at", "consumer")
    for delivery in Delivery.objects.using(using).filter(change_id__in=ids).only(*columns)[:SHOWN_OTHERS]:
        due = delivery.state == Delivery.State.RETRY and delivery.next_attempt_at
        delivery.next_attempt = f"{shown(due, zone=False)} ({until(due)})" if due else ""  # type: ignore[attr-defined]
        stored[delivery.change_id].append(delivery)
    return [
        Entry(
            aware(change.captured_at),
            change.operation.lower(),
            CHANGE_TYPE.get(change.operation, change.operation),
            change=change.id,
            of_record=True,
            note=_of_change(change),
            lines=_lines(change),
            calls=calls[change.id][:SHOWN_OTHERS],
            waiting=waiting.get(change.id, ()),
            deliveries=stored[change.id],
        )
        for change in changes
    ]


def _lines(change: Change) -> list[Line]:
    """Return the fields that an update has changed; all fields with a value of another change."""
    old, new, changed = change.old or {}, change.new or {}, frozenset(change.changed or ())
    if change.operation == "UPDATE":
        old, new = ({column: image.get(column) for column in changed} for image in (old, new))
    return [line for line in lines_of(change.table_name, old, new, changed) if line.changed]


def _of_change(change: Change) -> str:
    linked = is_link(change, change.old or {})  # type: ignore[arg-type]
    origin = "" if change.origin == mirror_origin() else f"Written by: {change.origin}."
    return " ".join(filter(None, (origin, "Salesforce has given the record its id." if linked else "")))


def _hearing(call: heard.HeardCall) -> Hearing:
    remarks = ["called once for several changes"] * call.in_bulk + ["replayed"] * call.is_replay
    return Hearing(
        visible(call.receiver if call.consumer == "default" else f"{call.receiver} (consumer {call.consumer})"),
        shown(call.heard_at, zone=False),
        _span(call.microseconds),
        call.attempt,
        "failed" if call.failed else "ok",
        ", ".join(remarks),
    )


def _span(microseconds: int) -> str:
    if microseconds < 1000:
        return f"{microseconds} µs"
    return f"{microseconds / 1000:.1f} ms" if microseconds < 1_000_000 else f"{microseconds / 1_000_000:.1f} s"


def _table_entries(using: str, table: str, after: int, before: int) -> list[Entry]:
    """Return the gaps, reloads and resyncs of the whole table."""
    found = record.table_changes(using, table, after, before, SHOWN_OTHERS)
    return [
        Entry(
            aware(row.captured_at),
            row.operation.lower(),
            CHANGE_TYPE.get(row.operation, row.operation),
            change=row.id,
            note=visible(
                ", ".join(["of the whole table", *(f"{key}: {value}" for key, value in (row.note or {}).items())])
            ),
        )
        for row in _load(using, found.ids)
    ]


def _captured_at(using: str, before: int) -> datetime | None:
    found = Change.objects.using(using).filter(pk=before).values_list("captured_at", flat=True).first()
    return aware(found)


def _writes(
    using: str,
    model: type[models.Model],
    sfid: str | None,
    keys: set[str],
    between: tuple[datetime | None, datetime | None],
) -> list[Entry]:
    """Return the app's writes and Salesforce's answers, from the trigger log of the model's schema and its archive."""
    schema, table = table_parts(model)
    ids = [int(key) for key in keys if key.isdigit() and len(key) < 10]
    since, end = between
    found: list[Entry] = []
    for log in trigger_log_of(schema) if ids else ():
        rows: Any = log.objects.using(using)
        if not rows.has_table():
            continue
        rows = rows.filter(
            Q(sf_id=None) | Q(sf_id=sfid) if sfid else Q(sf_id=None), table_name=table, record_id__in=ids
        )
        rows = rows.filter(created_at__gte=since) if since else rows
        rows = rows.filter(created_at__lt=end) if end else rows
        for row in rows.order_by("-id")[:SHOWN_OTHERS]:
            found += _write(row, f"{schema}.{table}")
    return found


def _write(row: Any, table: str) -> list[Entry]:
    created = aware(row.created_at)
    if created is None:
        return []
    try:
        new, old = row.values_as_dict, row.old_as_dict
    except ValueError:
        new, old = {"values": row.values}, {}
    if row.action == "UPDATE":
        old = {column: value for column, value in old.items() if column in new}
    lines = [line for line in lines_of(table, old, new, new) if line.changed]
    write = Entry(created, "write", f"Your app: {row.action}", note=f"State: {row.get_state_display()}.", lines=lines)
    answered = aware(row.processed_at or row.updated_at)
    if row.state not in ANSWERED or answered is None:
        return [write]
    badge = "dead" if row.state == TriggerLogState.FAILED else "insert"
    answer = Entry(answered, badge, f"Salesforce: {row.get_state_display()}", note=visible(row.sf_message or ""))
    return [write, answer]
