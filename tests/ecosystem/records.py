"""The connected model of the checks that declare models of their own."""

from typing import Any


def lead(*bases: type, **attributes: Any) -> Any:
    """Declare ``shop.Lead``, a read-write model, with further bases and attributes."""
    from hc_signals.db import models as hc_models

    body = {
        "__module__": "tests.ecosystem.shop.models",
        "__qualname__": "Lead",
        "sf_object_name": "Lead",
        "sf_access": hc_models.READ_WRITE,
        "external_id": hc_models.ExternalID(sf_field_name="External_ID__c"),
        "company": hc_models.Text(sf_field_name="Company", max_length=255),
        "status": hc_models.Picklist(sf_field_name="Status", choices=[("Open", "Open"), ("Closed", "Closed")]),
    }
    return type(hc_models.HerokuConnectModel)("Lead", (*bases, hc_models.HerokuConnectModel), body | attributes)


def salesforces_changes(site: Any) -> str:
    """Create and update a lead as Salesforce would, and deliver both changes one by one; return its sfid."""
    from django.apps import apps

    (sfid,) = site.heroku.insert(apps.get_model("shop.Lead"), company="Acme", status="Open")
    site.deliver()
    site.heroku.update(apps.get_model("shop.Lead"), sfid, company="Acme Ltd", status="Closed")
    site.deliver()
    return str(sfid)
