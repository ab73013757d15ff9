"""Rows that Salesforce refused because their parent was not there yet are sent again, in order, and not for ever."""

import os
import random
from typing import Any

import pytest
from example.crm.models import Contact

from hc_signals.conf import Conf
from hc_signals.models import TriggerLog
from hc_signals.postgres.query import rows
from hc_signals.testing import HerokuConnect
from hc_signals.writes import redo_given_up
from hc_signals.writes.children import RefusedChildren, children
from tests.conftest import as_the_app, deliver
from tests.sfdc.models import Everything, Visit

pytestmark = pytest.mark.django_db(transaction=True)

PAIRS = int(os.environ.get("PAIRS", "60"))
"""Pairs of a parent and a child in the random run: PAIRS=10000 for a long one."""
CONF = Conf(REDO_CHILDREN=True, RETRY_SECONDS=0.000001, MAX_ATTEMPTS=3)


def states() -> list[tuple[str, str | None]]:
    return rows("default", "SELECT _hc_lastop, sfid FROM salesforce.visit__c ORDER BY id")


def test_children_of_unsent_parents_are_sent_again(captured: HerokuConnect) -> None:
    keys = [Contact(last_name="Ada").external_id for _ in range(3)]
    grandchild = Visit.objects.create(earlier_id=keys[2])
    Visit.objects.create(contact_id=keys[0], external_id=keys[2])
    captured.send_app_writes()
    assert [state for state, _ in states()] == ["FAILED", "FAILED"]
    refused = RefusedChildren("default", CONF)
    assert refused.redo() == 0
    Contact.objects.create(external_id=keys[0], last_name="Ada")
    captured.send_app_writes()
    assert refused.redo() == 1, "the grandchild waits for its parent"
    assert refused.redo() == 0
    captured.send_app_writes()
    assert refused.redo() == 1
    captured.send_app_writes()
    assert [state for state, _ in states()] == ["INSERTED", "INSERTED"]
    grandchild.refresh_from_db()
    assert grandchild.sf_id
    sent = TriggerLog.objects.filter(table_name="visit__c", state="SUCCESS")
    assert sorted(sent.values_list("record_id", "action")) == [(1, "INSERT"), (2, "INSERT")]


def test_other_refusals_are_left_alone(captured: HerokuConnect) -> None:
    contact = Contact.objects.create(last_name="Ada")
    captured.send_app_writes()
    Visit.objects.create(contact=contact)
    captured.send_app_writes(refuse="REQUIRED_FIELD_MISSING")
    assert RefusedChildren("default", CONF).redo() == 0


def test_row_that_was_saved_again_is_not_sent_twice(captured: HerokuConnect) -> None:
    contact = Contact.objects.create(last_name="Ada")
    visit = Visit.objects.create(contact=contact)
    captured.send_app_writes(refuse=lambda model, row_id: "Foreign key external ID: x not found" * (model is Visit))
    visit.save()
    assert RefusedChildren("default", CONF).redo() == 0


def test_update_is_sent_again(captured: HerokuConnect) -> None:
    visit = Visit.objects.create()
    captured.send_app_writes()
    parent = Contact(last_name="Ada")
    visit.contact_id = parent.external_id
    visit.save()
    captured.send_app_writes()
    parent.save()
    captured.send_app_writes()
    assert RefusedChildren("default", CONF).redo() == 1
    captured.send_app_writes()
    assert [state for state, _ in states()] == ["UPDATED"]


def test_row_is_given_up_after_the_last_attempt(captured: HerokuConnect, connect: Any, settings: Any) -> None:
    settings.HC_SIGNALS = {"MAX_ATTEMPTS": 3}
    got: list[Any] = []
    connect(redo_given_up, lambda sender, instance, message, **kwargs: got.append((sender, instance.pk)), Visit)
    refused = RefusedChildren("default", CONF)
    refused.watch()
    contact = Contact.objects.create(last_name="Ada")
    visit = Visit.objects.create(contact=contact)
    redone = 0
    for _ in range(6):
        captured.send_app_writes(refuse=lambda model, row_id: "Foreign key external ID: x not found" * (model is Visit))
        deliver()
        redone += refused.redo()
    assert redone == 3
    assert got == [(Visit, visit.pk)]


def test_pause_grows_with_the_attempts(captured: HerokuConnect) -> None:
    def refuse(model: Any, row_id: int) -> str:
        return "Foreign key external ID: x not found" * (model is Visit)

    refused = RefusedChildren("default", Conf(REDO_CHILDREN=True, RETRY_SECONDS=60.0, RETRY_MAX_SECONDS=100.0))
    Visit.objects.create(contact=Contact.objects.create(last_name="Ada"))
    due = []
    for _ in range(3):
        captured.send_app_writes(refuse=refuse)
        seconds = 0
        while not refused.redo():
            seconds += 20
            as_the_app("UPDATE salesforce._trigger_log SET processed_at = processed_at - interval '20 seconds'")
        due.append(seconds)
    assert due == [0, 60, 100]


def test_models_are_chosen(captured: HerokuConnect) -> None:
    assert RefusedChildren("default", Conf()).children == []
    assert [child.model for child in RefusedChildren("default", Conf(REDO_CHILDREN=["sfdc.visit"])).children] == [Visit]
    assert children([Everything, Contact]) == [], "their relations are to sfids"


@pytest.mark.parametrize("seed", [1, 2])
def test_pairs_in_any_order_are_all_accepted_once(captured: HerokuConnect, seed: int) -> None:
    chance = random.Random(seed)
    contacts = [Contact(last_name=str(number)) for number in range(PAIRS)]
    written: list[Any] = [*contacts, *(Visit(contact_id=contact.external_id) for contact in contacts)]
    chance.shuffle(written)
    refused = RefusedChildren("default", CONF)
    for instance in written:
        instance.save()
        if chance.random() < min(0.1, 100 / len(written)):
            captured.send_app_writes()
            refused.redo()
    while captured.send_app_writes():
        refused.redo()
    assert {state for state, _ in states()} == {"INSERTED"}
    accepted = TriggerLog.objects.filter(state="SUCCESS", action="INSERT").values_list("table_name", "record_id")
    assert len(accepted) == len(set(accepted)) == 2 * PAIRS
