"""The failed deliveries in the admin: their errors, and actions that retry or discard them."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db import OperationalError, transaction
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import pluralize
from django.urls import reverse
from django.utils.html import format_html

from hc_signals.admin.base import BoundedPaginator, ReadOnlyAdmin, database, first_rows
from hc_signals.admin.difference import difference
from hc_signals.admin.filters import CHANGE_TYPE, ConsumerFilter, ReceiverFilter, SenderFilter
from hc_signals.delivery import interventions
from hc_signals.models import Delivery
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import shown


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """The change permission allows to retry deliveries, the delete permission to discard them."""

    actions = ("retry", "discard")
    change_form_template = "admin/hc_signals/delivery_form.html"
    conditions = frozenset({"state__exact", "receiver", "sender", "consumer", "change_id"})
    fields = ("state_badge", "receiver", "signal", "sender", "attempt", "next_attempt", "created", "consumer", "change")
    readonly_fields = fields
    list_display = ("id", "state_and_attempts", "receiver_and_error", "event", "next_attempt")
    list_filter = ("state", ReceiverFilter, SenderFilter, ConsumerFilter)
    paginator = BoundedPaginator
    search_fields = ("=record_id", "=record_key")
    search_help_text = "The exact sfid of a record, or its exact id in the table."

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the deliveries without their images, which may take megabytes; the page of one delivery loads them."""
        return super().get_queryset(request).defer("old", "new")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Return whether the user has the change permission."""
        return request.user.has_perm("hc_signals.change_delivery")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Return whether the user has the delete permission. Django's own deletion would strand parked deliveries."""
        return request.user.has_perm("hc_signals.delete_delivery")

    @admin.action(description="Retry the selected deliveries", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: Any) -> None:
        """Make them due now."""
        chosen = _chosen(queryset)
        count = self._intervene(request, chosen, interventions.retry, CHANGE, "Retried.")
        if count is not None:
            text = f"{count} deliveries are due now; parked ones follow theirs."
            self.message_user(request, text, messages.SUCCESS if count else messages.WARNING)

    @admin.action(description="Discard the selected deliveries", permissions=["discard"])
    def discard(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """Ask for confirmation, then remove them."""
        chosen = _chosen(queryset)
        if "confirmed" not in request.POST:
            by_receiver = chosen.order_by("receiver").values("receiver", "state").annotate(count=Count("id"))
            selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
            across = request.POST.get("select_across", "0")
            return self.page(request, "discard", by_receiver=by_receiver, selected=selected, select_across=across)
        count = self._intervene(request, chosen, interventions.discard, DELETION, "Discarded.")
        if count is not None:
            self.message_user(request, f"{count} deliveries discarded.", messages.SUCCESS)
        return None

    def _intervene(
        self, request: HttpRequest, chosen: Any, act: Callable[[Any], int], flag: int, done: str
    ) -> int | None:
        """Act on the deliveries and write that to the admin's log; return None if nothing was done."""
        user_id: Any = request.user.pk
        deliveries = list(chosen)
        try:
            with transaction.atomic(using=chosen.db):
                count = act(chosen)
        except OperationalError as error:
            self.message_user(request, f"Nothing was done: {one_line(error)}. Try again.", messages.ERROR)
            return None
        LogEntry.objects.log_actions(user_id, deliveries, flag, done)
        return count

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the lines of the difference, the error and the buttons."""
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
        """Return the change type, the model and the record."""
        record = delivery.record_id or delivery.record_key or ""
        change_type = CHANGE_TYPE.get(delivery.operation, delivery.operation)
        return format_html("{}<br>{}<br>{}", change_type, delivery.sender, record)

    @admin.display(description="state")
    def state_and_attempts(self, delivery: Any) -> str:
        """Return the state and the number of calls."""
        calls = f"{delivery.attempt} call{pluralize(delivery.attempt)}"
        return format_html('{}<div class="hc-quiet">{}</div>', self.state_badge(delivery), calls)

    @admin.display(description="next attempt")
    def next_attempt(self, delivery: Any) -> str:
        """Return when the worker retries it: not at all while it is parked or dead."""
        return shown(delivery.next_attempt_at, zone=False) if delivery.next_attempt_at else "-"

    @admin.display(description="stored at")
    def created(self, delivery: Any) -> str:
        """Return when the receiver first failed, or when the delivery was parked."""
        return shown(delivery.created_at, zone=False)

    @admin.display(description="receiver and error")
    def receiver_and_error(self, delivery: Any) -> str:
        """Return the receiver with the first line of the error."""
        first = delivery.error.partition("\n")[0][:120] or "waits for an earlier one of its record"
        return format_html('{}<div class="hc-line hc-quiet">{}</div>', delivery.receiver, first)

    @admin.display(description="change")
    def change(self, delivery: Any) -> str:
        """Link to the row of the log. It may be gone: the delivery has a copy of it."""
        url = reverse("admin:hc_signals_change_change", args=[delivery.change_id], current_app=self.admin_site.name)
        captured_at = shown(delivery.captured_at, zone=False)
        return format_html('<a href="{}">{}</a>, captured at {}', url, delivery.change_id, captured_at)


def _chosen(queryset: Any) -> Any:
    """Return the rows of an action by their ids: with "select all" the queryset may be the whole table."""
    ids = list(first_rows(queryset.order_by("id").values_list("id", flat=True)))
    return Delivery.objects.using(database()).filter(pk__in=ids).defer("old", "new", "note").order_by("id")
