"""The columns that a capture function was generated for, as comments in its source; new ones among them are *fresh*.

After Heroku Connect has mapped one more field it writes every row. The first value in a fresh column, instead of NULL,
is not a change of the record.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

_COLUMNS = "-- Columns: "
_FRESH = re.compile(r"^-- Fresh since (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*): (.*)$", re.MULTILINE)
_FRESH_MARK = "-- Fresh since "


@dataclass(frozen=True)
class Layout:
    """The columns of one capture function."""

    columns: tuple[str, ...] = ()
    """Mapped columns that the table has."""
    fresh: tuple[str, ...] = ()
    """Those that no function before has captured."""
    since: str = ""
    """ISO time at which the fresh columns appeared; empty if there are none."""

    @cached_property
    def id(self) -> int:
        """The number of this layout in the log: a digest of the columns."""
        digest = hashlib.sha256(json.dumps(self.columns).encode()).digest()
        return int.from_bytes(digest[:8], signed=True) or 1

    def comment(self) -> str:
        """Return the layout as comments, which :func:`read_layout` reads."""
        # hc_signals_columns() reads both lines if the layout is not stored.
        lines = [_COLUMNS + json.dumps(self.columns), f"-- Layout: {self.id}"]
        if self.fresh:
            lines.append(f"{_FRESH_MARK}{self.since}: {json.dumps(self.fresh)}")
        return "\n".join(lines)

    def with_fresh_of(self, installed: "Layout | None") -> "Layout":
        """Return the same columns, fresh if they are fresh in the installed function."""
        if installed is None:
            return self
        fresh = tuple(column for column in self.columns if column in installed.fresh)
        return Layout(self.columns, fresh, installed.since if fresh else "")

    def after(self, installed: "Layout | None", now: str) -> "Layout":
        """Return the layout of the function that replaces the installed one ``now`` (ISO); new columns are fresh."""
        if installed is None:
            return self
        known = set(installed.columns) - set(installed.fresh)
        fresh = tuple(column for column in self.columns if column not in known)
        if set(fresh) <= set(installed.fresh):
            return self.with_fresh_of(installed)
        return Layout(self.columns, fresh, now)


def read_layout(source: str) -> Layout | None:
    """Return the layout in the source of a function; None if it has none, or a person has made it unreadable."""
    columns = [line.removeprefix(_COLUMNS) for line in source.splitlines() if line.startswith(_COLUMNS)]
    marked = source.count(f"\n{_FRESH_MARK}")
    fresh = _FRESH.findall(source)
    if len(columns) != 1 or marked != len(fresh) or len(fresh) > 1:
        return None
    try:
        since, names = fresh[0] if fresh else ("", "[]")
        if since:
            datetime.fromisoformat(since)
        return Layout(_names(columns[0]), _names(names), since)
    except (ValueError, RecursionError):  # no JSON, no names, no time; or JSON that is nested too deeply
        return None


def _names(text: str) -> tuple[str, ...]:
    """Return the names in a JSON list of strings; raise ValueError if the text is none."""
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(text)
    return tuple(names)
