"""Which columns a capture function was made for, written into it as comments; *fresh* are those it has only just got.

After Heroku Connect has mapped one more field it writes every row: NULL becomes a value in a fresh column, and that is
no change of the record.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

_COLUMNS = "-- Columns: "
_FRESH = re.compile(r"^-- Fresh since (\S+): (.*)$", re.MULTILINE)
FRESH_MARK = "-- Fresh since "
"""In the source of a function that has fresh columns."""


@dataclass(frozen=True)
class Layout:
    """The columns of one capture function."""

    columns: tuple[str, ...] = ()
    """Mapped columns that the table has."""
    fresh: tuple[str, ...] = ()
    since: str = ""
    """When the fresh ones appeared, in ISO format."""

    def comment(self) -> str:
        """Return the layout as the lines that :func:`read_layout` understands."""
        lines = [_COLUMNS + json.dumps(self.columns)]
        if self.fresh:
            lines.append(f"{FRESH_MARK}{self.since}: {json.dumps(self.fresh)}")
        return "\n".join(lines)

    def with_fresh_of(self, installed: "Layout | None") -> "Layout":
        """Return the same columns, with those fresh that are so in the installed function."""
        if installed is None:
            return self
        fresh = tuple(column for column in self.columns if column in installed.fresh)
        return Layout(self.columns, fresh, installed.since if fresh else "")

    def after(self, installed: "Layout | None", now: str) -> "Layout":
        """Return the layout of the function that replaces the installed one: what that did not know is fresh."""
        if installed is None:
            return self
        known = set(installed.columns) - set(installed.fresh)
        fresh = tuple(column for column in self.columns if column not in known)
        if set(fresh) <= set(installed.fresh):
            return self.with_fresh_of(installed)
        return Layout(self.columns, fresh, now)


def read_layout(source: str) -> Layout | None:
    """Return the layout of an installed function; None if it tells none."""
    columns: Sequence[str] | None = None
    for line in source.splitlines():
        if line.startswith(_COLUMNS):
            columns = json.loads(line[len(_COLUMNS) :])
            break
    if columns is None:
        return None
    found = _FRESH.search(source)
    fresh = tuple(json.loads(found.group(2))) if found else ()
    return Layout(tuple(columns), fresh, found.group(1) if found else "")
