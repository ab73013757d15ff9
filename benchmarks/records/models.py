"""Tables of the same 25 mapped columns: with and without capture, with and without Heroku Connect's triggers."""

from django.db import models

from hc_signals.db import models as hc_models


class Wide(hc_models.HerokuConnectModel):
    """25 columns with the six that every connected model has."""

    sf_access = hc_models.READ_ONLY

    name = hc_models.Text(sf_field_name="Name", max_length=80)
    industry = hc_models.Text(sf_field_name="Industry", max_length=40)
    status = hc_models.Text(sf_field_name="Status__c", max_length=40)
    street = hc_models.TextArea(sf_field_name="Street")
    city = hc_models.Text(sf_field_name="City", max_length=40)
    country = hc_models.Text(sf_field_name="Country", max_length=40)
    email = hc_models.Email(sf_field_name="Email")
    phone = hc_models.Phone(sf_field_name="Phone")
    website = hc_models.URL(sf_field_name="Website")
    description = hc_models.TextAreaLong(sf_field_name="Description")
    owner_id = hc_models.Text(sf_field_name="OwnerId", max_length=18)
    parent_id = hc_models.Text(sf_field_name="ParentId", max_length=18)
    revenue = hc_models.Currency(sf_field_name="AnnualRevenue", max_digits=18, decimal_places=2)
    employees = hc_models.Number(sf_field_name="NumberOfEmployees", max_digits=18, decimal_places=0)
    discount = hc_models.Percent(sf_field_name="Discount__c", max_digits=5, decimal_places=2)
    active = hc_models.Checkbox(sf_field_name="Active__c")
    founded = hc_models.Date(sf_field_name="Founded__c")
    signed_at = hc_models.DateTime(sf_field_name="Signed_At__c")
    opens_at = hc_models.Time(sf_field_name="Opens_At__c")

    class Meta:
        abstract = True


class Captured(Wide):
    sf_object_name = "Captured__c"


class Uncaptured(Wide):
    sf_object_name = "Uncaptured__c"


class BareCaptured(Wide):
    """Without Heroku Connect's own triggers."""

    sf_object_name = "Bare_Captured__c"


class BareUncaptured(Wide):
    sf_object_name = "Bare_Uncaptured__c"


class BareTriggered(Wide):
    """Without Heroku Connect's own triggers, but with an empty one."""

    sf_object_name = "Bare_Triggered__c"


class Captured2(Wide):
    sf_object_name = "Captured_2__c"


class Captured3(Wide):
    sf_object_name = "Captured_3__c"


class Captured4(Wide):
    sf_object_name = "Captured_4__c"


class Uncaptured2(Wide):
    sf_object_name = "Uncaptured_2__c"


class Uncaptured3(Wide):
    sf_object_name = "Uncaptured_3__c"


class Uncaptured4(Wide):
    sf_object_name = "Uncaptured_4__c"


CAPTURED = (Captured, Captured2, Captured3, Captured4)
"""For writers at the same time, each with a table of its own."""
UNCAPTURED = (Uncaptured, Uncaptured2, Uncaptured3, Uncaptured4)


class Effect(models.Model):
    """What a receiver writes: one row for each change."""

    event_id = models.TextField()
    name = models.TextField(null=True)
