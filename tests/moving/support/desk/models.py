"""Records that the project writes, one of them with a half in Django."""

from django.db import models
from heroku_connect.db import models as hc_models


class Written(hc_models.HerokuConnectModel):
    sf_access = hc_models.READ_WRITE

    external_id = hc_models.ExternalID(sf_field_name="External_ID__c")

    class Meta:
        abstract = True


class Contact(Written):
    sf_object_name = "Contact"

    last_name = hc_models.Text(sf_field_name="LastName", max_length=80)
    phone = hc_models.Phone(sf_field_name="Phone")


class Ticket(Written):
    sf_object_name = "Ticket__c"

    title = hc_models.Text(sf_field_name="Name", max_length=80)
    stage = hc_models.Picklist(sf_field_name="Stage__c", choices=[("New", "New"), ("Done", "Done")])
    contact = hc_models.MasterDetail(
        Contact, sf_field_name="Contact__c", to_field="sf_id", on_delete=models.CASCADE, related_name="tickets"
    )


class Visit(models.Model):
    contact = models.ForeignKey(Contact, to_field="external_id", on_delete=models.CASCADE, db_constraint=False)
    note = models.TextField()
