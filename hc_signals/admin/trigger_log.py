"""The trigger log and its archive in the admin, with actions that ignore failed writes or send them again."""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError, router, transaction
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import pluralize
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode

from hc_signals.admin.base import BoundedPaginator, OwnAdmin, first_rows
from hc_signals.admin.filters import ValueFilter
from hc_signals.heroku.trigger_log.words import TriggerLogState, WriteAlgorithm
from hc_signals.models import TriggerLog, TriggerLogArchive
from hc_signals.tables import connected_models, table_label, table_parts


class TableFilter(ValueFilter):
    """Offers the tables of the connected models; Django's own filter would read the whole log for its choices."""

    title = "table"
    parameter_name = "table_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the tables in the schema of the log, and the chosen one."""
        schema = table_parts(model_admin.model)[0]
        tables = {table for place, table in map(table_parts, connected_models()) if place == schema}
        return [(table, table) for table in sorted(tables | {self.value() or ""} - {""})]


class TriggerLogAdminBase(OwnAdmin):
    """Shows a log; users with the change permission may change ``state``."""

    write_algorithm = WriteAlgorithm.ORDERED_WRITES
    """How the connection sends writes to Salesforce; a subclass for a connection with merged writes sets it."""

    actions = ("ignore", "retry")
    date_hierarchy = "created_at"
    list_display = ("id", "created_at", "action", "table_link", "record_link", "sf_id", "state_link", "sf_message")
    list_filter = ("action", "state", TableFilter)
    paginator = BoundedPaginator
    search_fields = ("=record_id", "sf_id__startswith", "sf_message")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, or say that Heroku Connect has not created the log yet."""
        rows: Any = self.get_queryset(request)
        if not self.has_view_or_change_permission(request) or rows.has_table():
            return super().changelist_view(request, extra_context)
        return self.page(request, "no_trigger_log", table=table_label(self.model), alias=rows.db)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return all fields and the link to the other rows of the record."""
        return [*(field.name for field in self.model._meta.fields), "record_link"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return all fields but ``state``."""
        return [name for name in self.get_fields(request, obj) if name != "state"]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return the row; None if there is no such row or no table.

        Before it is saved it is locked, so that Heroku Connect does not move it to the archive at the same time.
        """
        rows: Any = self.get_queryset(request)
        found = super().get_object(request, object_id, from_field) if rows.has_table() else None
        if found is None or request.method != "POST":
            return found
        alias = router.db_for_write(self.model)
        return self.get_queryset(request).using(alias).select_for_update().filter(pk=found.pk).first()

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save the state; Heroku Connect owns the other columns."""
        obj.save(update_fields=["state"])

    @admin.display(description="table", ordering="table_name")
    def table_link(self, log: Any) -> str:
        """Link to all rows of the table."""
        return self._link(log.table_name, table_name=log.table_name)

    @admin.display(description="same record", ordering="record_id")
    def record_link(self, log: Any) -> str:
        """Link to all rows about the record."""
        return self._link(log.record_id, table_name=log.table_name, record_id__exact=log.record_id)

    @admin.display(description="state", ordering="state")
    def state_link(self, log: Any) -> str:
        """Link to all rows in the same state."""
        return self._link(log.get_state_display(), state__exact=log.state)

    def _link(self, text: Any, **filters: Any) -> str:
        opts = self.model._meta
        url = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist", current_app=self.admin_site.name)
        return format_html('<a href="{}?{}">{}</a>', url, urlencode(filters), text)

    @admin.action(description="Ignore the selected failed changes", permissions=["change"])
    def ignore(self, request: HttpRequest, queryset: Any) -> None:
        """Set the state of failed rows to ignored."""
        self._on_failed(request, queryset, "ignored", lambda log: log.set_state(TriggerLogState.IGNORED))

    @admin.action(description="Retry the selected failed changes", permissions=["change"])
    def retry(self, request: HttpRequest, queryset: Any) -> None:
        """Let Heroku Connect send failed rows again."""
        self._on_failed(request, queryset, "to be sent again", lambda log: log.redo(self.write_algorithm))

    def _on_failed(self, request: HttpRequest, queryset: Any, done: str, step: Callable[[Any], Any]) -> None:
        """Do the step for every failed row, each in a savepoint: an error does not keep the others from it."""
        alias = router.db_for_write(self.model)
        errors: list[str] = []
        with transaction.atomic(using=alias):
            failed = list(first_rows(queryset.using(alias).failed().order_by("pk").select_for_update()))
            for log in failed:
                try:
                    with transaction.atomic(using=alias):
                        step(log)
                except (ObjectDoesNotExist, LookupError, ValueError, DatabaseError) as error:
                    errors.append(f"{log}: {error}")
        self._report(request, len(failed) - len(errors), done, errors)

    def _report(self, request: HttpRequest, count: int, done: str, errors: Iterable[str]) -> None:
        level = messages.SUCCESS if count else messages.WARNING
        self.message_user(request, f"{count} failed change{pluralize(count)} {done}.", level)
        for error in errors:
            self.message_user(request, error, messages.ERROR)


@admin.register(TriggerLog)
class TriggerLogAdmin(TriggerLogAdminBase):
    """The live log."""


@admin.register(TriggerLogArchive)
class TriggerLogArchiveAdmin(TriggerLogAdminBase):
    """The archive. A row that is retried goes to the live log."""
