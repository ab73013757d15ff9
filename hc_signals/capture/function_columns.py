"""Which columns a capture function was made for, written into it as comments; *fresh* are those it has only just got.

After Heroku Connect has mapped one more field it writes every row: NULL becomes a value in a fresh column, and that is
no change of the record.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime

_COLUMNS = "-- Columns: "
_FRESH = re.compile(r"^-- Fresh since (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*): (.*)$", re.MULTILINE)
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
    """Return the layout of an installed function; None if it tells none, or none that can be read.

    Somebody may have edited it.
    """
    columns = [line.removeprefix(_COLUMNS) for line in source.splitlines() if line.startswith(_COLUMNS)]
    marked = source.count(f"\n{FRESH_MARK}")
    fresh = _FRESH.findall(source)
    if len(columns) != 1 or marked != len(fresh) or len(fresh) > 1:
        return None
    try:
        since, names = fresh[0] if fresh else ("", "[]")
        if since:
            datetime.fromisoformat(since)
        return Layout(_names(columns[0]), _names(names), since)
    except (ValueError, RecursionError):  # no JSON, no names, no time; or JSON too deep to be read
        return None


def _names(text: str) -> tuple[str, ...]:
    """Return a list of names in JSON.

    Raises:
        ValueError: it is none.
    """
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(text)
    return tuple(names)
