"""Connected models of every kind, as a project without any annotation of a field writes them."""

from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import models

from hc_signals.db import models as hc_models


class Industry(models.TextChoices):
    RETAIL = "Retail"
    ENERGY = "Energy"


class Score(hc_models.Number):
    """A field class of the project."""


class Grade(hc_models.Number[Decimal, Decimal]):
    """A field class with types of its own."""


class Account(hc_models.HerokuConnectModel):
    sf_object_name = "Account"
    sf_access = hc_models.READ_WRITE

    external_id = hc_models.ExternalID(sf_field_name="External_ID__c")
    name = hc_models.Text(sf_field_name="Name", max_length=255, null=False)
    description = hc_models.TextAreaLong(sf_field_name="Description")
    street = hc_models.TextArea(sf_field_name="BillingStreet")
    phone = hc_models.Phone(sf_field_name="Phone", verbose_name="telephone")
    email = hc_models.Email(sf_field_name="Email__c")
    website = hc_models.URL(sf_field_name="Website")
    industry = hc_models.Picklist(sf_field_name="Industry", choices=Industry)
    rating = hc_models.Picklist(sf_field_name="Rating", choices=[("a", "A"), ("b", "B")], null=False)
    services = hc_models.MultiPicklist(sf_field_name="Services__c", choices=[("x", "X"), ("y", "Y")])
    active = hc_models.Checkbox(sf_field_name="Active__c")
    revenue = hc_models.Currency(sf_field_name="AnnualRevenue", max_digits=18, decimal_places=2)
    discount = hc_models.Percent(sf_field_name="Discount__c", max_digits=5, decimal_places=2, null=False)
    size = hc_models.Number("size", sf_field_name="Size__c", max_digits=5, decimal_places=0)
    score = Score(sf_field_name="Score__c", max_digits=5, decimal_places=2)
    grade = Grade(sf_field_name="Grade__c", max_digits=5, decimal_places=2, null=False)
    employees = hc_models.Integer(sf_field_name="NumberOfEmployees")
    founded = hc_models.Date(sf_field_name="Founded__c")
    created = hc_models.DateTime(sf_field_name="CreatedDate", null=False)
    opens = hc_models.Time(sf_field_name="Opens__c")
    secret = hc_models.EncryptedString(sf_field_name="Secret__c", max_length=175)
    formula = hc_models.FormulaText(sf_field_name="Formula__c")
    anything = hc_models.AnyType(sf_field_name="Anything__c")
    location = hc_models.Geolocation(sf_field_name="Location__c")

    if TYPE_CHECKING:
        # Geolocation makes these fields.
        location_latitude: float | None
        location_longitude: float | None

    def __str__(self) -> str:
        return self.name


class ContactManager(models.Manager["Contact"]):
    def of_retail(self) -> models.QuerySet["Contact"]:
        return self.filter(account__industry=Industry.RETAIL)


class Contact(hc_models.HerokuConnectModel):
    sf_object_name = "Contact"

    last_name = hc_models.Text(sf_field_name="LastName", max_length=80)
    account = hc_models.Lookup(
        Account, sf_field_name="AccountId", to_field="sf_id", on_delete=models.DO_NOTHING, related_name="contacts"
    )
    owner = hc_models.MasterDetail(
        Account,
        sf_field_name="Owner__c",
        to_field="sf_id",
        on_delete=models.DO_NOTHING,
        related_name="+",
        null=False,
    )
    boss: "hc_models.Lookup[Contact | None, Contact | None]" = hc_models.Lookup(
        "Contact", models.DO_NOTHING, sf_field_name="ReportsToId", to_field="sf_id"
    )
    friend = hc_models.Lookup("self", sf_field_name="Friend__c", to_field="sf_id", on_delete=models.DO_NOTHING)

    objects = ContactManager()

    if TYPE_CHECKING:
        account_id: str | None

    def __str__(self) -> str:
        return self.last_name or ""


class User(hc_models.HerokuConnectModel):
    """A model without two system fields."""

    sf_object_name = "User"

    system_mod_stamp = None

    username = hc_models.Text(sf_field_name="Username", max_length=80)

    def __str__(self) -> str:
        return self.username or ""


class AccountProxy(Account):
    class Meta:
        proxy = True


class Customer(Account):
    """A multi-table child."""

    parent: "models.OneToOneField[Account, Account]" = models.OneToOneField(
        Account, on_delete=models.CASCADE, to_field="external_id", parent_link=True, db_constraint=False
    )
    notes: "models.TextField[str, str]" = models.TextField()

    class Meta:
        managed = True
