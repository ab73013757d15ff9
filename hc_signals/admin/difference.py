"""The old and the new image of a change as lines to read: one per field, what differs marked."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from django.utils.html import format_html, format_html_join

from hc_signals.tables import connected_models, table_label

LONG_TEXT = 60
"""Texts up to this length are shown side by side; in longer ones the words that differ are marked."""
KEPT = 40
"""Characters that are left at each end of a piece that is shortened."""
LONGEST_PIECE = 400
"""A piece that differs is shortened beyond this."""
COMPARED = 1_000_000
"""Word pairs that are compared: beyond it the middle of two texts counts as different altogether."""


@dataclass(frozen=True)
class Line:
    """One field."""

    name: str
    """Of the field, or of the column if no field has it."""
    old: str
    new: str
    changed: bool
    """The two differ."""


def difference(row: Any) -> list[Line]:
    """Return the lines of a ``Change`` or ``Delivery``: first what the change is about, then what else differs.

    HTML, escaped. What one image lacks counts as NULL; what the old one of an update lacks has not changed.
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
    """Return both texts as HTML with the words marked that differ; what is equal around them is shortened."""
    before, after, steps = _steps(old, new)
    return (
        _pieces("del", ((kind, "".join(before[a:b])) for kind, a, b, _, _ in steps)),
        _pieces("ins", ((kind, "".join(after[c:d])) for kind, _, _, c, d in steps)),
    )


def _steps(old: str, new: str) -> tuple[list[str], list[str], list[tuple[str, int, int, int, int]]]:
    """Return the words of both and how to come from one to the other, in the form of difflib's opcodes."""
    before, after = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in (old, new))
    least = min(len(before), len(after))
    start = next((n for n in range(least) if before[n] != after[n]), least)
    end = next((n for n in range(least - start) if before[-1 - n] != after[-1 - n]), least - start)
    last, other_last = len(before) - end, len(after) - end
    # Quadratic in the worst case, so only what lies between the common ends, and not of any length.
    if (last - start) * (other_last - start) > COMPARED:
        middle = [("replace", start, last, start, other_last)]
    else:
        found = SequenceMatcher(None, before[start:last], after[start:other_last], autojunk=False).get_opcodes()
        middle = [(kind, a + start, b + start, c + start, d + start) for kind, a, b, c, d in found]
    first = ("equal", 0, start, 0, start)
    return before, after, [first, *middle, ("equal", last, len(before), other_last, len(after))]


def _pieces(tag: str, pieces: Iterable[tuple[str, str]]) -> str:
    shown = [(kind, text) for kind, text in pieces if text]
    return format_html_join("", "{}", ((_piece(tag, kind, text),) for kind, text in shown))


def _piece(tag: str, kind: str, text: str) -> str:
    if kind == "equal":
        return format_html("{}", _shortened(text, 3 * KEPT))
    return format_html("<{0}>{1}</{0}>", tag, _shortened(text, LONGEST_PIECE))


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return f"{text[:KEPT]} … {len(text) - 2 * KEPT} characters … {text[-KEPT:]}"
