"""The app's own writes on their way: ``pending_fields``, and receivers that wait for the final state."""

import os
import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from hc_signals.delivery import waiting
from hc_signals.delivery.app_writes import _is_same
from hc_signals.delivery.retrying import Retries
from hc_signals.delivery.waiting import joined
from hc_signals.models import Delivery
from hc_signals.receivers import on_change
from hc_signals.signals import record_changed
from hc_signals.testing import HerokuConnect, SalesforceOrg
from hc_signals.testing.salesforce_org import duplicate_by_poll, rapid_updates, revived_deletion
from tests.conftest import as_heroku_connect, as_the_app, deliver
from tests.interleavings import Interleaving, created, make_due
from tests.sfdc.models import Everything

pytestmark = pytest.mark.django_db(transaction=True)

INTERLEAVINGS = int(os.environ.get("INTERLEAVINGS", "150"))
"""Records in the random run, each with its own order of steps: INTERLEAVINGS=100000 for a long one."""
BATCH = 1000
"""Records that take part at one time."""

FAST_XMLBINARY = """
CREATE OR REPLACE FUNCTION public.get_xmlbinary() RETURNS varchar LANGUAGE sql STABLE
AS $$ SELECT current_setting('xmlbinary') $$
"""
"""Returns what Heroku Connect's function returns, which reads all settings of the server, three times per row."""

RECEIVER = "tests.test_settled.receive_1"

Heard = list[tuple[str, str | None, tuple[str, ...]]]
"""Of each call: the change type, the value of ``text``, the changed fields."""


@pytest.fixture
def hear(disconnected: None) -> Callable[..., Heard]:
    """Connect a receiver with these arguments of ``@on_change``; return the list of its calls."""

    lists: list[Heard] = []

    def connect(**filters: Any) -> Heard:
        lists.append(heard := [])

        def receive(instance: Everything, event: Any, **kwargs: Any) -> None:
            heard.append((event.change_type, instance.text, event.changed_fields))

        receive.__qualname__ = f"receive_{len(lists)}"
        on_change(Everything, types=("CREATE", "UPDATE", "DELETE"), **filters)(receive)
        return heard

    return connect


@pytest.fixture
def org(captured: HerokuConnect) -> SalesforceOrg:
    return SalesforceOrg(captured)


def existing(org: SalesforceOrg, **values: Any) -> Everything:
    """Return a record that is in Salesforce and in the table."""
    (sfid,) = [str(row["sfid"]) for row in created(org, 1, **values)]
    return Everything.objects.get(sf_id=sfid)


def replace_during_a_poll(org: SalesforceOrg, account: Everything) -> None:
    """Let the app write a text while a poll is under way, which then brings the older one back."""
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    poll.write()


def test_rapid_updates_are_pending_and_then_settled(org: SalesforceOrg, hear: Callable[..., Heard]) -> None:
    account, plain, settled = existing(org, text="old"), hear(), hear(settled=True)
    pending: list[Any] = []
    record_changed.connect(lambda event, **_: pending.append((event.instance.text, event.pending_fields)), weak=False)
    for _ in rapid_updates(org, account, "text", ("first", "second")):
        deliver()
        make_due()
    deliver()
    assert plain == [("UPDATE", "first", ("text",)), ("UPDATE", "second", ("text",))]
    assert pending == [("first", ("text",)), ("second", ())]
    assert settled == [], "the app has written the final value itself"
    assert not Delivery.objects.exists()


def test_settled_receiver_gets_other_fields_in_one_call(org: SalesforceOrg, hear: Callable[..., Heard]) -> None:
    account, settled = existing(org, text="old"), hear(settled=True)
    org.edit(Everything, account.sf_id, phone="1")
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    org.edit(Everything, account.sf_id, email="a@example.com")
    poll.write()
    deliver()
    assert settled == []
    org.take_writes().answer()
    org.poll(Everything, account.sf_id).write()
    deliver()
    deliver()
    assert [(kind, text, set(changed)) for kind, text, changed in settled] == [("UPDATE", "new", {"phone", "email"})]


def test_receiver_of_named_fields_waits_for_these_alone(org: SalesforceOrg, hear: Callable[..., Heard]) -> None:
    account = existing(org, text="old", phone="0")
    phones, texts = hear(settled=True, fields=["phone"]), hear(settled=True, fields=["text"])
    org.edit(Everything, account.sf_id, phone="1")
    replace_during_a_poll(org, account)
    deliver()
    assert ([set(changed) for *_, changed in phones], texts) == ([{"phone", "text"}], [])


def test_revived_record_is_no_news(org: SalesforceOrg, hear: Callable[..., Heard]) -> None:
    account, plain, settled = existing(org, text="old"), hear(), hear(settled=True)
    for _ in revived_deletion(org, account):
        deliver()
        make_due()
    deliver()
    assert [kind for kind, *_ in plain] == ["CREATE", "DELETE"]
    assert settled == []
    assert not Delivery.objects.exists()


@pytest.mark.parametrize("has_key", [True, False])
def test_record_that_a_poll_doubles(org: SalesforceOrg, hear: Callable[..., Heard], has_key: bool) -> None:
    plain, settled = hear(), hear(settled=True)
    new = Everything(text="new")
    new.external_id = new.external_id if has_key else None
    for _ in duplicate_by_poll(org, new):
        deliver()
        make_due()
    copies = Everything.objects.count()
    assert copies == (1 if has_key else 2)
    assert settled == plain == [("UPDATE", "new", ("is_deleted",)) if has_key else ("CREATE", "new", ())]


def test_refused_write_leaves_the_older_value(org: SalesforceOrg, hear: Callable[..., Heard]) -> None:
    account, settled = existing(org, text="old"), hear(settled=True)
    replace_during_a_poll(org, account)
    deliver()
    assert settled == []
    org.take_writes(refuse="FIELD_CUSTOM_VALIDATION_EXCEPTION").answer()
    make_due()
    deliver()
    assert settled == [("UPDATE", "old", ("text",))]


def test_wait_ends_after_settled_seconds(org: SalesforceOrg, hear: Callable[..., Heard], settings: Any) -> None:
    account, settled = existing(org, text="old"), hear(settled=True)
    replace_during_a_poll(org, account)
    deliver()
    make_due()
    deliver()
    assert settled == []
    settings.HC_SIGNALS = {"SETTLED_SECONDS": 0.001}
    make_due()
    deliver()
    assert settled == [("UPDATE", "old", ("text",))]


def test_end_of_the_wait_skips_values_with_a_later_one(
    org: SalesforceOrg, hear: Callable[..., Heard], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, settled = existing(org, text="old"), hear(settled=True)
    replace_during_a_poll(org, account)
    with monkeypatch.context() as patch:
        patch.setattr(Retries, "run", lambda *_: None)  # the worker has no time for it
        deliver()
        org.take_writes().answer()
        for value in ("newer", "newest"):
            org.edit(Everything, account.sf_id, text=value)
            org.poll(Everything, account.sf_id).write()
        deliver()
    assert list(Delivery.objects.values_list("state", flat=True)) == ["retry", "parked", "parked"]
    settings.HC_SIGNALS = {"SETTLED_SECONDS": 0.001}
    deliver()
    assert settled == [("UPDATE", "newest", ("text",))]


def test_value_that_the_app_has_replaced_once_more_is_forgotten(
    org: SalesforceOrg, hear: Callable[..., Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No later change brings the value back: the row has the app's value already."""
    account, settled = existing(org, text="old"), hear(settled=True)
    org.edit(Everything, account.sf_id, phone="1")
    replace_during_a_poll(org, account)
    deliver()
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'newer'")
    monkeypatch.setattr(waiting, "SHORTEST_PAUSE", float("inf"))
    make_due()
    deliver()
    assert settled == [], "a change of it may be on its way"
    monkeypatch.setattr(waiting, "SHORTEST_PAUSE", 0.0)
    make_due()
    deliver()
    assert [set(changed) for *_, changed in settled] == [{"phone"}]


def test_waiting_is_no_failure(org: SalesforceOrg, hear: Callable[..., Heard], capsys: Any, caplog: Any) -> None:
    account = existing(org, text="old")
    hear(settled=True)
    replace_during_a_poll(org, account)
    deliver(MAX_ATTEMPTS=1)
    make_due()
    deliver(MAX_ATTEMPTS=1)
    call_command("hc_deliveries", "list")
    assert "waits until Salesforce has the app's write of text" in capsys.readouterr().out
    call_command("hc_deliveries", "errors")
    assert "0 kinds of errors" in capsys.readouterr().out
    with suppress(CommandError):  # no worker runs
        call_command("hc_status")
    assert "1 waiting" in capsys.readouterr().out
    assert "receive" not in caplog.text


def test_asynchronous_receiver_waits_as_well(org: SalesforceOrg, disconnected: None, settings: Any) -> None:
    account, heard = existing(org, text="old"), []

    @on_change(Everything, settled=True)
    async def receive(instance: Everything, **kwargs: Any) -> None:
        heard.append(instance.text)

    replace_during_a_poll(org, account)
    deliver()
    assert heard == []
    writes = org.take_writes()
    org.edit(Everything, account.sf_id, text="newer")
    later = org.poll(Everything, account.sf_id)
    writes.answer()
    later.write()
    deliver()
    deliver()
    assert heard == [], "Salesforce's value may be older than the app's write"
    settings.HC_SIGNALS = {"SETTLED_SECONDS": 0.001}
    make_due()
    deliver()
    assert heard == ["newer"]


def test_waiting_change_is_no_call_of_a_dry_run(org: SalesforceOrg, hear: Callable[..., Heard], capsys: Any) -> None:
    account = existing(org, text="old")
    settled = hear(settled=True)
    replace_during_a_poll(org, account)
    deliver()
    call_command("hc_replay", "--dry-run", "--since", "1h", "--receiver", RECEIVER)
    assert f"{RECEIVER}: 0 call(s), 0 failed, 2 more" in capsys.readouterr().out
    assert settled == []


def test_replayed_change_waits_behind_the_same_rule(org: SalesforceOrg, hear: Callable[..., Heard]) -> None:
    account, settled = existing(org, text="old"), hear(settled=True)
    replace_during_a_poll(org, account)
    deliver()
    Delivery.objects.all().delete()
    call_command("hc_replay", "--since", "1h", "--receiver", RECEIVER)
    assert settled == []
    assert list(Delivery.objects.values_list("state", "attempt")) == [("retry", 0), ("parked", 0)]
    org.take_writes().answer()
    org.poll(Everything, account.sf_id).write()
    for _ in range(2):
        make_due()
        deliver()
    assert settled == [("CREATE", "new", ())]
    assert not Delivery.objects.exists()


def test_receiver_waits_outside_a_transaction(org: SalesforceOrg, hear: Callable[..., Heard]) -> None:
    account, settled = existing(org, text="old"), hear(settled=True)
    org.edit(Everything, account.sf_id, phone="1")
    replace_during_a_poll(org, account)
    deliver(ATOMIC=False)
    make_due()
    deliver(ATOMIC=False)
    assert settled == []
    org.take_writes().answer()
    org.poll(Everything, account.sf_id).write()
    for _ in range(2):
        deliver(ATOMIC=False)
    assert settled == [("UPDATE", "new", ("phone",))]


VALUES: dict[str, Any] = {
    "any_type": "a",
    "checkbox": True,
    "number": Decimal("12.50"),
    "currency": Decimal("1000000.10"),
    "percent": Decimal("0.10"),
    "whole": Decimal(7),
    "date": date(2026, 2, 28),
    "date_time": datetime.fromisoformat("2026-02-28T12:30:00+00:00"),
    "time": time(12, 30),
    "email": "ada@example.com",
    "phone": "+49 30 1",
    "picklist": "a",
    "text": 'quote " and \\ backslash',
    "text_area": "two\nlines",
    "url": "https://example.com/",
    "integer": 7,
    "multi_picklist": ["a", "b"],
}


def test_value_of_the_app_is_recognised_whatever_its_type(org: SalesforceOrg, disconnected: None) -> None:
    """The poll brings the older values back and the app's ones again, within a second: the stamp does not help."""
    account = existing(org)
    events: list[Any] = []
    record_changed.connect(lambda event, **_: events.append((event.changed_fields, event.pending_fields)), weak=False)
    older = org.poll(Everything, account.sf_id)
    for name, value in VALUES.items():
        setattr(account, name, value)
    account.save()
    org.take_writes().answer()
    older.write()
    org.poll(Everything, account.sf_id).write()
    deliver()
    assert [(set(changed), set(pending)) for changed, pending in events] == [(set(VALUES),) * 2, (set(VALUES), set())]


def test_org_takes_a_record_over_without_unsent_writes(org: SalesforceOrg) -> None:
    account = existing(org, text="old", phone="1")
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'newer', phone__c = NULL")
    found = org.record(Everything, account.sf_id)
    assert found is not None
    assert (found["text__c"], found["phone__c"]) == ("old", "1")


def test_org_takes_writes_one_after_the_other(org: SalesforceOrg) -> None:
    existing(org, text="old")
    saved: list[Any] = []
    org.add_flow(Everything, lambda record: saved.append((record["text__c"], record["phone__c"])))
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    as_the_app("UPDATE salesforce.everything__c SET phone__c = '1'")
    org.take_writes()
    assert saved == [("new", None), ("new", "1")]


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        (None, None, True),
        (None, "a", False),
        ("a", None, False),
        (True, "t", True),
        (False, "t", False),
        (12.5, "12.50", True),
        (12.5, "12.51", False),
        ("2026-02-28T12:30:00", "2026-02-28 12:30:00", True),
        ({"a": 1}, "{}", False),
    ],
)
def test_values_of_json_images_are_compared_with_texts(value: Any, text: str | None, expected: bool) -> None:
    """The images of stored deliveries are JSON."""
    assert _is_same(value, text) is expected


def test_unsent_write_is_pending_whatever_the_stamp(org: SalesforceOrg, hear: Callable[..., Heard]) -> None:
    account, settled = existing(org, text="old"), hear(settled=True)
    as_the_app("UPDATE salesforce.everything__c SET phone__c = '0'")
    org.take_writes().answer()
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    org.heroku.clock = lambda: datetime.now(UTC) + timedelta(hours=1)
    org.edit(Everything, account.sf_id, phone="1")
    org.poll(Everything, account.sf_id).write()
    deliver()
    assert settled == []


def test_archived_write_is_known(org: SalesforceOrg, hear: Callable[..., Heard]) -> None:
    account, settled = existing(org, text="old"), hear(settled=True)
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    org.take_writes().answer()
    as_heroku_connect(
        "WITH moved AS (DELETE FROM salesforce._trigger_log RETURNING *) "
        "INSERT INTO salesforce._trigger_log_archive SELECT * FROM moved"
    )
    poll.write()
    deliver()
    assert settled == []


def test_event_without_a_trigger_log_has_no_pending_fields(org: SalesforceOrg, hear: Callable[..., Heard]) -> None:
    account, settled = existing(org, text="old"), hear(settled=True)
    as_the_app("DROP TABLE salesforce._trigger_log, salesforce._trigger_log_archive CASCADE")
    org.heroku.update(Everything, account.sf_id, text="new")
    deliver()
    assert settled == [("UPDATE", "new", ("text",))]


@pytest.mark.parametrize(
    ("first", "then", "result"),
    [
        ("UPDATE", "UPDATE", "UPDATE"),
        ("UPDATE", "DELETE", "DELETE"),
        ("UPDATE", "GAP_UPDATE", "GAP_UPDATE"),
        ("GAP_UPDATE", "UPDATE", "GAP_UPDATE"),
        ("INSERT", "UPDATE", "INSERT"),
        ("GAP_CREATE", "GAP_UPDATE", "GAP_CREATE"),
        ("INSERT", "DELETE", ""),
        ("UPDATE", "INSERT", "INSERT"),
        ("UPDATE", "SNAPSHOT", None),
        ("DELETE", "INSERT", None),
    ],
)
def test_two_changes_become_one(first: str, then: str, result: str | None) -> None:
    assert joined(first, then) == result


def test_no_interleaving_brings_a_replaced_value_or_misses_one(
    org: SalesforceOrg, disconnected: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "SHORTEST_PAUSE", 0.0)
    as_the_app(FAST_XMLBINARY)
    seed = int(os.environ.get("SEED", "1"))
    playing: list[Interleaving] = []

    @on_change(Everything, settled=True, types=("CREATE", "UPDATE", "DELETE"))
    def receive(**named: Any) -> None:
        if named["event"].record_id in playing[-1].histories:  # else it is one of those that are made
            playing[-1].hear(**named)

    chance, heard, waited = random.Random(seed), 0, 0

    def flow(record: dict[str, Any]) -> None:
        playing[-1].save(record)

    org.add_flow(Everything, flow)
    for start in range(0, INTERLEAVINGS, BATCH):
        playing.append(Interleaving(org, chance, min(BATCH, INTERLEAVINGS - start)))
        playing[-1].begin()
        playing[-1].run(rounds=12)
        waited += Delivery.objects.count()
        playing[-1].finish()
        settings.HC_SIGNALS = {"SETTLED_SECONDS": 0.001}
        for _ in range(1000):
            if not Delivery.objects.exists():
                break
            deliver()
            make_due()
        assert not Delivery.objects.exists()
        settings.HC_SIGNALS = {}
        faults = defaultdict(list)
        for history in playing[-1].histories.values():
            heard += len(history.heard)
            for fault in history.faults():
                faults[history.sfid].append("\n".join([fault, *history.steps]))
        if faults:
            pytest.fail(
                f"seed {seed}, batch {start}: {len(faults)} faults, the first one:\n{next(iter(faults.values()))[0]}"
            )
        print(f"{start + BATCH} interleavings, {heard} calls, {waited} waited")
    assert heard > INTERLEAVINGS, "the run proves nothing"
    assert waited, "no receiver had to wait"
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.hc_signals_delivery")
        assert cursor.fetchone()[0] == 0
