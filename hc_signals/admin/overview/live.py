"""The live tail: the newest changes, for a page that asks every two seconds.

It polls. A stream would hold one of a WSGI server's workers for each open page, and Heroku's router ends a stream that
is silent for a minute. Between two questions the page keeps its place in the log, and the server keeps nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.admin import AdminSite
from django.urls import reverse

from hc_signals.admin.difference import Line, lines_of
from hc_signals.admin.filters import CHANGE_TYPE
from hc_signals.admin.links import row_timeline_url
from hc_signals.admin.records import LONGEST_NAME, may_see
from hc_signals.admin.text import cut, visible
from hc_signals.log import tail
from hc_signals.log.schema import Cause
from hc_signals.log.tail import Place, TailChange
from hc_signals.postgres.moments import shown
from hc_signals.tables import model_of_table, name_column

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
    operation: str
    type: str
    model: str
    record: str
    url: str | None
    """Of the change."""
    timeline: str | None
    """Of the record."""
    name: str
    lines: list[Line]
    """The changed fields with their values, if the user may see these."""
    more: int
    """Number of changed fields that are not among the lines."""
    fields: str
    """Names of the changed fields."""


def answer(using: str, token: str, user: Any, site: AdminSite) -> dict[str, Any]:
    """Return the context of the template.

    Args:
        token: the place up to which the page was read; empty: it begins.

    Raises:
        ValueError: the token is not one of ours.
        DatabaseError: the log cannot be read.
    """
    place = Place.of_token(token) if token else tail.start_with_newest(using, FIRST, tail.EVERYTHING)
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


class _Reader:
    """Shows changes to one user; finds for each table once what the user may see of it."""

    def __init__(self, user: Any, site: AdminSite) -> None:
        self.user, self.site = user, site
        self.may_view = user.has_perm("hc_signals.view_change")
        self._tables: dict[str, _Table] = {}

    def row(self, found: TailChange) -> Row:
        """Return a change as the user may see it."""
        change, changed = found.change, found.change.changed or []
        about = self._table(change.table_name)
        values = _values(found, changed[:FIELDS]) if about.has_values else []
        return Row(
            time=shown(change.captured_at, zone=False),
            operation=change.operation.lower(),
            type=CHANGE_TYPE.get(change.operation, change.operation),
            model=about.label,
            record=visible(change.record or "-"),
            url=self._url(change.id) if self.may_view else None,
            timeline=row_timeline_url(self.site.name, change) if about.has_values else None,
            name=_name(found, about.name_column) if about.has_values else "",
            lines=values,
            more=len(changed) - FIELDS,
            fields=", ".join(about.fields.get(column, column) for column in changed[:NAMES]),
        )

    def _table(self, table: str) -> "_Table":
        if table not in self._tables:
            self._tables[table] = _Table.of(table, self.may_view and may_see(self.user, table))
        return self._tables[table]

    def _url(self, change_id: int) -> str:
        return reverse("admin:hc_signals_change_change", args=[change_id], current_app=self.site.name)


@dataclass(frozen=True)
class _Table:
    label: str
    has_values: bool
    """The user may see values of its records."""
    name_column: str | None
    fields: Mapping[str, str]
    """Names of the fields by column."""

    @classmethod
    def of(cls, table: str, has_values: bool) -> "_Table":
        model = model_of_table(table)
        if model is None:
            return cls(table, has_values, None, {})
        fields = {str(each.column): str(each.name) for each in model._meta.local_concrete_fields}
        return cls(model._meta.label, has_values, name_column(model), fields)


def _values(found: TailChange, columns: Sequence[str]) -> list[Line]:
    old, new = ({column: (image or {}).get(column) for column in columns} for image in (found.old, found.new))
    return lines_of(found.change.table_name, old, new, columns)


def _name(found: TailChange, column: str | None) -> str:
    name = (found.new or found.old or {}).get(column or "")
    return visible(cut(str(name), LONGEST_NAME)) if name else ""
