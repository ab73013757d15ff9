"""Tests with the kit."""

from typing import Any, assert_type

import pytest

from crm.models import Account, Contact
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
        pass
    assert_type(of_contacts[0].instance.account, Account | None)
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
