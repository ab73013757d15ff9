"""django-import-export: a read-write model in the admin."""

from typing import Any

from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("django-import-export",)
APPS = ["import_export"]


def models() -> None:
    from django.contrib import admin
    from import_export.admin import ImportExportModelAdmin

    from hc_signals.contrib.import_export import HerokuConnectModelResource

    lead_model = lead()

    class LeadResource(HerokuConnectModelResource):
        class Meta:
            model = lead_model
            import_id_fields = ["external_id"]

    @admin.register(lead_model)
    class LeadAdmin(ImportExportModelAdmin):
        resource_classes = [LeadResource]


def check(site: Any) -> None:
    salesforces_changes(site)
    answer = site.client().post("/admin/shop/lead/export/", {"format": "0", "leadresource_company": "on"})
    equal((answer.status_code, answer.content.split()[:2]), (200, [b"company", b"Acme"]))
    equal(site.client().get("/admin/shop/lead/import/").status_code, 200)
