"""The capture triggers in the admin: the state of each table, and a button that repairs it."""

from time import monotonic
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from hc_signals.admin.base import READING, OnePageAdmin, database
from hc_signals.capture import outages, pausing
from hc_signals.capture.status import status_of
from hc_signals.conf import get_conf
from hc_signals.models import ConnectedTable
from hc_signals.observability.survey import Survey
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import shown
from hc_signals.tables import connected_models

REPAIR_SECONDS = 15
"""Seconds after which no other table is begun: Heroku's router ends a request after 30 seconds."""


@admin.register(ConnectedTable)
class ConnectedTableAdmin(OnePageAdmin):
    """To see it takes the view permission; to install, one of its own, because that locks Heroku Connect's tables."""

    def has_install_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may install."""
        return request.user.has_perm("hc_signals.install_connectedtable")

    def refuse_writing(self, request: HttpRequest) -> None:
        """Raise PermissionDenied for a request to install by a user who may not."""
        if request.method not in READING and not self.has_install_permission(request):
            raise PermissionDenied

    # Each table has its own transaction: with ATOMIC_REQUESTS the request would hold every lock to its end.
    @transaction.non_atomic_requests
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, or say that the log does not exist."""
        return super().changelist_view(request, extra_context)

    def list_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show every connected table; on POST install capture on one table, or on all that need it."""
        if request.method != "POST":
            return self.page(request, "triggers", may_install=self.has_install_permission(request), **_found())
        self._install(request, request.POST.get("model", ""))
        return HttpResponseRedirect(request.path)

    def _install(self, request: HttpRequest, label: str) -> None:
        chosen = [model for model in connected_models() if label in ("", model._meta.label)]
        if not chosen:
            self.message_user(request, f"There is no connected model {label!r}.", messages.ERROR)
        if pausing.find(database()).is_removed:
            self.message_user(request, f"{pausing.IS_REMOVED} Run `manage.py hc_triggers resume`.", messages.ERROR)
            return
        end = monotonic() + REPAIR_SECONDS
        for model in chosen:
            if not status_of(model, database()).is_installable:
                continue
            if monotonic() > end:
                self.message_user(request, "Not all tables were tried: the time is up. Try again.", messages.WARNING)
                return
            self._install_one(request, model)

    def _install_one(self, request: HttpRequest, model: Any) -> None:
        """Try once: while an installation waits for a lock, writers wait behind it."""
        try:
            outages.install(model, database(), attempts=1)
            status = status_of(model, database())
        except DatabaseError as error:
            reason = one_line(error)
            self.message_user(request, f"{model._meta.label}: not installed: {reason}. Try again.", messages.ERROR)
        else:
            level = messages.SUCCESS if status.state == "installed" else messages.WARNING
            self.message_user(request, f"{model._meta.label}: {status.state}.", level)


def _found() -> dict[str, Any]:
    """Return the tables, those that have drifted, capture without a model, and the beginning of a pause."""
    survey = Survey(database(), get_conf())
    statuses, pause = survey.statuses, survey.pause
    return {
        "rows": [(model._meta.label, status) for model, status in zip(survey.models, statuses, strict=True)],
        "drifted": [status for status in statuses if status.is_drifted],
        "orphans": survey.orphans,
        "paused": pause.since and shown(pause.since, zone=False),
        "owed": pause.owed and shown(pause.owed, zone=False),
    }
