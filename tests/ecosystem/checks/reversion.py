"""django-reversion: versions of the app's saves and of Salesforce's changes."""

from typing import Any

from tests.ecosystem.page import run_block
from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("django-reversion",)
APPS = ["reversion"]


def models() -> None:
    from django.contrib import admin
    from reversion.admin import VersionAdmin

    model = lead()
    admin.site.register(model, VersionAdmin)
    run_block("import reversion", Account=model)


def check(site: Any) -> None:
    from reversion.models import Version

    from tests.ecosystem.shop.models import Lead

    sfid = salesforces_changes(site)
    found = Lead.objects.get(sf_id=sfid)
    versions = Version.objects.get_for_object(found)
    equal([version.field_dict["company"] for version in versions], ["Acme Ltd", "Acme"])
    assert versions[0].revision.comment.startswith("Salesforce, ")
