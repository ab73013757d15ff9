"""Salesforce's side in the simulator: merges, formulas, flows, refusals, and writes that are answered late."""

from typing import Any

import pytest
from example.crm.models import Account, Contact

from hc_signals.models import TriggerLog
from hc_signals.testing import HerokuConnect, SalesforceOrg
from tests.sfdc.models import Everything, Visit

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def org(captured: HerokuConnect) -> SalesforceOrg:
    return SalesforceOrg(captured)


def test_merge_moves_what_referred_to_the_merged_record(org: SalesforceOrg) -> None:
    kept, merged = org.heroku.insert(Account, {"name": "Acme"}, {"name": "Acme Ltd"})
    one, other = org.heroku.insert(
        Contact, {"last_name": "Ada", "account": merged}, {"last_name": "Bob", "account": kept}
    )
    org.merge(Account, merged, into=kept)
    org.poll(Account, kept, merged).write()
    org.poll(Contact, one, other).write()
    assert list(Account.objects.values_list("sf_id", flat=True)) == [kept]
    assert set(Contact.objects.values_list("sf_id", "account_id")) == {(one, kept), (other, kept)}


def test_formula_does_not_move_the_stamp(org: SalesforceOrg) -> None:
    (sfid,) = org.heroku.insert(Everything, text="a")
    factor = 1
    org.add_formula(Everything, "formula", lambda record: f"{record['text__c']} {factor}")
    before = org.record(Everything, sfid)
    factor = 2
    after = org.record(Everything, sfid)
    assert before is not None and after is not None
    assert (before["formula__c"], after["formula__c"]) == ("a 1", "a 2")
    assert before["systemmodstamp"] == after["systemmodstamp"]
    org.poll(Everything, sfid).write()
    assert Everything.objects.get().formula == "a 2"


def test_flow_changes_what_the_app_has_written(org: SalesforceOrg) -> None:
    def upper(record: dict[str, Any]) -> None:
        record["text__c"] = record["text__c"].upper()

    org.add_flow(Everything, upper)
    (sfid,) = org.heroku.insert(Everything, text="a")
    Everything.objects.update(text="b")
    org.take_writes().answer()
    assert Everything.objects.get().text == "b"
    org.poll(Everything, sfid).write()
    assert Everything.objects.get().text == "B"


def test_late_answer_finds_the_row_that_a_poll_has_made(org: SalesforceOrg) -> None:
    """Heroku Connect matches by the external id, so there is one row, and it gets the sfid twice."""
    new = Contact.objects.create(last_name="Ada")
    writes = org.take_writes()
    assert [entry.state for entry in TriggerLog.objects.all()] == ["PENDING"]
    (write,) = writes.taken
    org.poll(Contact, str(write.sfid)).write()
    writes.answer()
    assert list(Contact.objects.values_list("pk", "sf_id")) == [(new.pk, write.sfid)]
    assert [entry.state for entry in TriggerLog.objects.all()] == ["SUCCESS"]


def test_impossible_writes_are_refused(org: SalesforceOrg) -> None:
    (sfid,) = org.heroku.insert(Contact, last_name="Ada")
    org.delete(Contact, sfid)
    Contact.objects.update(last_name="Bob")
    Visit.objects.create(contact_id=Contact(last_name="Carl").external_id)
    org.take_writes().answer()
    messages = [str(entry.sf_message) for entry in TriggerLog.objects.all()]
    assert "ENTITY_IS_DELETED" in messages[0]
    assert "Foreign key external ID" in messages[1]
    org.poll(Contact, sfid).write()
    assert not Contact.objects.exists()


def test_deleted_record_cannot_be_edited(org: SalesforceOrg) -> None:
    with pytest.raises(LookupError, match=r"Salesforce has no crm\.Contact 003000000000001AAA"):
        org.edit(Contact, "003000000000001AAA", last_name="Ada")
