"""The capture triggers in the admin: what has drifted on which table, and its repair."""

from time import monotonic
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from hc_signals.admin.read_only import ReadOnlyAdmin, database
from hc_signals.admin.times import moment
from hc_signals.capture import orphans, outages, pausing, triggers
from hc_signals.models import ConnectedTable
from hc_signals.postgres.errors import one_line
from hc_signals.tables import connected_models

REPAIR_SECONDS = 15
"""No table is begun after this time: Heroku's router gives up a request after 30 seconds."""


@admin.register(ConnectedTable)
class ConnectedTableAdmin(ReadOnlyAdmin):
    """Looking needs the view permission, installing one of its own: it takes a lock on Heroku Connect's tables."""

    def has_install_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may install."""
        return request.user.has_perm("hc_signals.install_connectedtable")

    # Each table is a transaction of its own: with ATOMIC_REQUESTS its lock would be held until all are done.
    @transaction.non_atomic_requests
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, or say that there is no log yet."""
        return super().changelist_view(request, extra_context)

    def list_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show every connected table; on POST install what has drifted, on one or on all."""
        if request.method != "POST":
            return self.page(request, "triggers", may_install=self.has_install_permission(request), **_found())
        if not self.has_install_permission(request):
            raise PermissionDenied
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
            if triggers.status(model, database()).state in ("installed", "absent", "unsupported"):
                continue
            if monotonic() > end:
                self.message_user(request, "Not all tables were tried: the time is up. Try again.", messages.WARNING)
                return
            self._install_one(request, model)

    def _install_one(self, request: HttpRequest, model: Any) -> None:
        """Try once: what waits for a lock makes writers queue behind it, and so do people at their browsers."""
        try:
            outages.bring_back(model, database(), attempts=1)
            status = triggers.status(model, database())
        except DatabaseError as error:
            reason = one_line(error)
            self.message_user(request, f"{model._meta.label}: not installed: {reason}. Try again.", messages.ERROR)
        else:
            level = messages.SUCCESS if status.state == "installed" else messages.WARNING
            self.message_user(request, f"{model._meta.label}: {status.state}.", level)


def _found() -> dict[str, Any]:
    """Return the tables, those that have drifted, what no model accounts for, and since when capture is off."""
    models = connected_models()
    looked_up = zip(models, triggers.find(models, database()), strict=True)
    rows = [(model._meta.label, triggers.compare(model, found)) for model, found in looked_up]
    pause = pausing.find(database())
    return {
        "rows": rows,
        "drifted": [status for _, status in rows if status.state not in ("installed", "absent")],
        "orphans": orphans.find(models, database()),
        "paused": pause.since and moment(pause.since),
        "owed": pause.owed and moment(pause.owed),
    }
