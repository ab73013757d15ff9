"""hc_backfill: rows as they are now, in the order of the log; no older state follows a newer one, no writer waits."""

import datetime
import io
import os
import shlex
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture import snapshots
from hc_signals.capture.install import uninstall_capture
from hc_signals.capture.snapshots import log_rows, log_table
from hc_signals.models import Change, Delivery
from hc_signals.postgres.errors import is_lock_timeout
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, as_the_app, deliver
from tests.sfdc.models import Animal, Dog, Everything, User
from tests.test_worker_process import wait_until

PATH = "tests.test_backfill.Listener"


class Listener:
    def __init__(self) -> None:
        self.events: list[Any] = []
        self.fails = False

    def __call__(self, event: Any = None, events: Any = (), **kwargs: Any) -> None:
        if self.fails:
            raise ValueError("no")
        self.events += events or [event]


@pytest.fixture
def listener() -> Listener:
    return Listener()


def backfill(*arguments: str) -> str:
    out = io.StringIO()
    call_command("hc_backfill", *arguments, stderr=out)
    return out.getvalue()


@pytest.fixture
def other() -> Iterator[Any]:
    """The connection of a writer, with an open transaction."""
    found = connection.copy()
    found.set_autocommit(False)
    yield found
    found.close()


def as_writer(writer: Any, sql: str) -> None:
    with writer.cursor() as cursor:
        cursor.execute("SET LOCAL xmlbinary = 'hex'")
        cursor.execute("SET LOCAL lock_timeout = '5s'")
        cursor.execute(sql)


def test_snapshot_instances_equal_those_of_the_orm(captured: HerokuConnect, connect: Any, listener: Listener) -> None:
    captured.create(Everything, 5)
    deliver()
    bulk = Listener()
    connect(signals.record_changed, listener, Everything)
    connect(signals.records_changed, bulk, Everything)
    connect(signals.record_created, lambda **kwargs: pytest.fail("nothing was created"), Everything)
    output = backfill("sfdc.Everything", "--page-size", "2")
    assert "hc_backfill: 5 of 5 (100%)" in output
    assert "5 rows are in the log for 'default'; hc_listen delivers them." in output
    assert deliver() == 5
    rows = Everything.objects.order_by("id").values()
    assert [
        {name: getattr(e.instance, name) for name in row} for e, row in zip(listener.events, rows, strict=True)
    ] == [*rows]
    assert {(e.change_type, e.change_origin, e.changed_fields, e.replayed) for e in listener.events} == {
        ("SNAPSHOT", "backfill", (), False)
    }
    assert len(bulk.events) == 5


@pytest.mark.parametrize("model", [Everything, User, Dog])
def test_snapshot_image_equals_the_captured_image(captured: HerokuConnect, model: Any) -> None:
    if model is Dog:
        as_heroku_connect("INSERT INTO salesforce.dog__c (sfid, animal__c, breed__c) VALUES ('d', 'x', 'b')")
    else:
        captured.create(model, 3)
    captured_rows = Change.objects.filter(operation="INSERT", table_name__endswith=model._meta.db_table.split('"')[-1])
    before = list(captured_rows.values_list("new", "record_key", "record_id"))
    log_rows(model, "default", "SNAPSHOT", after=None, limit=10)
    snapshots_ = Change.objects.filter(operation="SNAPSHOT")
    assert list(snapshots_.values_list("new", "record_key", "record_id")) == before
    assert before


def test_backfill_calls_only_the_named_receivers(captured: HerokuConnect, connect: Any, listener: Listener) -> None:
    captured.create(User, 3)
    deliver()
    others: list[Any] = []
    connect(signals.record_created, listener, User)
    connect(signals.record_changed, lambda event, **kwargs: others.append(event), User)
    connect(signals.records_changed, lambda events, **kwargs: others.append(events), User)
    backfill("sfdc.User", "--receiver", PATH)
    deliver()
    assert [e.change_type for e in listener.events] == ["SNAPSHOT"] * 3
    assert others == []


def test_backfill_reaches_only_its_consumer(captured: HerokuConnect, connect: Any, listener: Listener) -> None:
    captured.create(User, 3)
    deliver()
    deliver(CONSUMER="other")
    connect(signals.record_changed, listener, User)
    backfill("sfdc.User", "--consumer", "other")
    assert deliver() == 3
    assert listener.events == []
    deliver(CONSUMER="other")
    assert len(listener.events) == 3


def test_failed_snapshot_delivery_is_retried(captured: HerokuConnect, connect: Any, listener: Listener) -> None:
    captured.create(User, 1)
    deliver()
    connect(signals.record_changed, listener, User)
    listener.fails = True
    backfill("sfdc.User", "--receiver", PATH)
    deliver()
    listener.fails = False
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp()")
    deliver()
    assert [e.change_type for e in listener.events] == ["SNAPSHOT"]
    assert Delivery.objects.count() == 0


def test_backfill_reaches_multi_table_children(captured: HerokuConnect, connect: Any, listener: Listener) -> None:
    captured.create(Animal)
    animal = Animal.objects.get()
    as_the_app("INSERT INTO salesforce.dog__c (sfid, animal__c) VALUES ('d', %s)", [animal.external_id.hex])
    deliver()
    connect(signals.record_changed, listener, Dog)
    backfill("sfdc.Animal", "--receiver", PATH)
    deliver()
    assert [(type(e.instance), e.instance.external_id) for e in listener.events] == [(Dog, animal.external_id)]


def test_backfill_since_skips_older_rows(captured: HerokuConnect) -> None:
    now = datetime.datetime.now(datetime.UTC)
    captured.clock = lambda: now - datetime.timedelta(hours=3)
    captured.create(Account, 4)
    captured.clock = lambda: now - datetime.timedelta(hours=1)
    captured.create(Account, 2)
    assert "2 of 2" in backfill("crm.Account", "--since", "2h")
    assert Change.objects.filter(operation="SNAPSHOT").count() == 2


def test_snapshot_does_not_follow_a_newer_state(captured: HerokuConnect, connect: Any) -> None:
    """A writer counts up in every row, in large and small transactions, while the table is backfilled four times."""
    sfids = captured.insert(User, *({"username": "0"} for _ in range(60)))
    got: dict[str, list[int]] = defaultdict(list)
    connect(signals.record_changed, lambda instance, **kwargs: got[instance.sf_id].append(int(instance.username)), User)
    stop = threading.Event()

    def write() -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                some = sfids if number % 7 == 0 else sfids[number % 20 :: 20]
                as_heroku_connect("UPDATE salesforce.user SET username = %s WHERE sfid = ANY(%s)", [number, list(some)])
        finally:
            connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(4):
            for _ in log_table(User, "default", "SNAPSHOT", page_size=25):
                pass
    finally:
        stop.set()
        writer.join()
    deliver()
    assert Change.objects.filter(operation="SNAPSHOT").count() == 240
    assert Change.objects.filter(operation="UPDATE").count() > 50, "the writer did nothing: the test proves nothing"
    for user in User.objects.all():
        numbers = got[user.sf_id]
        assert numbers == sorted(numbers)
        assert numbers[-1] == int(user.username)


def backfill_in_a_thread() -> tuple[threading.Thread, list[str]]:
    output: list[str] = []

    def run() -> None:
        try:
            for count, key in log_table(Account, DEFAULT_DB_ALIAS, "SNAPSHOT", page_size=100):
                output.append(f"{count} {key}")
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, output


def test_backfill_waits_for_a_locked_row_without_deadlock(captured: HerokuConnect, other: Any) -> None:
    """The holder of row 5 then updates row 1. A page that held row 1 and waited for row 5 would be a deadlock."""
    captured.create(Account, 10)
    keys = list(Account.objects.order_by("id").values_list("id", flat=True))
    as_writer(other, f"UPDATE salesforce.account SET name = 'x' WHERE id = {keys[4]}")
    thread, output = backfill_in_a_thread()
    try:
        wait_until(lambda: output.count(f"0 {keys[3]}") >= 2)
        as_writer(other, f"UPDATE salesforce.account SET name = 'x' WHERE id <> {keys[4]}")
        other.commit()
    finally:
        other.rollback()
        thread.join(timeout=60)
    counts = [int(line.split()[0]) for line in output]
    assert sum(counts) == 10
    assert Change.objects.filter(operation="SNAPSHOT").count() == 10
    last = Change.objects.filter(record_key=keys[4]).latest("id")
    assert (last.operation, last.new["name"]) == ("SNAPSHOT", "x")


def test_backfill_skips_a_row_deleted_during_the_wait(captured: HerokuConnect, other: Any) -> None:
    captured.create(Account, 5)
    keys = list(Account.objects.order_by("id").values_list("id", flat=True))
    as_writer(other, f"DELETE FROM salesforce.account WHERE id = {keys[2]}")
    thread, output = backfill_in_a_thread()
    try:
        wait_until(lambda: len(output) > 1 and output[-1].startswith("0 "))
        other.commit()
    finally:
        other.rollback()
        thread.join(timeout=60)
    logged = Change.objects.filter(operation="SNAPSHOT").values_list("record_key", flat=True)
    assert sorted(map(int, logged)) == keys[:2] + keys[3:]


def test_waiting_backfill_says_so_and_can_be_stopped(captured: HerokuConnect, other: Any) -> None:
    captured.create(Account, 3)
    key = Account.objects.order_by("id")[1].pk
    first = Account.objects.order_by("id")[0].pk
    as_writer(other, f"UPDATE salesforce.account SET name = 'x' WHERE id = {key}")
    out = io.StringIO()
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(SystemExit) as exit_:
            call_command("hc_backfill", "crm.Account", stderr=out)
    finally:
        timer.cancel()
    other.rollback()
    assert exit_.value.code == 143
    assert f"crm.Account: the row after {first} is locked elsewhere; waiting for it." in out.getvalue()
    assert out.getvalue().count("waiting") == 1
    assert f"go on with: python manage.py hc_backfill crm.Account --after {first}" in out.getvalue()


def test_page_of_several_rows_does_not_wait(
    captured: HerokuConnect, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured.create(Account, 5)
    key = Account.objects.order_by("id")[3].pk
    as_writer(other, f"UPDATE salesforce.account SET name = 'x' WHERE id = {key}")
    monkeypatch.setattr(snapshots, "LOCK_TIMEOUT", "10s")
    began = time.monotonic()
    with pytest.raises(OperationalError) as error:
        log_rows(Account, "default", "SNAPSHOT", after=None, limit=5)
    assert is_lock_timeout(error.value)
    assert time.monotonic() - began < 5
    assert Change.objects.filter(operation="SNAPSHOT").count() == 0


def test_page_of_a_locked_table_ends_with_a_lock_timeout(captured: HerokuConnect, other: Any) -> None:
    captured.create(Account, 1)
    with other.cursor() as cursor:
        cursor.execute("LOCK TABLE salesforce.account")
    with pytest.raises(OperationalError) as error:
        log_rows(Account, "default", "SNAPSHOT", after=None, limit=10)
    assert is_lock_timeout(error.value)
    other.rollback()
    assert log_rows(Account, "default", "SNAPSHOT", after=None, limit=10)[0] == 1


def test_backfill_can_be_interrupted_and_continued(
    captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch, connect: Any, listener: Listener
) -> None:
    captured.create(Account, 10)
    captured.create(User, 4)
    deliver()
    pages = 0

    def interrupting(*arguments: Any, **options: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return log_rows(*arguments, **options)

    connect(signals.record_changed, listener, Account)
    connect(signals.record_changed, listener, User)
    out = io.StringIO()
    monkeypatch.setattr(snapshots, "log_rows", interrupting)
    with pytest.raises(SystemExit) as exit_:
        call_command("hc_backfill", "crm.Account", "sfdc.User", "--page-size", "3", "--receiver", PATH, stderr=out)
    assert exit_.value.code == 130
    assert Change.objects.filter(operation="SNAPSHOT").count() == 6
    rest = shlex.split(out.getvalue().partition("go on with: ")[2])
    assert rest[2:6] == ["hc_backfill", "crm.Account", "sfdc.User", "--after"]
    backfill(*rest[3:])
    deliver()
    assert sorted(e.record_id for e in listener.events) == sorted(
        [*Account.objects.values_list("sf_id", flat=True), *User.objects.values_list("sf_id", flat=True)]
    )


def test_backfill_keeps_the_rate(captured: HerokuConnect) -> None:
    captured.create(Account, 6)
    output = backfill("crm.Account", "--rate", "10", "--page-size", "3")
    rate = int(output.partition("(100%), ")[2].partition("/s")[0])
    assert rate <= 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: app.Model"),
        (["crm.Nope"], "There is no model 'crm.Nope'"),
        (["crm.Seen"], "'crm.Seen' is not a connected model"),
        (["crm.Account", "--consumer", "absent"], "There is no consumer 'absent'; known: default, other."),
        (["crm.Account", "--receiver", "keep_ledger"], "did you mean example.crm.receivers.keep_ledger"),
        (["crm.Account", "--page-size", "0"], "0 is out of range"),
        (["crm.Account", "--rate", "-1"], "-1 is out of range"),
        (["crm.Account", "--since", "2999-01-01"], "lies in the future"),
        (["crm.Account", "--after", "x"], "invalid int value"),
        (["crm.Account", "--database", "nope"], "'nope' doesn't exist"),
    ],
)
def test_backfill_refuses_wrong_arguments(captured: HerokuConnect, arguments: list[str], message: str) -> None:
    captured.create(Account, 1)
    deliver()
    deliver(CONSUMER="other")
    with pytest.raises(CommandError, match=message):
        backfill(*arguments)
    assert Change.objects.filter(operation="SNAPSHOT").count() == 0


def test_backfill_refuses_an_absent_or_uncaptured_table(captured: HerokuConnect) -> None:
    captured.create(Account, 1)
    uninstall_capture(Account, "default")
    with pytest.raises(CommandError, match=r"salesforce.account is not captured .*run `manage.py hc_triggers install`"):
        backfill("crm.Account")
    captured.drop_table(Account)
    with pytest.raises(CommandError, match=r"crm.Account has no table: salesforce.account does not exist"):
        backfill("crm.Account")
    assert Change.objects.filter(operation="SNAPSHOT").count() == 0


def test_backfill_refuses_a_model_without_receivers(captured: HerokuConnect) -> None:
    both = (signals.record_changed, signals.records_changed)
    receivers = [list(each.receivers) for each in both]
    for each in both:
        each.receivers = []
        each.sender_receivers_cache.clear()
    try:
        with pytest.raises(CommandError, match="no receiver is connected to record_changed or records_changed"):
            backfill("crm.Account")
    finally:
        for each, before in zip(both, receivers, strict=True):
            each.receivers = before
            each.sender_receivers_cache.clear()
