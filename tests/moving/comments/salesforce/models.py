"""Records of Salesforce."""

from heroku_connect.db import models as hc_models


class User(hc_models.HerokuConnectModel):
    sf_object_name = "User"

    username = hc_models.Text(sf_field_name="Username", max_length=80)
    email = hc_models.Email(sf_field_name="Email")
    department = hc_models.Text(sf_field_name="Department", max_length=80)

    def __str__(self):
        return self.username
