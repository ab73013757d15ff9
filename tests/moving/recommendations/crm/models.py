"""Salesforce's standard objects, with attributes named as in Salesforce, and addresses added in a loop."""

from django.db import models
from heroku_connect.db import models as sf

RATINGS = (("Hot", "Hot"), ("Warm", "Warm"), ("Cold", "Cold"))
PARTS = (
    ("Street", sf.Text, {"max_length": 255}),
    ("City", sf.Text, {"max_length": 40}),
    ("PostalCode", sf.Text, {"max_length": 20, "null": True, "blank": True}),
    ("Latitude", sf.Number, {"max_digits": 9, "decimal_places": 6}),
    ("Longitude", sf.Number, {"max_digits": 9, "decimal_places": 6}),
)


def add_address(model, *prefixes):
    for prefix in prefixes:
        for name, kind, arguments in PARTS:
            model.add_to_class(prefix + name, kind(sf_field_name=prefix + name, **arguments))


class User(sf.HerokuConnectModel):
    sf_object_name = "User"

    Name = sf.Text(sf_field_name="Name", max_length=121)
    Email = sf.Email(sf_field_name="Email")
    IsActive = sf.Checkbox(sf_field_name="IsActive")
    Manager = sf.related.Lookup("self", sf_field_name="ManagerId", to_field="sf_id", on_delete=models.SET_NULL)


add_address(User, "")


class Account(sf.HerokuConnectModel):
    sf_object_name = "Account"

    Name = sf.Text("the name", sf_field_name="Name", max_length=255)
    AnnualRevenue = sf.Currency(sf_field_name="AnnualRevenue", max_digits=18, decimal_places=0)
    NumberOfEmployees = sf.Number(sf_field_name="NumberOfEmployees", max_digits=8, decimal_places=0)
    DandbCompanyId = sf.ID(sf_field_name="DandbCompanyId")
    LastViewedDate = sf.DateTime(sf_field_name="LastViewedDate")
    Owner = sf.related.Lookup(User, sf_field_name="OwnerId", to_field="sf_id", on_delete=models.PROTECT)
    Rating = sf.Picklist(sf_field_name="Rating", choices=RATINGS)
    Website = sf.URL(sf_field_name="Website", max_length=255)


add_address(Account, "Billing", "Shipping")


class Opportunity(sf.HerokuConnectModel):
    sf_object_name = "Opportunity"

    Account = sf.related.Lookup(Account, sf_field_name="AccountId", to_field="sf_id", on_delete=models.CASCADE)
    Amount = sf.Currency(sf_field_name="Amount", max_digits=18, decimal_places=2)
    CloseDate = sf.Date(sf_field_name="CloseDate")
    Probability = sf.Percent(sf_field_name="Probability", max_digits=3, decimal_places=0)
