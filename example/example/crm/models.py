"""Connected models as the documentation describes them."""

from django.db import models

from hc_signals.db import models as hc_models


class Account(hc_models.HerokuConnectModel):
    sf_object_name = "Account"

    name = hc_models.Text(sf_field_name="Name", max_length=255)
    industry = hc_models.Picklist(sf_field_name="Industry", choices=[("Energy", "Energy"), ("Retail", "Retail")])
    annual_revenue = hc_models.Currency(sf_field_name="AnnualRevenue", max_digits=18, decimal_places=2)
    number_of_employees = hc_models.Number(sf_field_name="NumberOfEmployees", max_digits=8, decimal_places=0)
    last_activity_date = hc_models.Date(sf_field_name="LastActivityDate")


class Contact(hc_models.HerokuConnectModel):
    sf_object_name = "Contact"
    sf_access = hc_models.READ_WRITE

    external_id = hc_models.ExternalID(sf_field_name="External_ID__c")
    last_name = hc_models.Text(sf_field_name="LastName", max_length=80)
    email = hc_models.Email(sf_field_name="Email")
    birthdate = hc_models.Date(sf_field_name="Birthdate")
    account = hc_models.Lookup(
        Account, sf_field_name="AccountId", to_field="sf_id", on_delete=models.DO_NOTHING, related_name="contacts"
    )


class Project(hc_models.HerokuConnectModel):
    sf_object_name = "Project__c"

    name = hc_models.Text(sf_field_name="Name", max_length=80)
    description = hc_models.TextAreaLong(sf_field_name="Description__c")
    active = hc_models.Checkbox(sf_field_name="Active__c")
    progress = hc_models.Percent(sf_field_name="Progress__c", max_digits=5, decimal_places=2)
    starts_at = hc_models.DateTime(sf_field_name="Starts_At__c")


class SFObjectModel(hc_models.HerokuConnectModel):
    sf_object_name = "My_Object__c"
    sf_access = hc_models.READ_WRITE

    external_id = hc_models.ExternalID(sf_field_name="External_ID__c")
    data = hc_models.Text(sf_field_name="Data__c", max_length=255)


class CompoundModel(SFObjectModel):
    """A compound model: one table of Heroku Connect, one of Django."""

    hc_model = models.OneToOneField(
        SFObjectModel, on_delete=models.CASCADE, to_field="external_id", parent_link=True, db_constraint=False
    )
    more_data = models.TextField()

    class Meta:
        managed = True


class Seen(models.Model):
    """A row per change, written by the example's receiver; it commits together with the worker's position."""

    event_id = models.TextField(unique=True)
    sequence_number = models.BigIntegerField()
    entity_name = models.TextField()
    change_type = models.TextField()
    record_key = models.TextField(null=True)
