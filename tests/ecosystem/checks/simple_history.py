"""django-simple-history: the history of a connected model has Salesforce's changes and the app's."""

from typing import Any

from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("django-simple-history",)
APPS = ["simple_history"]
SETTINGS: dict[str, Any] = {
    "HC_SIGNALS": {"DJANGO_SIGNALS": ["shop.Lead"]},
    "MIDDLEWARE": ["simple_history.middleware.HistoryRequestMiddleware"],
}


def models() -> None:
    from django.contrib import admin
    from simple_history.admin import SimpleHistoryAdmin
    from simple_history.models import HistoricalRecords

    admin.site.register(lead(history=HistoricalRecords()), SimpleHistoryAdmin)


def check(site: Any) -> None:
    from django.urls import reverse

    from tests.ecosystem.shop.models import Lead

    sfid = salesforces_changes(site)
    found = Lead.objects.get(sf_id=sfid)
    found.company = "of the app"
    found.save()
    address = reverse("admin:shop_lead_history", args=[found.pk])
    equal(site.client().get(address).status_code, 200)
    newest = found.history.first()
    equal([change.field for change in newest.diff_against(newest.prev_record).changes][:1], ["company"])
    site.heroku.delete(Lead, sfid)
    site.deliver()
    rows = Lead.history.filter(sf_id=sfid).order_by("history_id").values_list("history_type", "company")
    equal(list(rows), [("+", "Acme"), ("~", "Acme Ltd"), ("~", "of the app"), ("-", "of the app")])
