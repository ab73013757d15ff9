"""django-reversion: versions of the app's saves and of Salesforce's changes."""

from typing import Any

from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("django-reversion",)
APPS = ["reversion"]


def models() -> None:
    import reversion
    from django.contrib import admin
    from django.dispatch import receiver
    from reversion.admin import VersionAdmin

    from hc_signals.signals import record_created, record_updated

    model = lead()

    @admin.register(model)
    class LeadAdmin(VersionAdmin):
        """Registers the model with reversion."""

    @receiver([record_created, record_updated], sender=model, weak=False)
    def keep_version(instance: Any, event: Any, using: str, **kwargs: Any) -> None:
        with reversion.create_revision(using=using):
            reversion.add_to_revision(instance, model_db=using)
            reversion.set_comment(f"Salesforce, {event.event_id}")


def check(site: Any) -> None:
    from reversion.models import Version

    from tests.ecosystem.shop.models import Lead

    sfid = salesforces_changes(site)
    found = Lead.objects.get(sf_id=sfid)
    versions = Version.objects.get_for_object(found)
    equal([version.field_dict["company"] for version in versions], ["Acme Ltd", "Acme"])
    assert versions[0].revision.comment.startswith("Salesforce, ")
