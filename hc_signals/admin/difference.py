"""The old and the new image of a change as lines of HTML: one per field, with the difference marked."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from django.utils.html import format_html

from hc_signals.tables import connected_models, table_label

LONG_TEXT = 60
"""Longest text that is marked as a whole. In longer ones the mark goes from the first to the last different word."""
KEPT = 40
"""Characters that remain at each end of a shortened piece."""
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


def difference(row: Any) -> list[Line]:
    """Return the lines of a ``Change`` or ``Delivery``: changed fields first, then other differences, then the rest.

    All text is escaped. A column that one image lacks counts as NULL; one that the old image of an update lacks has not
    changed.
    """
    about = frozenset(row.changed or ())
    old, new = row.old or {}, row.new or {}
    if row.operation == "UPDATE":
        old = new | old
    names = _field_names(row.table_name)
    columns = [*names, *sorted((old.keys() | new.keys()) - names.keys())]
    lines = [
        _line(names.get(column, column), old.get(column), new.get(column), column in about)
        for column in sorted(columns, key=lambda column: column not in about)
        if column in old or column in new
    ]
    return sorted(lines, key=lambda line: not line.changed)


def field_name(table: str, column: str) -> str:
    """Return the name of the field that has the column, or the column if none has."""
    return _field_names(table).get(column, column)


def _field_names(table: str) -> Mapping[str, str]:
    for model in connected_models():
        if table_label(model) == table:
            return {str(field.column): field.name for field in model._meta.local_concrete_fields}
    return {}


def _line(name: str, old: Any, new: Any, mark: bool) -> Line:
    if isinstance(old, str) and isinstance(new, str) and old != new and max(len(old), len(new)) > LONG_TEXT:
        return Line(name, *marked(old, new), changed=True)
    return Line(name, _shown(old, "del" if mark else "span"), _shown(new, "ins" if mark else "span"), old != new)


def _shown(value: Any, tag: str) -> str:
    if value is None:
        return format_html('<span class="hc-null">{}</span>', "NULL")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return format_html("<{0}>{1}</{0}>", tag, _shortened(text, LONGEST_PIECE))


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
    piece = format_html("<{0}>{1}</{0}>", tag, _shortened(middle, LONGEST_PIECE)) if middle else ""
    return format_html("{}{}{}", _shortened(first, 3 * KEPT), piece, _shortened(rest, 3 * KEPT))


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return f"{text[:KEPT]} … {len(text) - 2 * KEPT} characters … {text[-KEPT:]}"
