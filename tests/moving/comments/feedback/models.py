"""The project's own rows, and a record with a lookup to a model of another app."""

from django.db import models
from heroku_connect.db import models as hc_models


class Case(hc_models.HerokuConnectModel):
    sf_object_name = "Case"

    subject = hc_models.Text(sf_field_name="Subject", max_length=255)
    owner = hc_models.Lookup(
        "salesforce.User", sf_field_name="OwnerId", to_field="sf_id", on_delete=models.SET_NULL, related_name="cases"
    )


class Comment(models.Model):
    user = models.ForeignKey(
        "salesforce.User", to_field="sf_id", on_delete=models.SET_NULL, null=True, db_constraint=False
    )
    text = models.TextField()
