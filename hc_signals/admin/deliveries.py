"""The failed deliveries in the admin: one by one, with actions that retry or discard them."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db import OperationalError, transaction
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join

from hc_signals.admin.base import BoundedPaginator, ReadOnlyAdmin, database, first_rows
from hc_signals.admin.delivery_errors import NOT_CALLED, DeliveryErrors
from hc_signals.admin.difference import difference
from hc_signals.admin.filters import CHANGE_TYPE, ConsumerFilter, ReceiverFilter, SenderFilter
from hc_signals.admin.links import timeline_link
from hc_signals.admin.records import HIDDEN, link_to_page, name_of, record_url, seen_by
from hc_signals.admin.text import cut, visible
from hc_signals.conf import get_conf
from hc_signals.delivery import interventions
from hc_signals.delivery.stored import Choice
from hc_signals.models import Change, Delivery
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import age, shown, until
from hc_signals.tables import model_label

SHOWN_ERROR = 120
"""Most characters of an error in the list."""


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """The change permission allows to retry deliveries, the delete permission to discard them."""

    actions = ("retry", "discard")
    change_form_template = "admin/hc_signals/delivery_form.html"
    change_list_template = "admin/hc_signals/deliveries.html"
    conditions = frozenset({"state__exact", "receiver", "sender", "consumer", "change_id"})
    fields = (
        "record_and_page",
        "change_type",
        "sender",
        "receiver",
        "signal",
        "state_badge",
        "attempts",
        "next_attempt",
        "stored",
        "consumer",
        "change",
        "commands",
    )
    readonly_fields = fields
    list_display = ("id", "record", "receiver_and_error", "state_and_attempts", "next_attempt_and_age")
    list_filter = ("state", ReceiverFilter, SenderFilter, ConsumerFilter)
    paginator = BoundedPaginator
    search_fields = ("=record_id", "=record_key")
    search_help_text = "The exact sfid of a record, or its exact id in the table."

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the deliveries with their records' names, if the user may see them, and without their images.

        These may take megabytes; the page of one delivery loads them.
        """
        return super().get_queryset(request).annotate(**seen_by(request.user, has_image=False)).defer("old", "new")

    def get_urls(self) -> list[Any]:
        """Return Django's addresses and the one of the page of errors."""
        view = self.admin_site.admin_view(self.errors_view)
        return [path("errors/", view, name="hc_signals_delivery_errors"), *super().get_urls()]

    # Each piece has its own transaction: with ATOMIC_REQUESTS the request would hold the workers' shards to its end.
    @transaction.non_atomic_requests
    def errors_view(self, request: HttpRequest) -> HttpResponse:
        """Show the failed deliveries by their errors; on POST retry or discard all that have one."""
        return self.own_page(request, lambda: DeliveryErrors(self, request).answer())

    def list_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, with the link to the page of errors."""
        kept = DeliveryErrors.query_of(request.GET)
        return super().list_view(request, {"errors_query": kept, **(extra_context or {})})

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

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return the delivery with what its page needs of other tables, as far as the user may see it."""
        delivery = super().get_object(request, object_id, from_field)
        if delivery is not None:
            delivery.page_url = record_url(self.admin_site, request.user, delivery)
            may_follow = request.user.has_perm("hc_signals.view_change")
            delivery.has_change = may_follow and Change.objects.using(database()).filter(pk=delivery.change_id).exists()
        return delivery

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the lines of the difference, the error and the buttons."""
        delivery, whole = context["original"], request.GET.getlist("all")
        context |= {
            "may_retry": delivery.state != Delivery.State.PARKED and self.has_retry_permission(request),
            "may_discard": self.has_discard_permission(request),
            "list_url": reverse("admin:hc_signals_delivery_changelist", current_app=self.admin_site.name),
        }
        if delivery.is_hidden:
            hidden = HIDDEN.format(model_label(delivery.table_name))
            context |= {"hidden": hidden, "error": delivery.error.partition(":")[0]}
        else:
            context |= {"lines": difference(delivery, whole), "is_whole": bool(whole), "error": visible(delivery.error)}
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="record")
    def record(self, delivery: Any) -> str:
        """Return the change type, the model, the record's name and its sfid."""
        key = delivery.record_id or delivery.record_key or ""
        parts = self.change_type(delivery), delivery.sender, name_of(delivery), visible(key)
        return format_html("{}<br>{}<br>{}{}", *parts)

    @admin.display(description="record")
    def record_and_page(self, delivery: Any) -> str:
        """Return the record's name and sfid, and the link to its own page."""
        key = delivery.record_id or delivery.record_key or "-"
        return format_html("{}{}{}", name_of(delivery), visible(key), link_to_page(delivery))

    @admin.display(description="change type")
    def change_type(self, delivery: Any) -> str:
        """Return the change type in its colour."""
        name = CHANGE_TYPE.get(delivery.operation, delivery.operation)
        return format_html('<span class="hc-badge hc-{}">{}</span>', delivery.operation.lower(), name)

    @admin.display(description="state")
    def state_badge(self, delivery: Any) -> str:
        """Return the state in its colour."""
        return format_html('<span class="hc-badge hc-{}">{}</span>', delivery.state, delivery.get_state_display())

    @admin.display(description="attempts")
    def attempts(self, delivery: Any) -> str:
        """Return the number of attempts, and how many are left."""
        if delivery.state == Delivery.State.PARKED:
            return "none yet"
        most = max(get_conf().MAX_ATTEMPTS, delivery.attempt)
        left = 0 if delivery.state == Delivery.State.DEAD else most - delivery.attempt
        return f"{delivery.attempt} of {most}, {left} left"

    @admin.display(description="state and attempts")
    def state_and_attempts(self, delivery: Any) -> str:
        """Return the state and the number of attempts."""
        return format_html('{}<div class="hc-quiet">{}</div>', self.state_badge(delivery), self.attempts(delivery))

    @admin.display(description="next attempt")
    def next_attempt(self, delivery: Any) -> str:
        """Return when the worker retries it: not at all while it is parked or dead."""
        if delivery.next_attempt_at is None:
            return "after an earlier one" if delivery.state == Delivery.State.PARKED else "no other attempt"
        at = delivery.next_attempt_at
        return format_html('{}<div class="hc-quiet">{}</div>', until(at), shown(at, zone=False))

    @admin.display(description="next attempt and age")
    def next_attempt_and_age(self, delivery: Any) -> str:
        """Return when it is retried, and how long ago it was stored."""
        stored = f"stored {age(delivery.created_at)} ago"
        return format_html('{}<div class="hc-quiet">{}</div>', self.next_attempt(delivery), stored)

    @admin.display(description="stored")
    def stored(self, delivery: Any) -> str:
        """Return when the receiver first failed or the delivery was parked, and how long ago that was."""
        return f"{shown(delivery.created_at, zone=False)}, {age(delivery.created_at)} ago"

    @admin.display(description="receiver and error")
    def receiver_and_error(self, delivery: Any) -> str:
        """Return the receiver with the first line of the error, or with its type if the user may not see more."""
        first = delivery.error.partition("\n")[0]
        if delivery.is_hidden:
            first = first.partition(":")[0]
        is_parked = delivery.state == Delivery.State.PARKED
        text = visible(cut(first, SHOWN_ERROR)) or (
            "waits for an earlier one of its record" if is_parked else NOT_CALLED
        )
        return format_html('{}<div class="hc-line hc-quiet">{}</div>', delivery.receiver, text)

    @admin.display(description="change")
    def change(self, delivery: Any) -> str:
        """Link to the change, if it is still in the log: the delivery has a copy of it."""
        captured = f"captured {shown(delivery.captured_at, zone=False)}"
        timeline = timeline_link(self.admin_site.name, delivery)
        if not delivery.has_change:
            return format_html("{}, {} {}", delivery.change_id, captured, timeline)
        url = reverse("admin:hc_signals_change_change", args=[delivery.change_id], current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>, {} {}', url, delivery.change_id, captured, timeline)

    @admin.display(description="the same by command")
    def commands(self, delivery: Any) -> str:
        """Return the command lines that show, retry and discard it."""
        choice, using = Choice(ids=[delivery.pk]), database()
        other = "" if using == "default" else f" --database {using}"
        lines = [(choice.command(action) + other,) for action in ("show", "retry", "discard")]
        return format_html_join("", "<code>{}</code><br>", lines)


def _chosen(queryset: Any) -> Any:
    """Return the rows of an action by their ids: with "select all" the queryset may be the whole table."""
    ids = list(first_rows(queryset.order_by("id").values_list("id", flat=True)))
    return Delivery.objects.using(database()).filter(pk__in=ids).defer("old", "new", "note").order_by("id")
