"""The change log in the admin: the newest changes first, and each change field by field."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode

from hc_signals.admin.base import ReadOnlyAdmin
from hc_signals.admin.difference import difference, field_name
from hc_signals.admin.filters import CHANGE_TYPE, ChangeTypeFilter, ModelFilter, SinceFilter, UntilFilter
from hc_signals.admin.log_window import LogWindow, search
from hc_signals.log.figures import summaries
from hc_signals.models import Change
from hc_signals.postgres.moments import shown
from hc_signals.tables import model_label

SHORT_SFID = 15
"""Characters of the sfid on Salesforce's older pages, which leave out the last three."""
SHOWN_VALUE = 40
"""Most characters of a value in the list."""


class ChangeLogList(ChangeList):
    """One page of the log: a window of ids instead of a count and numbered pages.

    Django's page number is the id below which the page begins. Links of the filters leave it out, so they begin at the
    newest change again.
    """

    window: LogWindow

    def get_results(self, request: HttpRequest) -> None:
        """Read the page."""
        moments = {type(spec): spec.moment() for spec in self.filter_specs if hasattr(spec, "moment")}
        self.window = search(
            self.queryset.defer("old", "new"),
            before=self.page_num if self.page_num > 1 else None,
            limit=self.list_per_page,
            since=moments.get(SinceFilter),
            until=moments.get(UntilFilter),
        )
        rows = list(self.window.rows)
        found = summaries(self.queryset.db, [row.id for row in rows])
        for row in rows:
            row.summary = found.get(row.id, [])
        self.result_list, self.result_count, self.full_result_count = rows, len(rows), None
        self.show_full_result_count = self.show_admin_actions = self.multi_page = False
        self.can_show_all = True
        self.paginator = None

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[Any]:
        """Return the order that an index has; the address cannot change it."""
        return ["-id"]

    @property
    def captured(self) -> str:
        """The times of the oldest and the newest change of the window; empty if it has none."""
        oldest, newest = self.window.times
        return f"{shown(oldest, zone=False)} to {shown(newest, zone=False)}" if oldest and newest else ""

    @property
    def older_url(self) -> str | None:
        """The link to older changes; None at the end of the log."""
        return None if self.window.older is None else self.get_query_string({"p": self.window.older + 1})


@admin.register(Change)
class ChangeAdmin(ReadOnlyAdmin):
    """The list of changes and the page of each."""

    list_display = ("id", "captured", "change_type", "model_and_record", "summary")
    list_filter = (SinceFilter, UntilFilter, ModelFilter, ChangeTypeFilter)
    conditions = frozenset({"since", "until", "table_name", "operation"})
    search_fields = ("record_id",)
    search_help_text = "The exact sfid of a record (15 or 18 characters), or its exact id in the table."
    fields = ("captured", "model_name", "change_type", "record", "origin", "note")
    readonly_fields = fields
    change_form_template = "admin/hc_signals/image_form.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list without a count."""
        return ChangeLogList

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Keep the changes of the record that the term names."""
        term = search_term.strip()
        if term:
            sfid = "record_id__startswith" if len(term) == SHORT_SFID else "record_id"
            queryset = queryset.filter(Q((sfid, term)) | Q(record_key=term))
        return queryset, False

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the lines of the difference."""
        context["lines"] = difference(context["original"])
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="captured at")
    def captured(self, change: Any) -> str:
        """Return the time with its seconds, in the time zone of the admin."""
        return shown(change.captured_at, zone=False)

    @admin.display(description="model")
    def model_name(self, change: Any) -> str:
        """Return the model, or the table if no model has it."""
        return model_label(change.table_name)

    @admin.display(description="change type")
    def change_type(self, change: Any) -> str:
        """Return the change type in its colour."""
        name = CHANGE_TYPE.get(change.operation, change.operation)
        return format_html('<span class="hc-badge hc-{}">{}</span>', change.operation.lower(), name)

    @admin.display(description="record")
    def record(self, change: Any) -> str:
        """Link to all changes of the record."""
        key = change.record_id or change.record_key
        if key is None:
            return "-"
        url = reverse("admin:hc_signals_change_changelist", current_app=self.admin_site.name)
        return format_html('<a href="{}?{}">{}</a>', url, urlencode({"q": key, "table_name": change.table_name}), key)

    @admin.display(description="record")
    def model_and_record(self, change: Any) -> str:
        """Return both in one column, to leave room for the summary."""
        return format_html("{}<br>{}", self.model_name(change), self.record(change))

    @admin.display(description="what changed")
    def summary(self, change: Any) -> str:
        """Return the first changed fields with their old and new values."""
        table = change.table_name
        lines = [(field_name(table, column), _cut(old), _cut(new)) for column, old, new, _ in change.summary]
        text = format_html_join("", '<div class="hc-line"><b>{}</b>: <del>{}</del> → <ins>{}</ins></div>', lines)
        more = change.summary[0][3] if change.summary else 0
        return format_html("{}<div>and {} more</div>", text, more) if more > 0 else text or _note(change)


def _cut(text: str | None) -> str:
    if text is None:
        return "-"
    return text if len(text) <= SHOWN_VALUE else f"{text[:SHOWN_VALUE]}…"


def _note(change: Any) -> str:
    return "" if change.note is None else ", ".join(f"{key}: {value}" for key, value in change.note.items())
