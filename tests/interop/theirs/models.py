"""A model as in the documentation of django-heroku-connect."""

from heroku_connect.db import models as hc_models


class Lead(hc_models.HerokuConnectModel):
    sf_object_name = "Lead"

    company = hc_models.Text(sf_field_name="Company", max_length=255)
    converted_at = hc_models.DateTime(sf_field_name="ConvertedDate")
    score = hc_models.Number(sf_field_name="Score__c", max_digits=5, decimal_places=1)
