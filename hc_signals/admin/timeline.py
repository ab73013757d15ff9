"""The page of one record's history, its search, and "Deliver again to ...": pages below the change log."""

from typing import Any, NamedTuple

from django.apps import apps
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse

from hc_signals.admin.base import ReadOnlyAdmin, database, refuse_all_writing
from hc_signals.admin.history import SHOWN, read_history
from hc_signals.admin.links import row_timeline_url, salesforce_url, timeline_url
from hc_signals.admin.records import may_see, may_view, record_url
from hc_signals.admin.text import cut
from hc_signals.conf import get_conf
from hc_signals.delivery.again import Target, deliver_again, targets
from hc_signals.exceptions import ReplayError
from hc_signals.log import record
from hc_signals.models import Change
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import shown
from hc_signals.postgres.names import storable
from hc_signals.tables import connected_models, connected_tables_of, model_label

LONGEST_RECORD = 255
"""Most characters of an sfid or id that are searched for."""


class _Named(NamedTuple):
    """A record, as log and pages name it: like a row of the log."""

    table_name: str
    record_id: str | None
    record_key: str | None


class TimelineAdmin(ReadOnlyAdmin):
    """Adds the pages to the admin of the change log."""

    def get_urls(self) -> list[Any]:
        """Return the addresses of the pages before those of the list, which take all others."""
        view = self.admin_site.admin_view
        return [
            path("timeline/", view(self.search_view), name="hc_signals_change_timelines"),
            path("timeline/<str:label>/<path:text>/", view(self.timeline_view), name="hc_signals_change_timeline"),
            path("<int:number>/again/", view(self.again_view), name="hc_signals_change_again"),
            *super().get_urls(),
        ]

    def search_view(self, request: HttpRequest) -> HttpResponse:
        """Ask for a model and a record; go to the timeline of the record."""
        self._check(request)
        refuse_all_writing(request)
        label, text = request.GET.get("model", ""), request.GET.get("record", "").strip()
        if label and text:
            return HttpResponseRedirect(timeline_url(self.admin_site.name, label, text))
        return self._timeline(request, label=label)

    def timeline_view(self, request: HttpRequest, label: str, text: str) -> HttpResponse:
        """Show what happened to a record, the newest first."""
        self._check(request)
        refuse_all_writing(request)
        shown_model, model = _models(label)
        if not may_view(request.user, shown_model):
            raise PermissionDenied
        using = database()
        if not record.exists(using):
            return self.page(request, "not_migrated", database=using, is_old=self._is_migrated())
        text = storable(text.strip(), using)
        if not text or len(text) > LONGEST_RECORD:
            raise Http404("No record has such a name.")
        before = _number(request.GET.get("before"))
        named = record.find_record(using, model, text)
        with_writes = request.user.has_perm("hc_signals.view_triggerlog")
        keys = {storable(key, using)[:LONGEST_RECORD] for key in request.GET.getlist("key")[:SHOWN]}
        history = read_history(using, model, named, before=before, keys=keys, with_writes=with_writes)
        row = _Named(named.table, history.sfid, named.key)
        older = history.older and timeline_url(
            self.admin_site.name, label, text, before=history.older, key=history.keys
        )
        return self._timeline(
            request,
            label=shown_model._meta.label,
            text=cut(text, LONGEST_RECORD),
            history=history,
            named=named,
            older=older,
            is_first=before == record.NEWEST,
            page_url=record_url(self.admin_site, request.user, row),
            salesforce_url=salesforce_url(model, history.sfid),
            with_writes=with_writes,
            may_deliver=self.has_redeliver_permission(request),
            may_see_deliveries=request.user.has_perm("hc_signals.view_delivery"),
        )

    def _timeline(self, request: HttpRequest, *, label: str, **context: Any) -> HttpResponse:
        labels = sorted(model._meta.label for model in connected_models() if may_view(request.user, model))
        text = context.get("text", "")
        title = f"Timeline of {label} {text}" if text else "Timeline of a record"
        return self.page(request, "timeline", labels=labels, label=label, **{"text": "", **context, "title": title})

    def has_redeliver_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may deliver changes again."""
        return request.user.has_perm("hc_signals.redeliver_change")

    def again_view(self, request: HttpRequest, number: int) -> HttpResponse:
        """Ask to which receiver the change is delivered again; on POST store the delivery."""
        self._check(request)
        change = Change.objects.using(database()).filter(pk=number).first()
        if not self.has_redeliver_permission(request) or (change and not may_see(request.user, change.table_name)):
            raise PermissionDenied
        if change is None:
            raise Http404(f"The log does not hold change {number} any more.")
        back = row_timeline_url(self.admin_site.name, change) or reverse(
            "admin:hc_signals_change_changelist", current_app=self.admin_site.name
        )
        try:
            if request.method == "POST":
                self._deliver(request, change)
                return HttpResponseRedirect(back)
            found = targets(database(), get_conf(), number)
        except ReplayError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(back)
        return self.page(
            request,
            "again",
            title=f"Deliver change {number} again",
            change=change,
            model=model_label(change.table_name),
            captured_at=shown(change.captured_at, zone=False),
            targets=[("|".join(each), each) for each in found],
            consumer=get_conf().CONSUMER,
            back=back,
        )

    def _deliver(self, request: HttpRequest, change: Change) -> None:
        parts = request.POST.get("target", "").rsplit("|", 2)  # a receiver's name may have the sign, the others not
        if len(parts) != len(Target._fields):
            self.message_user(request, "Nothing was done: no receiver was chosen.", messages.WARNING)
            return
        target, user_id = Target(*parts), request.user.pk
        try:
            deliver_again(database(), get_conf(), change.pk, target)
        except OperationalError as error:
            self.message_user(request, f"Nothing was done: {one_line(error)}. Try again.", messages.ERROR)
            return
        LogEntry.objects.log_actions(user_id, [change], CHANGE, f"Delivered again to {target.receiver}.")  # type: ignore[arg-type]
        self.message_user(request, f"The worker calls {target.receiver} for change {change.pk}.", messages.SUCCESS)

    def _check(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


def _models(label: str) -> tuple[Any, Any]:
    """Return the model with this label, and the connected model that has the table of its records."""
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise Http404(f"There is no model {label!r}.") from error
    tables = connected_tables_of(model)
    if not tables:
        raise Http404(f"{label} is not a connected model.")
    return model, tables[0]


def _number(text: str | None) -> int:
    """Return the id below which a page begins."""
    is_id = text is not None and text.isascii() and text.isdigit() and len(text) < 19
    return int(text) if text and is_id else record.NEWEST
