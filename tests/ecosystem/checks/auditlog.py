"""django-auditlog: entries for the app's saves and for Salesforce's changes."""

from typing import Any

from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("django-auditlog",)
APPS = ["auditlog"]
SETTINGS: dict[str, Any] = {"MIDDLEWARE": ["auditlog.middleware.AuditlogMiddleware"]}


def models() -> None:
    from auditlog.models import LogEntry
    from auditlog.registry import auditlog
    from django.dispatch import receiver

    from hc_signals.signals import record_changed

    model = lead()
    auditlog.register(model)
    actions = {"CREATE": LogEntry.Action.CREATE, "DELETE": LogEntry.Action.DELETE}

    @receiver(record_changed, sender=model, weak=False)
    def log_change(instance: Any, event: Any, **kwargs: Any) -> None:
        changes = {name: [str(event.previous.get(name)), str(getattr(instance, name))] for name in event.changed_fields}
        action = actions.get(event.change_type, LogEntry.Action.UPDATE)
        LogEntry.objects.log_create(instance, force_log=True, action=action, changes=changes)


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
