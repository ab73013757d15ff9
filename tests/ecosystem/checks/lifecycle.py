"""django-lifecycle: hooks of save() on a connected model; a receiver runs them for Salesforce's changes."""

from typing import Any

from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("django-lifecycle",)
called: list[str] = []


def models() -> None:
    from django_lifecycle import AFTER_UPDATE, LifecycleModelMixin, hook

    from tests.ecosystem import chosen

    def on_company(self: Any) -> None:
        chosen.CHECK.called.append(f"{self.initial_value('company')}, {self.company}")

    lead(LifecycleModelMixin, on_company=hook(AFTER_UPDATE, when="company", has_changed=True)(on_company))


def check(site: Any) -> None:
    from tests.ecosystem.shop.models import Lead

    sfid = salesforces_changes(site)
    found = Lead.objects.get(sf_id=sfid)
    found.company = "of the app"
    found.save()
    equal(called, ["Acme Ltd, of the app"])
