"""The bases of our pages, and the limit up to which the admin counts lists and acts on their rows."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import router
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.functional import cached_property

from hc_signals.models import Change
from hc_signals.postgres.moments import zone_name
from hc_signals.postgres.query import relation_exists
from hc_signals.tables import quoted_table

READING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""The methods that change nothing."""

COUNTED_ROWS = 10_000
"""Most rows that the admin counts and acts on at once; filters lead to the others."""


def database() -> str:
    """Return the alias of the database that holds the log."""
    return router.db_for_write(Change)


def first_rows(queryset: Any) -> Any:
    """Return the rows that one action may take, at most COUNTED_ROWS."""
    return queryset[:COUNTED_ROWS]


def refuse_all_writing(request: HttpRequest) -> None:
    """Raise PermissionDenied for a request by another method than those of READING."""
    if request.method not in READING:
        raise PermissionDenied


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts up to COUNTED_ROWS: the archive of a busy connection has millions of rows."""

    @cached_property
    def count(self) -> int:
        """Return the number of rows, at most COUNTED_ROWS."""
        rows: Any = self.object_list
        return int(first_rows(rows.order_by()).count())


class RefusingAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Answers 403 to every request that asks for more than the user may do, whatever its method."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Show the page of a row; Django checks the permission for a POST alone, and takes PUT for a GET."""
        if request.method != "POST":
            refuse_all_writing(request)
        return super().changeform_view(request, *args, **kwargs)

    def history_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Show the history of a row."""
        refuse_all_writing(request)
        return super().history_view(request, *args, **kwargs)

    def refuse_writing(self, request: HttpRequest) -> None:
        """Raise PermissionDenied for a request that asks for an action which the user may not take."""
        if request.method in READING:
            return
        allowed = self.get_actions(request)
        asked = set(request.POST.getlist("action")) - {""}
        if not allowed or not asked <= allowed.keys():
            raise PermissionDenied


class ReadOnlyModelAdmin(RefusingAdmin):
    """A base for the admin of a read-only connected model: users may view records, and run its actions.

    Every other request is refused with 403. With Django's own ModelAdmin a forged POST ends in WriteNotSupportedError,
    because Django asks the database router before it asks for the user's permission.
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: Salesforce adds records."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: Salesforce changes records."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: Salesforce deletes records."""
        return False

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Show the page of a record."""
        refuse_all_writing(request)
        return super().changeform_view(request, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Refuse."""
        refuse_all_writing(request)
        return super().delete_view(request, *args, **kwargs)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show the list, or run an action."""
        self.refuse_writing(request)
        return super().changelist_view(request, extra_context)


class OwnAdmin(RefusingAdmin):
    """Shows a table to which users add no rows and from which they delete none; a missing table is a sentence."""

    change_list_template = "admin/hc_signals/list.html"
    list_per_page = 100
    show_full_result_count = False

    class Media:
        css = {"all": ["hc_signals/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: the worker or Heroku Connect adds rows."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: the worker or Heroku Connect removes rows."""
        return False

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the time zone, and whether the admin's log has entries about the row."""
        row = context["original"]
        entries = LogEntry.objects.filter(content_type=get_content_type_for_model(row), object_id=str(row.pk))
        context |= {"zone": zone_name(), "has_history": entries.exists()}
        return super().render_change_form(request, context, *args, **kwargs)

    def page(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        """Return a page from a template of ours, which is named without its folder and suffix."""
        about = {"title": self._title(), "opts": self.opts, "media": self.media, "zone": zone_name()}
        frame = self.admin_site.each_context(request) | about
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"admin/hc_signals/{template}.html", frame | context)

    def _title(self) -> str:
        return str(self.opts.verbose_name_plural).capitalize()


class ReadOnlyAdmin(OwnAdmin):
    """Shows one of our own tables; users cannot edit it."""

    actions: Any = ()
    ordering = ("-id",)
    # Facets would count the rows of each choice of a filter.
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    conditions: frozenset[str] = frozenset()
    """The conditions that the address of a list may have. Others lack an index, or an operator: ``json`` has few."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: rows stay as they are."""
        return False

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Allow the conditions of this list without NUL, which the database refuses."""
        return lookup in self.conditions and "\x00" not in str(value)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return the row; None if there is no such row or no table."""
        return super().get_object(request, object_id, from_field) if self._is_migrated() else None

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, or say that the log does not exist."""
        return self.own_page(request, lambda: self.list_view(request, extra_context))

    def own_page(self, request: HttpRequest, show: Callable[[], HttpResponse]) -> HttpResponse:
        """Return a page if the user may view the table and take the action; or say that the log does not exist."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if not self._is_migrated():
            return self.page(request, "not_migrated", database=database())
        self.refuse_writing(request)
        return show()

    def list_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list; permission and table are checked."""
        about = {"title": self._title(), "zone": zone_name()}
        return super().changelist_view(request, about | (extra_context or {}))

    def _is_migrated(self) -> bool:
        return relation_exists(database(), quoted_table(self.model))


class OnePageAdmin(ReadOnlyAdmin):
    """One page of its own; the table's rows have none. Django's page of a row would show all of its values."""

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return None: there is no such row."""
        return None
