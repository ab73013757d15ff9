"""The changes of the log as lines: of text for people, or of JSON for programs. No value can steer a terminal."""

import json
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from django.db import models

from hc_signals.conf import mirror_origin
from hc_signals.delivery.event import COUNTS, cause_of
from hc_signals.delivery.routing import OF_RECORDS, counted_columns, is_link, route_of
from hc_signals.log.change import Change
from hc_signals.log.tail import TailChange
from hc_signals.postgres.moments import of_image, shown
from hc_signals.tables import counts_as_change, model_of_table, name_column

LONGEST_NAME = 40
"""Most columns of a record's name."""
UNLIMITED = 1_000_000_000
"""Columns of a line that is not for a terminal."""
VALUE_WIDTHS = (200, 80, 40, 24, 12)
"""Most columns of a value: the first at which the line fits the terminal. Without a terminal it is the first one."""

_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})
"""Unicode's categories of controls, direction marks, zero width characters, separators and unassigned characters."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

Paint = Callable[[str], str]


class Table(NamedTuple):
    """What is shown of the rows of one table."""

    label: str
    """``crm.Account``, or the table's name if no model has it."""
    entity_name: str
    fields: Mapping[str, str]
    """Names of the fields by column."""
    times: frozenset[str]
    """Columns with a date and a time."""
    name_column: str | None
    hidden: frozenset[str]
    """Columns that say nothing about a new record: its keys, its name, Heroku Connect's bookkeeping."""

    def field(self, column: str) -> str:
        """Return the name of the field with a column, or the column if none has it."""
        return self.fields.get(column, column)


@cache
def table_of(name: str) -> Table:
    """Return what is shown of a table, named as in the log."""
    model = model_of_table(name)
    if model is None:
        return Table(name, "", {}, frozenset(), None, frozenset({"id", "sfid"}))
    fields = model._meta.local_concrete_fields
    columns = {str(field.column): field.name for field in fields}
    times = frozenset(str(field.column) for field in fields if isinstance(field, models.DateTimeField))
    named = name_column(model)
    hidden = frozenset({"id", "sfid", "isdeleted", named or "", *(c for c in columns if not counts_as_change(c))})
    entity_name = str(getattr(model, "sf_object_name", ""))
    return Table(model._meta.label, entity_name, columns, times, named, hidden)


def json_line(found: TailChange) -> str:
    """Return a change as one JSON object, with the names of :class:`~hc_signals.events.ChangeEvent`.

    ``instance`` and ``previous`` have values as the log has them, by the names of fields. All but ASCII is escaped.
    """
    change, table = found.change, table_of(found.change.table_name)
    note = change.note or {}
    line: dict[str, Any] = {
        "change_type": route_of(change.operation).change_type,
        "change_origin": change.origin,
        "model": table.label,
        "entity_name": table.entity_name,
        "record_id": change.record_id,
        "record_key": change.record_key,
        "changed_fields": [table.field(column) for column in changed_columns(found)],
        "previous": {table.field(column): (found.old or {}).get(column) for column in changed_columns(found)},
        "transaction_key": change.xid,
        "sequence_number": change.id,
        "captured_at": change.captured_at.isoformat(),
        "replay_id": change.replay_id,
        "event_id": change.event_id,
        "cause": cause_of(change) if _is_gap(change) else "",
        "since": note.get("since"),
        "until": note.get("until"),
        "counts": {name: note[name] for name in COUNTS if name in note},
        "consumer": note.get("consumer"),
        "instance": _by_field(table, found.new or found.old),
    }
    return json.dumps(line)


def _by_field(table: Table, image: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if image is None else {table.field(column): value for column, value in image.items()}


def changed_columns(found: TailChange) -> Sequence[str]:
    """Return the columns that an update has changed; Heroku Connect's bookkeeping only if it has changed no other."""
    columns = counted_columns(found.change, is_link(found.change, found.old or {}))
    return columns or found.change.changed or ()


def _is_gap(change: Change) -> bool:
    return route_of(change.operation).change_type == "GAP_OVERFLOW"


class TextLines:
    """Writes changes as lines of text.

    Args:
        width: returns the columns of the terminal; 0 for none.
        paint: what colours a text, by change type, and for a ``record``.
        fields: names of the only fields to show; empty: all.
    """

    def __init__(self, width: Callable[[], int], paint: Mapping[str, Paint], fields: Collection[str] = ()) -> None:
        self._width, self._paint, self._fields = width, paint, fields
        self._usual = mirror_origin()

    def __call__(self, found: TailChange) -> str:
        """Return the line of a change."""
        change, table = found.change, table_of(found.change.table_name)
        kind = route_of(change.operation).change_type
        origin = "" if change.origin == self._usual else f" by {visible(change.origin)}"
        room = self._width() or UNLIMITED
        head = [shown(change.captured_at, zone=False), kind + origin, visible(table.label)]
        head.append(clipped(_record(found, table), min(LONGEST_NAME, room - _columns_of(head))))
        room -= _columns_of(head)
        rest = self._values(found, table, room) if change.operation in OF_RECORDS else _about_table(change, room)
        head[1], head[3] = self._painted(kind, head[1]), self._painted("record", head[3])
        return "  ".join(filter(None, [*head, rest]))

    def _painted(self, kind: str, text: str) -> str:
        return self._paint[kind](text) if text and kind in self._paint else text

    def _values(self, found: TailChange, table: Table, room: int) -> str:
        pairs = [pair for pair in _pairs(found, table) if not self._fields or pair[0] in self._fields]
        parts: list[str] = []
        for longest in VALUE_WIDTHS:
            parts = [
                f"{visible(name)}: {' → '.join(clipped(each, longest) for each in values)}" for name, values in pairs
            ]
            if width_of(", ".join(parts)) <= room:
                return ", ".join(parts)
        return _fitting(parts, room)


def _pairs(found: TailChange, table: Table) -> list[tuple[str, tuple[str, ...]]]:
    """Return the fields to show: those of an update with the old and the new value, those of a new record with one."""
    old, new = found.old or {}, found.new or {}
    if found.change.operation == "UPDATE":
        columns = changed_columns(found)
        return [(visible(table.field(c)), (_text(table, c, old.get(c)), _text(table, c, new.get(c)))) for c in columns]
    kept = {c: value for c, value in new.items() if value is not None and c not in table.hidden}
    return [(visible(table.field(column)), (_text(table, column, value),)) for column, value in kept.items()]


def _text(table: Table, column: str, value: Any) -> str:
    if column in table.times and (when := of_image(value)) is not None:
        return shown(when, zone=False)
    return visible(value if isinstance(value, str) else "NULL" if value is None else json.dumps(value))


def _record(found: TailChange, table: Table) -> str:
    """Return the name of the record, else its sfid, else its key."""
    name = (found.new or found.old or {}).get(table.name_column or "")
    return visible(str(name or found.change.record or ""))


def _about_table(change: Change, room: int) -> str:
    """Return what a row of a whole table says."""
    note = change.note or {}
    times = [shown(when) for when in (change.noted_time("since"), change.noted_time("until")) if when]
    counts = [f"{note[name]} {name}" for name in COUNTS if name in note]
    says = [f"changes may be missing: {cause_of(change)}"] if _is_gap(change) else [", ".join(counts)]
    says += [" to ".join(times)] if times else []
    says += [f"for consumer {note['consumer']}"] if note.get("consumer") else []
    return clipped(visible(", ".join(says)), room)


def _fitting(parts: Sequence[str], room: int) -> str:
    """Return as many parts as fit, and the number of the others."""
    for count in range(len(parts) - 1, 0, -1):
        text = f"{', '.join(parts[:count])}, and {len(parts) - count} more"
        if width_of(text) <= room:
            return text
    return clipped(f"{len(parts)} fields", room) if room > 0 else ""


def _columns_of(texts: Sequence[str]) -> int:
    """Return the columns of the texts, each with the gap behind it."""
    return sum(width_of(text) + 2 for text in texts if text)


def visible(text: str) -> str:
    """Return a text in which each character that a terminal obeys or hides is escaped, such as ``\\x1b``."""
    return text if text.isascii() and text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _INVISIBLE:
        return character
    return _SHORT.get(character) or character.encode("unicode_escape").decode()


def width_of(text: str) -> int:
    """Return the columns that a text takes in a terminal."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clipped(text: str, most: int) -> str:
    """Return a text that takes at most ``most`` columns, the last of them an ellipsis if it was cut."""
    if width_of(text) <= most:
        return text
    used = 0
    for index, character in enumerate(text):
        used += _columns(character)
        if used > most - 1:
            return f"{text[:index]}…"[: max(most, 0)]
    return text
