"""The live tail: the newest changes, for a page that asks every two seconds.

It polls. A stream would hold one of a WSGI server's workers for each open page, and Heroku's router ends a stream that
is silent for a minute. Between two questions the page keeps its place in the log, and the server keeps nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.contrib.admin import AdminSite
from django.urls import reverse

from hc_signals.admin.difference import Line, field_name, lines_of
from hc_signals.admin.filters import CHANGE_TYPE
from hc_signals.admin.records import LONGEST_NAME, may_see
from hc_signals.admin.text import cut, visible
from hc_signals.log import tail
from hc_signals.log.schema import Cause
from hc_signals.log.tail import Place, TailChange
from hc_signals.postgres.moments import shown
from hc_signals.tables import model_label, model_of_table, name_column

EVERY_SECONDS = 2
LIMIT = 50
"""Most changes of one answer; of more, the newest are shown."""
FIRST = 10
"""Changes that the first answer shows, which happened before."""
FIELDS = 3
"""Most fields of a change whose values are shown."""
NAMES = 12
"""Most fields of a change that are named."""

MISSED: Mapping[Cause, str] = {
    Cause.EMPTIED: "Changes were removed from the log before they were read here.",
    Cause.CAPTURE_FAILED: "Changes were not captured.",
    Cause.RESTORED: "Another database answers: it was restored, or the address leads to another one.",
    Cause.FAILED_OVER: "Another server answers: a standby was promoted, or the server was recovered.",
}


@dataclass(frozen=True)
class Row:
    """One change, as the template writes it; texts of records are safe HTML."""

    time: str
    time_iso: str
    operation: str
    type: str
    model: str
    record: str
    url: str | None
    name: str
    lines: list[Line] = field(default_factory=list)
    """The changed fields with their values, if the user may see these."""
    more: int = 0
    """Number of changed fields that are not among the lines."""
    fields: str = ""
    """Names of the changed fields."""


def answer(using: str, token: str, user: Any, site: AdminSite) -> dict[str, Any]:
    """Return the context of the template.

    Args:
        token: the place up to which the page was read; empty: it begins.

    Raises:
        ValueError: the token is not one of ours.
        DatabaseError: the log cannot be read.
    """
    place = Place.of_token(token) if token else _start(using)
    found = tail.read(using, place, limit=LIMIT, may_skip=True)
    reader = _Reader(user, site)
    notes = [MISSED.get(cause, f"Changes may be missing: {cause}.") for cause in found.missed] if token else []
    if found.skipped and token:
        notes.append(f"{found.skipped} older changes are not shown here: there are too many.")
    return {
        "place": found.place.token(),
        "more": found.more,
        "changes": [reader.row(each) for each in reversed(found.changes)],
        "notes": notes,
    }


def _start(using: str) -> Place:
    newest = tail.start(using).last_id
    return tail.start(using, first=max(1, newest - FIRST + 1))


class _Reader:
    """Shows changes to one user; asks for each table once what the user may see of it."""

    def __init__(self, user: Any, site: AdminSite) -> None:
        self.user, self.site = user, site
        self.may_view = user.has_perm("hc_signals.view_change")
        self._tables: dict[str, tuple[str, bool, str | None]] = {}

    def row(self, found: TailChange) -> Row:
        change = found.change
        label, may_see_values, name_of = self._table(change.table_name)
        url = reverse("admin:hc_signals_change_change", args=[change.id], current_app=self.site.name)
        changed = change.changed or []
        row = Row(
            time=shown(change.captured_at, zone=False),
            time_iso=change.captured_at.isoformat(),
            operation=change.operation.lower(),
            type=CHANGE_TYPE.get(change.operation, change.operation),
            model=label,
            record=visible(change.record or "-"),
            url=url if self.may_view else None,
            name=...,
        )
        return row
