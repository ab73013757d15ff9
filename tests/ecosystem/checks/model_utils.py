"""django-model-utils: a FieldTracker knows what Salesforce changed."""

from typing import Any

from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("django-model-utils",)
SETTINGS: dict[str, Any] = {"HC_SIGNALS": {"DJANGO_SIGNALS": ["shop.Lead"]}}


def models() -> None:
    from model_utils import FieldTracker

    lead(tracker=FieldTracker())


def check(site: Any) -> None:
    from django.db.models.signals import post_save

    from tests.ecosystem.shop.models import Lead

    heard: list[Any] = []
    post_save.connect(lambda instance, **kwargs: heard.append(instance.tracker.changed()), sender=Lead, weak=False)
    salesforces_changes(site)
    equal(heard[1], {"company": "Acme", "status": "Open"})
