"""Django Ninja: a schema of a connected model."""

from typing import Any

from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("django-ninja",)


def models() -> None:
    lead()


def urls() -> list[Any]:
    from django.urls import path
    from ninja import ModelSchema, NinjaAPI

    from tests.ecosystem.shop.models import Lead

    class LeadSchema(ModelSchema):
        class Meta:
            model = Lead
            exclude = ["_hc_lastop", "_hc_err"]  # Pydantic refuses the names

    api = NinjaAPI()

    @api.get("/leads", response=list[LeadSchema])
    def leads(request: Any) -> Any:
        return Lead.objects.all()

    return [path("ninja/", api.urls)]


def check(site: Any) -> None:
    salesforces_changes(site)
    equal([each["company"] for each in site.client().get("/ninja/leads").json()], ["Acme Ltd"])
    equal(site.client().get("/ninja/openapi.json").status_code, 200)
