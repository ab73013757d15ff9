"""The app's own writes on their way: ``pending_fields``, and receivers that wait for the final state."""

import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from hc_signals.delivery import waiting
from hc_signals.delivery.retrying import Retries
from hc_signals.delivery.waiting import joined
from hc_signals.models import Delivery
from hc_signals.receivers import on_change
from hc_signals.signals import record_changed
from hc_signals.testing import HerokuConnect, SalesforceOrg
from hc_signals.testing.salesforce_org import Poll, Writes, duplicate_by_poll, rapid_updates, revived_deletion
from tests.conftest import as_heroku_connect, as_the_app, deliver
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


def created(org: SalesforceOrg, count: int, **values: Any) -> list[dict[str, Any]]:
    sfids = org.heroku._next_sfids(Everything, count)
    rows = [{"sfid": sfid, **org.heroku._stamps(), **org.heroku._columns(Everything, values)} for sfid in sfids]
    with org.heroku._as_heroku_connect():
        org.heroku._copy_rows(Everything, rows)
    deliver()
    return rows


def make_due() -> None:
    Delivery.objects.filter(state="retry").update(next_attempt_at="2020-01-01T00:00Z")


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
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    poll.write()
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
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    poll.write()
    deliver()
    assert settled == []
    org.take_writes(refuse="FIELD_CUSTOM_VALIDATION_EXCEPTION").answer()
    make_due()
    deliver()
    assert settled == [("UPDATE", "old", ("text",))]


def test_wait_ends_after_settled_seconds(org: SalesforceOrg, hear: Callable[..., Heard], settings: Any) -> None:
    account, settled = existing(org, text="old"), hear(settled=True)
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    poll.write()
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
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    poll.write()
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
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    poll.write()
    deliver()
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'newer'")
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
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    poll.write()
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

    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    poll.write()
    deliver()
    assert heard == []
    org.take_writes().answer()
    org.edit(Everything, account.sf_id, text="newer")
    org.poll(Everything, account.sf_id).write()
    deliver()
    deliver()
    assert heard == [], "Salesforce's value is as old as the app's write"
    settings.HC_SIGNALS = {"SETTLED_SECONDS": 0.001}
    make_due()
    deliver()
    assert heard == ["newer"]


def test_waiting_change_is_no_call_of_a_dry_run(org: SalesforceOrg, hear: Callable[..., Heard], capsys: Any) -> None:
    account = existing(org, text="old")
    settled = hear(settled=True)
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    poll.write()
    deliver()
    call_command("hc_replay", "--dry-run", "--since", "1h", "--receiver", RECEIVER)
    assert f"{RECEIVER}: 0 call(s), 0 failed, 2 more" in capsys.readouterr().out
    assert settled == []


def test_replayed_change_waits_behind_the_same_rule(org: SalesforceOrg, hear: Callable[..., Heard]) -> None:
    account, settled = existing(org, text="old"), hear(settled=True)
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    poll.write()
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
    poll = org.poll(Everything, account.sf_id)
    as_the_app("UPDATE salesforce.everything__c SET text__c = 'new'")
    poll.write()
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


class History:
    """What happened to one record, in order, and what a settled receiver has heard of it."""

    COLUMNS = ("text", "phone")

    def __init__(self, sfid: str, row_id: int) -> None:
        self.sfid, self.row_id = sfid, row_id
        self.values: dict[str, list[str | None]] = {name: [None] for name in self.COLUMNS}
        """In Salesforce, one after the other."""
        self.writes: list[tuple[int, str, str]] = []
        """Of the app: when, which field, which value."""
        self.applied: dict[str, int] = {}
        """By a value that the app has written: its place in ``values``."""
        self.heard: list[tuple[int, str, dict[str, str | None]]] = []
        self.deleted_at: int | None = None
        """When the app deleted the row, if Salesforce has not refused that."""
        self.poll: Any = None
        self.answers: list[Writes] = []
        self.steps: list[str] = []

    def faults(self) -> Iterator[str]:
        """Yield what a settled receiver should not have heard, and what it should have."""
        for at, kind, values in self.heard:
            if kind != "DELETE" and self.deleted_at is not None and self.deleted_at < at:
                yield f"{kind} of a record that the app had deleted"
            for name, value in values.items():
                for written, field, of_app in self.writes:
                    if kind == "DELETE" or field != name or written > at or of_app not in self.applied:
                        continue
                    if value in self.values[name] and self.values[name].index(value) < self.applied[of_app]:
                        yield f"{name} = {value} was heard at {at}, and the app had written {of_app} at {written}"
        if self.deleted_at is None:
            for name in self.COLUMNS:
                final = self.values[name][-1]
                if final is not None and final not in self.applied:  # Salesforce has made it
                    last = next((values[name] for *_, values in reversed(self.heard) if name in values), None)
                    if last != final:
                        yield f"{name} = {final} was not heard; the last value was {last}"


class Interleaving:
    """Random steps of the app, of Salesforce, of polls and of the worker, on many records at one time."""

    def __init__(self, org: SalesforceOrg, chance: random.Random, count: int) -> None:
        self.org, self.chance, self.at = org, chance, 0
        self.histories: dict[str, History] = {}
        self.count = count
        self.polled: list[Poll] = []
        self.answered: list[Writes] = []

    def begin(self) -> None:
        """Make the records."""
        rows = created(self.org, self.count)
        ids = dict(Everything.objects.filter(sf_id__in=[row["sfid"] for row in rows]).values_list("sf_id", "pk"))
        self.histories = {sfid: History(sfid, pk) for sfid, pk in ids.items()}
        self.by_row = {history.row_id: history for history in self.histories.values()}

    def hear(self, instance: Everything, event: Any, **kwargs: Any) -> None:
        self.at += 1
        history = self.histories[event.record_id]
        heard_now = [n for n in History.COLUMNS if event.change_type != "UPDATE" or n in event.changed_fields]
        history.heard.append((self.at, event.change_type, {name: getattr(instance, name) for name in heard_now}))
        history.steps.append(f"{self.at} heard {history.heard[-1][1:]}")

    def save(self, record: dict[str, Any]) -> None:
        """A flow of Salesforce: it changes some values when a record is saved. Note the values."""
        history = self.histories.get(record["sfid"])
        for name in History.COLUMNS if history else ():
            column = f"{name}__c"
            value, values = record[column], history.values[name]  # type: ignore[union-attr]
            if value == values[-1]:
                continue
            if value.startswith("app"):
                history.applied[value] = len(values)  # type: ignore[union-attr]
            if self.chance.random() < 0.1:
                record[column] = f"{value}~"
            values.append(record[column])

    def step(self, history: History) -> None:
        """Do one random step on one record."""
        self.at += 1
        kind, name = self.chance.random(), self.chance.choice(History.COLUMNS)
        if kind < 0.25 and history.deleted_at is None:
            value = f"app {self.at}"
            found = Everything.objects.filter(pk=history.row_id).update(**{name: value})
            if found:
                history.writes.append((self.at, name, value))
                history.steps.append(f"{self.at} app writes {name} = {value}")
        elif kind < 0.37 and self.org.record(Everything, history.sfid):
            self.org.edit(Everything, history.sfid, **{name: f"edit {self.at}"})
            history.steps.append(f"{self.at} edit of {name}")
        elif kind < 0.62 and history.poll is None:
            history.poll = self.org.poll(Everything, history.sfid)
            history.steps.append(f"{self.at} poll reads {self.org.record(Everything, history.sfid) and history.values}")
        elif kind < 0.87 and history.poll is not None:
            self.polled.append(history.poll)
            history.poll = None
            history.steps.append(f"{self.at} poll writes")
        elif kind < 0.95 and history.answers:
            self.answered.append(history.answers.pop(0))
            history.steps.append(f"{self.at} answer")
        elif kind > 0.99 and history.deleted_at is None and not history.answers:
            Everything.objects.filter(pk=history.row_id).delete()
            history.deleted_at = self.at
            history.steps.append(f"{self.at} app deletes")

    def take(self) -> None:
        """Let Salesforce have the app's writes; it answers each record in its own time, and refuses some writes."""
        writes = self.org.take_writes(lambda model, row_id: "REFUSED" if self.chance.random() < 0.1 else "")
        for write in writes.taken:
            history = self.by_row[write.row_id]
            history.answers.append(Writes(self.org.heroku, [write]))
            history.steps.append(f"{self.at} Salesforce takes {write.action} {write.values} {write.refusal}")
            if write.refusal and write.action == "DELETE":
                history.deleted_at = None

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            for history in self.histories.values():
                self.step(history)
            self.write()
            if self.chance.random() < 0.4:
                self.take()
            if self.chance.random() < 0.7:
                deliver()
            if self.chance.random() < 0.2:
                make_due()

    def write(self) -> None:
        """Write what polls have read, and Salesforce's answers, of this round: a batch each."""
        records = {sfid: record for poll in self.polled for sfid, record in poll.records.items()}
        Poll(self.org.heroku, Everything, records).write()
        Writes(self.org.heroku, [write for writes in self.answered for write in writes.taken]).answer()
        self.polled, self.answered = [], []

    def finish(self) -> None:
        """Let everything arrive."""
        self.take()
        for history in self.histories.values():
            if history.poll is not None:
                self.polled.append(history.poll)
            self.answered += history.answers
        self.write()
        deliver()
        self.org.poll(Everything, *self.histories).write()
        before = -1
        while before != (before := Delivery.objects.count()):
            for _ in range(4):
                deliver()
                make_due()


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
        while Delivery.objects.exists():
            deliver()
            make_due()
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
