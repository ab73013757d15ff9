"""The failed deliveries in the admin: what each receiver failed on, to be tried again or discarded."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db import OperationalError, transaction
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from hc_signals.admin.bounded import BoundedPaginator, first_rows
from hc_signals.admin.difference import difference
from hc_signals.admin.filters import ConsumerFilter, ReceiverFilter, SenderFilter
from hc_signals.admin.read_only import ReadOnlyAdmin, database
from hc_signals.admin.times import moment
from hc_signals.delivery import interventions
from hc_signals.models import Delivery
from hc_signals.postgres.errors import one_line


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """Nobody edits a delivery; the change permission allows to retry, the delete permission to discard."""

    actions = ("retry", "discard")
    change_form_template = "admin/hc_signals/delivery_form.html"
    conditions = frozenset({"state__exact", "receiver", "sender", "consumer", "change_id"})
    fields = ("state_badge", "receiver", "signal", "sender", "attempt", "next_attempt", "created", "consumer", "change")
    list_display = ("id", "state_and_attempts", "receiver_and_error", "event", "next_attempt")
    list_filter = ("state", ReceiverFilter, SenderFilter, ConsumerFilter)
    paginator = BoundedPaginator
    search_fields = ("=record_id", "=record_key")
    search_help_text = "The sfid of a record, or its id in the table: exactly."

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Return all fields."""
        return self.fields

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the deliveries; their images may have megabytes, and only the page of one shows them."""
        return super().get_queryset(request).defer("old", "new")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Allow it to those with the change permission."""
        return request.user.has_perm("hc_signals.change_delivery")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Allow it to those with the delete permission; Django's own deletion would strand what is parked."""
        return request.user.has_perm("hc_signals.delete_delivery")

    @admin.action(description="Retry the selected deliveries", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: Any) -> None:
        """Make them due now."""
        chosen = _chosen(queryset)
        count = self._intervene(request, chosen, interventions.retry)
        if count is not None:
            LogEntry.objects.log_actions(_user_id(request), chosen, CHANGE, "Retried.")
            text = f"{count} deliveries are due now; parked ones follow theirs."
            self.message_user(request, text, messages.SUCCESS if count else messages.WARNING)

    @admin.action(description="Discard the selected deliveries", permissions=["discard"])
    def discard(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """Ask, then remove them."""
        chosen = _chosen(queryset)
        if "confirmed" not in request.POST:
            by_receiver = chosen.order_by("receiver").values("receiver", "state").annotate(count=Count("id"))
            selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
            across = request.POST.get("select_across", "0")
            return self.page(request, "discard", by_receiver=by_receiver, selected=selected, select_across=across)
        removed = list(chosen)
        count = self._intervene(request, chosen, interventions.discard)
        if count is not None:
            LogEntry.objects.log_actions(_user_id(request), removed, DELETION, "Discarded.")
            self.message_user(request, f"{count} deliveries discarded.", messages.SUCCESS)
        return None

    def _intervene(self, request: HttpRequest, chosen: Any, act: Callable[[Any], int]) -> int | None:
        try:
            with transaction.atomic(using=chosen.db):
                return act(chosen)
        except OperationalError as error:
            self.message_user(request, f"Nothing was done: {one_line(error)}. Try again.", messages.ERROR)
            return None

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the lines of the difference, and what the receiver failed on."""
        delivery = context["original"]
        context |= {
            "lines": difference(delivery),
            "error": delivery.error,
            "may_retry": delivery.state != Delivery.State.PARKED and self.has_retry_permission(request),
            "may_discard": self.has_discard_permission(request),
            "list_url": reverse("admin:hc_signals_delivery_changelist", current_app=self.admin_site.name),
        }
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="state")
    def state_badge(self, delivery: Any) -> str:
        """Return the state in its colour."""
        return format_html('<span class="hc-badge hc-{}">{}</span>', delivery.state, delivery.get_state_display())

    @admin.display(description="event")
    def event(self, delivery: Any) -> str:
        """Return what the receiver is owed."""
        record = delivery.record_id or delivery.record_key or ""
        return format_html("{}<br>{}<br>{}", delivery.operation, delivery.sender, record)

    @admin.display(description="state")
    def state_and_attempts(self, delivery: Any) -> str:
        """Return the state, and how often the receiver was called."""
        calls = f"{delivery.attempt} call{'' if delivery.attempt == 1 else 's'}"
        return format_html('{}<div class="hc-quiet">{}</div>', self.state_badge(delivery), calls)

    @admin.display(description="next attempt")
    def next_attempt(self, delivery: Any) -> str:
        """Return when it is due; a parked or dead one never is by itself."""
        return moment(delivery.next_attempt_at)

    @admin.display(description="kept since")
    def created(self, delivery: Any) -> str:
        """Return when the receiver failed for the first time, or the delivery was parked."""
        return moment(delivery.created_at)

    @admin.display(description="receiver, and what it failed on")
    def receiver_and_error(self, delivery: Any) -> str:
        """Return the receiver with the first line of the error."""
        first = delivery.error.partition("\n")[0][:120] or "waits for an earlier one of its record"
        return format_html('{}<div class="hc-line hc-quiet">{}</div>', delivery.receiver, first)

    @admin.display(description="change")
    def change(self, delivery: Any) -> str:
        """Link to the row of the log, which may be gone: the delivery has its own copy."""
        url = reverse("admin:hc_signals_change_change", args=[delivery.change_id], current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>, captured at {}', url, delivery.change_id, moment(delivery.captured_at))


def _user_id(request: HttpRequest) -> Any:
    return request.user.pk


def _chosen(queryset: Any) -> Any:
    """Return the rows of an action by their ids: "select all" may mean the whole table."""
    ids = list(first_rows(queryset.order_by("id").values_list("id", flat=True)))
    return Delivery.objects.using(database()).filter(pk__in=ids).defer("old", "new", "note").order_by("id")
