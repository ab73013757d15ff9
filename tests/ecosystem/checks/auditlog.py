"""django-auditlog: entries for the app's saves and for Salesforce's changes."""

from typing import Any

from tests.ecosystem.page import run_block
from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("django-auditlog",)
APPS = ["auditlog"]
SETTINGS: dict[str, Any] = {"MIDDLEWARE": ["auditlog.middleware.AuditlogMiddleware"]}


def models() -> None:
    from auditlog.registry import auditlog

    model = lead()
    auditlog.register(model)
    run_block("from auditlog.models import LogEntry", Account=model)


def check(site: Any) -> None:
    from auditlog.models import LogEntry

    from tests.ecosystem.shop.models import Lead

    sfid = salesforces_changes(site)
    found = Lead.objects.get(sf_id=sfid)
    entries = LogEntry.objects.get_for_object(found).order_by("id")
    equal([entry.get_action_display() for entry in entries], ["create", "update"])
    equal(entries[1].changes["company"], ["Acme", "Acme Ltd"])
    found.company = "of the app"
    found.save()
    equal(entries.all().count(), 3)
    site.heroku.delete(Lead, sfid)
    site.deliver()
    equal(LogEntry.objects.filter(action=LogEntry.Action.DELETE, object_id=found.pk).count(), 1)
