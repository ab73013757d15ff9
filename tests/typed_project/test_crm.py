"""Tests with the kit."""

import datetime
import uuid
from decimal import Decimal
from typing import Any, assert_type

import pytest
from crm.models import Account, Contact

from hc_signals.db.values import MultiPicklistValue
from hc_signals.signals import record_created, record_updated
from hc_signals.testing import DeliverChanges, HerokuConnect, Sent, assert_signal, capture_signals
from hc_signals.testing.cases import HerokuConnectTestCase, HerokuConnectTransactionTestCase


def test_name_is_sent(heroku_connect: HerokuConnect, deliver_changes: DeliverChanges) -> None:
    (sfid,) = heroku_connect.insert(Account, name="Acme")
    with assert_signal(record_updated, Account, changed={"name"}, previous={"name": "Acme"}) as sent:
        heroku_connect.update(Account, sfid, name="Acme Ltd")
        assert_type(deliver_changes(raise_errors=False, MAX_ATTEMPTS=3), int)
    assert_type(sent, list[Sent[Account]])
    assert_type(sent[0].instance.name, str)
    with capture_signals() as everything:
        pass
    assert_type(everything, list[Sent[Any]])
    with capture_signals(Contact) as of_contacts:
        heroku_connect.insert(Contact, last_name="Doe", account=sfid, owner=sfid)
        deliver_changes()
    assert_type(of_contacts[0].instance.last_name, str | None)


def test_values_have_their_types(heroku_connect: HerokuConnect) -> None:
    """What ``values.read`` says about the values of a record is true."""
    day, moment, time = (
        datetime.date(2026, 1, 31),
        datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC),
        datetime.time(9),
    )
    texts = ("name", "description", "street", "phone", "email", "website", "secret", "formula", "anything")
    numbers = ("revenue", "discount", "size", "score", "grade")
    given: dict[str, Any] = {**dict.fromkeys(texts, "text"), **dict.fromkeys(numbers, 3)}
    given |= {"industry": "Retail", "rating": "a", "services": ["x"], "active": True, "employees": 3}
    given |= {"founded": day, "created": moment, "opens": time, "location": (1.0, 2.0)}
    heroku_connect.insert(Account, external_id=uuid.uuid4(), **given)
    account = Account.objects.get()
    kinds: dict[type[object], tuple[object, ...]] = {
        str: (account.sf_id, account.industry, account.rating, *(getattr(account, name) for name in texts)),
        Decimal: tuple(getattr(account, name) for name in numbers),
        bool: (account.active, account.is_deleted),
        datetime.datetime: (account.created, account.system_mod_stamp),
        datetime.date: (account.founded,),
        datetime.time: (account.opens,),
        int: (account.employees,),
        uuid.UUID: (account.external_id,),
        MultiPicklistValue: (account.services,),
        tuple: (account.location,),
        float: (account.location_latitude, account.location_longitude),
    }
    for kind, values in kinds.items():
        assert {type(value) for value in values} == {kind}


def mistakes(heroku_connect: HerokuConnect, deliver_changes: DeliverChanges) -> None:
    with assert_signal(record_updated, "crm.Account"):  # type: ignore[arg-type]
        deliver_changes(3)  # type: ignore[arg-type]
    heroku_connect.create(Account, "3")  # type: ignore[arg-type]


@pytest.mark.django_db(transaction=True)
def test_committed(heroku_connect: HerokuConnect, deliver_changes: DeliverChanges) -> None:
    assert_type(heroku_connect.create(Account, 3), list[str])
    assert deliver_changes() == 3


class AccountTests(HerokuConnectTestCase):
    databases = {"default"}

    def test_created(self) -> None:
        with assert_signal(record_created, Account, times=2):
            self.heroku_connect.create(Account, 2)
            self.deliver_changes()
        self.assertEqual(Account.objects.count(), 2)


class CommittedTests(HerokuConnectTransactionTestCase):
    def test_created(self) -> None:
        self.heroku_connect.create(Account)
        self.assertEqual(self.deliver_changes(), 1)
