"""django-pghistory: a receiver writes an event for each of Salesforce's changes; Django's tables have its triggers."""

from io import StringIO
from typing import Any

from tests.ecosystem.page import run_block
from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("django-pghistory", "django-pgtrigger")
APPS = ["pghistory"]
SETTINGS: dict[str, Any] = {"MIDDLEWARE": ["pghistory.middleware.HistoryMiddleware"]}


def models() -> None:
    import pghistory
    from django.db import models
    from django.dispatch import receiver

    from hc_signals.signals import record_changed

    model = pghistory.track(pghistory.ManualEvent("salesforce"), obj_field=None)(lead())
    run_block("import pghistory", Account=model)

    @receiver(record_changed, sender=model, weak=False)
    def note(instance: Any, using: str, **kwargs: Any) -> None:
        Note.objects.using(using).create(text=instance.company)

    @pghistory.track()
    class Note(models.Model):
        text = models.TextField()

        class Meta:
            app_label = "shop"


def check(site: Any) -> None:
    from django.core.management import call_command

    from tests.ecosystem.shop.models import Lead, LeadEvent, NoteEvent

    call_command("pgtrigger", "install")
    sfid = salesforces_changes(site)
    call_command("pgtrigger", "prune")
    call_command("pgtrigger", "uninstall")
    call_command("hc_triggers", "status", stdout=StringIO())
    site.heroku.delete(Lead, sfid)
    site.deliver()
    events = LeadEvent.objects.filter(sf_id=sfid).order_by("pgh_id")
    equal([each.company for each in events], ["Acme", "Acme Ltd", "Acme Ltd"])
    equal([each.pgh_context.metadata["change_type"] for each in events], ["CREATE", "UPDATE", "DELETE"])
    equal([each.text for each in NoteEvent.objects.order_by("pgh_id")], ["Acme", "Acme Ltd"])
