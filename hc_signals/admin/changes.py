"""The change log in the admin: the newest changes first, and each change field by field."""

from collections import Counter
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode

from hc_signals.admin.base import database, first_rows
from hc_signals.admin.difference import difference, field_name
from hc_signals.admin.filters import (
    CHANGE_TYPE,
    ChangeTypeFilter,
    FailureFilter,
    ModelFilter,
    SinceFilter,
    UntilFilter,
)
from hc_signals.admin.links import timeline_link
from hc_signals.admin.log_window import LogWindow, search
from hc_signals.admin.records import HIDDEN, link_to_page, name_of, record_url, seen_by
from hc_signals.admin.text import cut, visible
from hc_signals.admin.timeline import TimelineAdmin
from hc_signals.log.figures import summaries
from hc_signals.models import Change, Delivery
from hc_signals.postgres.moments import shown
from hc_signals.tables import model_label

PART_OF_SFID = 5
"""Fewest characters of a search that also finds parts of sfids: shorter numbers are in most of them."""
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
            self.queryset.defer("old", "new", "image"),
            before=self.page_num if self.page_num > 1 else None,
            limit=self.list_per_page,
            since=moments.get(SinceFilter),
            until=moments.get(UntilFilter),
        )
        rows = list(self.window.rows)
        found = summaries(self.queryset.db, [row.id for row in rows if not row.is_hidden])
        may_see_failures = request.user.has_perm("hc_signals.view_delivery")
        failures = _failures(self.queryset.db, [row.id for row in rows] if may_see_failures else [])
        for row in rows:
            row.summary, row.failures = found.get(row.id, []), failures[row.id]
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
class ChangeAdmin(TimelineAdmin):
    """The list of changes and the page of each."""

    change_list_template = "admin/hc_signals/changes.html"
    list_display = ("id", "captured", "change_type", "model_and_record", "summary")
    list_filter = (SinceFilter, UntilFilter, ModelFilter, ChangeTypeFilter, FailureFilter)
    conditions = frozenset({"since", "until", "table_name", "operation", "failure"})
    search_fields = ("record_id",)
    search_help_text = (
        "A part of the record's name, a part of its sfid "
        f"({PART_OF_SFID} characters or more), or its exact id in the table."
    )
    fields = ("captured", "model_name", "change_type", "record", "origin", "deliveries", "note")
    readonly_fields = fields
    change_form_template = "admin/hc_signals/image_form.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list without a count."""
        return ChangeLogList

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the changes with the names of their records, if the user may see them."""
        return super().get_queryset(request).annotate(**seen_by(request.user, has_image=True))

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Keep the changes of the records that the term names."""
        term = search_term.strip()
        if term:
            found = Q(record_key=term) | Q(record_name__icontains=term)
            found |= Q(record_id__contains=term) if len(term) >= PART_OF_SFID else Q(record_id=term)
            queryset = queryset.filter(found)
        return queryset, False

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the lines of the difference, the link to the record and the stored deliveries."""
        change, whole = context["original"], request.GET.getlist("all")
        change.page_url = record_url(self.admin_site, request.user, change)
        change.deliveries = self._deliveries(change) if request.user.has_perm("hc_signals.view_delivery") else "-"
        if change.is_hidden:
            context["hidden"] = HIDDEN.format(model_label(change.table_name))
        else:
            context |= {"lines": difference(change, whole), "is_whole": bool(whole)}
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
        """Return the name, the link to all changes of the record, and the one to its own page."""
        key = change.record_id or change.record_key
        if key is None:
            return "-"
        url = reverse("admin:hc_signals_change_changelist", current_app=self.admin_site.name)
        link = format_html(
            '<a href="{}?{}">{}</a>', url, urlencode({"q": key, "table_name": change.table_name}), visible(key)
        )
        timeline = timeline_link(self.admin_site.name, change)
        return format_html("{}{}{} {}", name_of(change), link, link_to_page(change), timeline)

    @admin.display(description="record")
    def model_and_record(self, change: Any) -> str:
        """Return both in one column, to leave room for the summary."""
        return format_html("{}<br>{}", self.model_name(change), self.record(change))

    @admin.display(description="stored deliveries")
    def deliveries(self, change: Any) -> str:
        """Link to the stored deliveries of the change."""
        return str(change.deliveries)

    @admin.display(description="what changed")
    def summary(self, change: Any) -> str:
        """Return the first changed fields with their old and new values, and how many deliveries have failed."""
        table = change.table_name
        lines = [(field_name(table, column), _value(old), _value(new)) for column, old, new, _ in change.summary]
        text = format_html_join("", '<div class="hc-line"><b>{}</b>: <del>{}</del> → <ins>{}</ins></div>', lines)
        more = change.summary[0][3] if change.summary else 0
        rest = format_html("<div>and {} more</div>", more) if more > 0 else ""
        hidden = format_html('<div class="hc-quiet">{}</div>', HIDDEN.format(model_label(table)))
        failures = self._failures(change.id, change.failures) if change.failures else ""
        return format_html("{}{}{}{}", text, rest, hidden if change.is_hidden else _note(change), failures)

    def _failures(self, change_id: int, count: int) -> str:
        text = f"{count} stored {'delivery' if count == 1 else 'deliveries'}"
        return format_html('<div><a href="{}">{}</a></div>', self._deliveries_url(change_id), text)

    def _deliveries(self, change: Any) -> str:
        by_state = Delivery.objects.using(database()).filter(change_id=change.id).order_by().values_list("state")
        counts = [f"{count} {state}" for state, count in sorted(by_state.annotate(Count("id")))]
        url = self._deliveries_url(change.id)
        return format_html('<a href="{}">{}</a>', url, ", ".join(counts)) if counts else "none"

    def _deliveries_url(self, change_id: int) -> str:
        url = reverse("admin:hc_signals_delivery_changelist", current_app=self.admin_site.name)
        return f"{url}?{urlencode({'change_id': change_id})}"


def _failures(using: str, ids: list[int]) -> Counter[int]:
    """Return how many deliveries of each change are stored, among the newest ones: no index has the change."""
    newest = first_rows(Delivery.objects.using(using).order_by("-id").values_list("change_id", flat=True))
    wanted = set(ids)
    return Counter(each for each in newest if each in wanted)


def _value(text: str | None) -> str:
    return "-" if text is None else visible(cut(text, SHOWN_VALUE))


def _note(change: Any) -> str:
    return "" if change.note is None else ", ".join(f"{key}: {value}" for key, value in change.note.items())
