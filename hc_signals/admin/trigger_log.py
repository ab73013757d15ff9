"""The trigger log and its archive in the admin, with actions that ignore failed writes or send them again."""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import DatabaseError, router, transaction
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import pluralize
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode

from hc_signals.admin.base import BoundedPaginator, OwnAdmin, first_rows
from hc_signals.admin.difference import lines_of
from hc_signals.admin.filters import ValueFilter
from hc_signals.admin.links import timeline_url
from hc_signals.admin.records import HIDDEN, hidden_but, visible_tables
from hc_signals.admin.text import cut, visible
from hc_signals.heroku.trigger_log.words import TriggerLogAction, TriggerLogState, WriteAlgorithm
from hc_signals.models import TriggerLog, TriggerLogArchive
from hc_signals.postgres.moments import shown, zone_name
from hc_signals.tables import connected_models, model_label, table_label, table_parts

SHOWN_MESSAGE = 200
"""Most characters of Salesforce's answer in the list."""


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
    """Shows a log; users with the change permission may change ``state`` where that has a meaning."""

    write_algorithm = WriteAlgorithm.ORDERED_WRITES
    """How the connection sends writes to Salesforce; a subclass for a connection with merged writes sets it."""

    actions = ("ignore", "retry")
    change_form_template = "admin/hc_signals/trigger_log_form.html"
    date_hierarchy = "created_at"
    list_display = ("id", "created", "action", "table_link", "record_link", "state_link")
    list_filter = ("action", "state", TableFilter)
    ordering = ("-id",)
    paginator = BoundedPaginator
    search_fields = ("=record_id", "sf_id__startswith")
    search_help_text = "The record's id in the table, its Salesforce id, or a part of Salesforce's answer."
    show_facets = admin.ShowFacets.NEVER

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, or say that Heroku Connect has not created the log yet."""
        rows: Any = self.get_queryset(request)
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        if rows.has_table():
            self.refuse_writing(request)
            about = {"title": self._title(), "zone": zone_name()}
            return super().changelist_view(request, about | (extra_context or {}))
        return self.page(request, "no_trigger_log", table=table_label(self.model), alias=rows.db)

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows, each with ``is_hidden``: the user may not view the model, and so no values of it."""
        rows, schema = super().get_queryset(request), table_parts(self.model)[0]
        seen = [table.removeprefix(f"{schema}.") for table in visible_tables(request.user)]
        return rows.annotate(is_hidden=hidden_but(request.user, seen))

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Keep the rows of the record, and those whose answer has the term, if the user may see the answer."""
        found, _ = super().get_search_results(request, queryset, search_term)
        if not (term := search_term.strip()):
            return found, False
        return found | queryset.filter(is_hidden=False, sf_message__icontains=term), False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change rows, and whether this row has a state to which it can be changed."""
        return super().has_change_permission(request, obj) and (obj is None or len(self._states(obj)) > 1)

    def _states(self, log: Any) -> list[TriggerLogState]:
        """Return the states that a user may give to the row, its own first.

        Heroku Connect sets all other states itself. With ordered writes a NEW row would be sent out of its order:
        there the action *retry* captures the change again.
        """
        states = [TriggerLogState(log.state)] if log.state in TriggerLogState.values else []
        if log.state != TriggerLogState.FAILED:
            return states
        is_sent_again = self.write_algorithm == WriteAlgorithm.MERGE_WRITES and not log.is_archived
        return [*states, TriggerLogState.IGNORED, *[TriggerLogState.NEW] * is_sent_again]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form, which offers and accepts these states alone."""
        form: Any = super().get_form(request, obj, change, **kwargs)
        if obj is not None and "state" in form.base_fields:
            form.base_fields["state"].choices = [(state.value, state.label) for state in self._states(obj)]
        return form

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return all fields; values and old values are a table below them, and hidden with Salesforce's answer."""
        answer = [] if obj is None or obj.is_hidden else ["answer"]
        times = ("created", "updated", "processed")
        return ["id", "txid", *times, "table_name", "record_link", "action", "state", *answer]

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

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the values, the link to the other rows of the record and the buttons."""
        log, whole = context["original"], request.GET.getlist("all")
        may_act = super().has_change_permission(request) and log.state == TriggerLogState.FAILED
        context |= {"may_act": may_act, "list_url": self._url()}
        if log.is_hidden:
            context["hidden"] = HIDDEN.format(model_label(self._label(log)))
        else:
            context |= {"is_whole": bool(whole), **self._values(log, whole)}
        return super().render_change_form(request, context, *args, **kwargs)

    def _values(self, log: Any, whole: list[str]) -> dict[str, Any]:
        """Return the lines of old and new values; the texts as they are if Heroku Connect wrote no hstore."""
        try:
            old, new = log.old_as_dict, log.values_as_dict
        except ValueError as error:
            return {"unreadable": f"{error}", "texts": [visible(text) for text in (log.old, log.values) if text]}
        after = {} if log.action == TriggerLogAction.DELETE else old | new
        return {"lines": lines_of(self._label(log), old, after, new.keys(), whole)}

    def _label(self, log: Any) -> str:
        """Return the row's table as the change log names it."""
        return f"{table_parts(self.model)[0]}.{log.table_name}"

    @admin.display(description="created at", ordering="created_at")
    def created(self, log: Any) -> str:
        """Return when the app wrote it."""
        return _time(log.created_at)

    @admin.display(description="updated at")
    def updated(self, log: Any) -> str:
        """Return when the row was changed last."""
        return _time(log.updated_at)

    @admin.display(description="processed at")
    def processed(self, log: Any) -> str:
        """Return when Heroku Connect sent it."""
        return _time(log.processed_at)

    @admin.display(description="Salesforce's answer")
    def answer(self, log: Any) -> str:
        """Return Salesforce's message with its line ends."""
        return format_html('<div class="hc-answer">{}</div>', visible(log.sf_message)) if log.sf_message else "-"

    @admin.display(description="table", ordering="table_name")
    def table_link(self, log: Any) -> str:
        """Link to all rows of the table."""
        return self._link(log.table_name, table_name=log.table_name)

    @admin.display(description="record (all its rows)", ordering="record_id")
    def record_link(self, log: Any) -> str:
        """Link to all rows about the record, under its id; with its sfid."""
        link = self._link(log.record_id, table_name=log.table_name, record_id__exact=log.record_id)
        model, record = log.get_model(), log.sf_id or str(log.record_id)
        url = timeline_url(self.admin_site.name, model._meta.label, record) if model else ""
        timeline = format_html('<a href="{}">Timeline</a>', url) if url else ""
        return format_html('{}<div class="hc-quiet">{}</div>{}', link, visible(log.sf_id or ""), timeline)

    @admin.display(description="state and answer", ordering="state")
    def state_link(self, log: Any) -> str:
        """Link to all rows in the same state; with the beginning of Salesforce's message."""
        link = self._link(log.get_state_display(), state__exact=log.state)
        message = "" if log.is_hidden else cut(log.sf_message or "", SHOWN_MESSAGE)
        return format_html('{}<div class="hc-quiet hc-line">{}</div>', link, visible(message))

    def _link(self, text: Any, **filters: Any) -> str:
        return format_html('<a href="{}?{}">{}</a>', self._url(), urlencode(filters), text)

    def _url(self) -> str:
        opts = self.model._meta
        return reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist", current_app=self.admin_site.name)

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


def _time(when: Any) -> str:
    return shown(when, zone=False) if when else "-"


@admin.register(TriggerLog)
class TriggerLogAdmin(TriggerLogAdminBase):
    """The live log."""


@admin.register(TriggerLogArchive)
class TriggerLogArchiveAdmin(TriggerLogAdminBase):
    """The archive. A row that is retried goes to the live log."""
