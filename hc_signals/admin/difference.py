"""The old and the new image of a change as lines of HTML: one per field, with the difference marked."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from django.db.models import DateTimeField
from django.utils.html import format_html

from hc_signals.admin.text import KEPT, shortened, visible
from hc_signals.postgres.moments import of_image, shown
from hc_signals.tables import model_of_table

LONG_TEXT = 60
"""Longest text that is marked as a whole. In longer ones the mark goes from the first to the last different word."""
LONGEST_PIECE = 400
"""Longest piece of a difference that is shown whole."""


@dataclass(frozen=True)
class Line:
    """One field."""

    name: str
    """Name of the field, or of the column if no field has it."""
    old: str
    new: str
    changed: bool
    """Old and new value differ."""
    longest: int = 0
    """Characters of the longer value if not all of them are shown, else 0."""


def difference(row: Any, whole: Collection[str] = ()) -> list[Line]:
    """Return the lines of a ``Change`` or ``Delivery``: changed fields first, then other differences, then the rest.

    All text is escaped. A column that one image lacks counts as NULL; one that the old image of an update lacks has not
    changed.

    Args:
        whole: names of fields whose values are not shortened.
    """
    old, new = row.old or {}, row.new or {}
    if row.operation == "UPDATE":
        old = new | old
    return lines_of(row.table_name, old, new, row.changed or (), whole)


def lines_of(
    table: str, old: Mapping[str, Any], new: Mapping[str, Any], changed: Collection[str], whole: Collection[str] = ()
) -> list[Line]:
    """Return the lines of two images of a table, named as in the log; ``changed`` are the columns to mark."""
    fields = _fields(table)
    columns = [*fields, *sorted((old.keys() | new.keys()) - fields.keys())]
    lines = [
        _Pair(fields.get(column), column, old.get(column), new.get(column)).line(column in changed, whole)
        for column in sorted(columns, key=lambda column: column not in changed)
        if column in old or column in new
    ]
    return sorted(lines, key=lambda line: not line.changed)


def field_name(table: str, column: str) -> str:
    """Return the name of the field that has the column, or the column if none has."""
    field = _fields(table).get(column)
    return str(field.name) if field else column


def _fields(table: str) -> Mapping[str, Any]:
    """Return the model's fields by their columns."""
    model = model_of_table(table)
    return {str(field.column): field for field in model._meta.local_concrete_fields} if model else {}


class _Pair:
    """The old and the new value of one column."""

    def __init__(self, field: Any, column: str, old: Any, new: Any) -> None:
        self.name = field.name if field else column
        self.differ = old != new
        is_time = isinstance(field, DateTimeField)
        self.texts = tuple(_time(value) if is_time else _text(value) for value in (old, new))

    def line(self, mark: bool, whole: Collection[str]) -> Line:
        """Return the line; ``mark`` if the change is about this column."""
        old, new = self.texts
        if self.name in whole:
            return Line(self.name, _shown(old), _shown(new), self.differ)
        longest = max(len(old or ""), len(new or ""))
        if old is not None and new is not None and old != new and longest > LONG_TEXT:
            return Line(self.name, *marked(old, new), True, longest * (longest > 3 * KEPT))
        before, after = _shown(old, mark and "del", LONGEST_PIECE), _shown(new, mark and "ins", LONGEST_PIECE)
        return Line(self.name, before, after, self.differ, longest * (longest > LONGEST_PIECE))


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _time(value: Any) -> str | None:
    """Return a time in the zone of the page."""
    found = of_image(value)
    if found is None:
        return _text(value)
    fraction = f".{found.microsecond:06}" if found.microsecond else ""
    return shown(found, zone=False) + fraction


def _shown(text: str | None, tag: str | bool = False, longest: int | None = None) -> str:
    if text is None:
        return format_html('<span class="hc-null">{}</span>', "NULL")
    return format_html("<{0}>{1}</{0}>", tag or "span", visible(shortened(text, longest or len(text))))


def marked(old: str, new: str) -> tuple[str, str]:
    """Return both texts as HTML, marked from the first to the last different word; equal ends are shortened."""
    before, after = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in (old, new))
    start = _equal(before, after)
    end = _equal(before[start:][::-1], after[start:][::-1])
    return _with_mark("del", before, start, end), _with_mark("ins", after, start, end)


def _equal(words: Sequence[str], others: Sequence[str]) -> int:
    """Return how many words at the beginning are equal."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(words, others, strict=False)))


def _with_mark(tag: str, words: Sequence[str], start: int, end: int) -> str:
    last = len(words) - end
    first, middle, rest = ("".join(words[a:b]) for a, b in ((0, start), (start, last), (last, None)))
    piece = format_html("<{0}>{1}</{0}>", tag, visible(shortened(middle, LONGEST_PIECE))) if middle else ""
    return format_html("{}{}{}", visible(shortened(first, 3 * KEPT)), piece, visible(shortened(rest, 3 * KEPT)))
