"""The values of connected fields."""

import datetime
import uuid
from decimal import Decimal
from typing import assert_type

from crm.models import Account, Contact, ContactManager, Customer, Industry, User
from hc_signals.db import models as hc_models
from hc_signals.db.values import MultiPicklistValue


def read(account: Account, contact: Contact, customer: Customer, user: User) -> None:
    assert_type(account.sf_id, str | None)
    assert_type(account.system_mod_stamp, datetime.datetime | None)
    assert_type(account.is_deleted, bool | None)
    assert_type(account.external_id, uuid.UUID | None)
    assert_type(account.name, str)
    assert_type(account.description, str | None)
    assert_type(account.street, str | None)
    assert_type(account.phone, str | None)
    assert_type(account.email, str | None)
    assert_type(account.website, str | None)
    assert_type(account.industry, str | None)
    assert_type(account.rating, str)
    assert_type(account.services, MultiPicklistValue | None)
    assert_type(account.active, bool | None)
    assert_type(account.revenue, Decimal | None)
    assert_type(account.discount, Decimal)
    assert_type(account.size, Decimal | None)
    assert_type(account.score, Decimal | None)
    assert_type(account.grade, Decimal)
    assert_type(account.employees, int | None)
    assert_type(account.founded, datetime.date | None)
    assert_type(account.created, datetime.datetime)
    assert_type(account.opens, datetime.time | None)
    assert_type(account.secret, str | None)
    assert_type(account.formula, str | None)
    assert_type(account.anything, str | None)
    assert_type(account.location, tuple[float, float] | None)
    assert_type(account.location_latitude, float | None)
    assert_type(contact.account, Account | None)
    assert_type(contact.owner, Account)
    assert_type(contact.account_id, str | None)
    assert_type(contact.boss, Contact | None)
    assert_type(customer.name, str)
    assert_type(customer.notes, str)
    assert_type(user.username, str | None)


def write(account: Account, contact: Contact, other: Account) -> None:
    account.name = "Acme"
    account.industry = Industry.RETAIL
    account.industry = None
    account.services = ["x"]
    account.services = "x;y"
    account.services = {"x"}
    account.active = True
    account.revenue = 3
    account.revenue = Decimal(3)
    account.founded = datetime.date(2026, 1, 31)
    account.location = 1.0, 2.0
    account.location = None
    account.external_id = uuid.uuid4()
    contact.account = other
    contact.account = None
    contact.owner = other

    account.name = None  # type: ignore[assignment]
    account.phone = 3  # type: ignore[assignment]
    account.active = "yes"  # type: ignore[assignment]
    account.revenue = [3]  # type: ignore[assignment]
    account.created = None  # type: ignore[assignment]
    account.founded = 2026  # type: ignore[assignment]
    account.location = 1.0  # type: ignore[assignment]
    account.services = 3  # type: ignore[assignment]
    contact.owner = None  # type: ignore[assignment]
    contact.account = contact  # type: ignore[assignment]
    account.phone.strip()  # type: ignore[union-attr]


def query() -> None:
    assert_type(Account.objects.get(name="Acme"), Account)
    assert_type(Account.objects.filter(name__startswith="A").first(), Account | None)
    assert_type(Contact.objects, ContactManager)
    assert_type(Contact.objects.of_retail().get(), Contact)
    for account in Account.objects.all():
        assert_type(account, Account)


def mistakes() -> None:
    hc_models.Text(max_length=3)  # type: ignore[call-overload]  # sf_field_name is missing
    hc_models.Text(sf_field_name="Name", max_lenght=3)  # type: ignore[call-overload]
    hc_models.Checkbox(sf_field="Name")  # type: ignore[call-arg]
    hc_models.Lookup(Account, sf_field_name="AccountId")  # type: ignore[call-overload]  # on_delete is missing
