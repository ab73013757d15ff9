"""``hc_triggers pause`` and ``resume``: off at the next statement, no lock on their tables, and a gap in between."""

import threading
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture import known, pausing
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import REREAD_MARGIN, Rereading
from hc_signals.conf import Conf
from hc_signals.models import Change
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import another, as_heroku_connect, as_the_app, deliver, lost


@pytest.fixture
def heard(captured: HerokuConnect, connect: Any) -> list[Any]:
    """Names of accounts and gaps, in the order in which receivers hear of them."""
    got: list[Any] = []
    connect(signals.record_changed, lambda instance, **kwargs: got.append(instance.name), Account)
    connect(signals.gap_detected, lambda event, **kwargs: got.append(event), Account)
    return got


def insert(name: str) -> None:
    as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES (%s, %s)", [name, name])


@pytest.mark.fault(
    "`hc_triggers pause`, the kill switch",
    outcome="nothing of ours is written; `resume` makes it a gap, and what changed is read again",
)
def test_what_changes_while_paused_is_one_gap_in_its_place(heard: list[Any], capsys: Any) -> None:
    insert("before")
    call_command("hc_triggers", "pause")
    call_command("hc_triggers", "pause")  # twice is once
    insert("unseen")
    as_heroku_connect("TRUNCATE salesforce.account")
    call_command("hc_triggers", "status")
    with pytest.raises(CommandError, match="paused"):
        call_command("hc_triggers", "status", "--check")
    call_command("hc_triggers", "resume")
    insert("after")
    deliver()
    first, gap, last = heard
    assert (first, last) == ("before", "after")
    assert (gap.cause, gap.change_type) == ("paused", "GAP_OVERFLOW")
    assert gap.since < gap.until <= gap.captured_at
    assert "Paused since" in capsys.readouterr().out
    call_command("hc_triggers", "resume")
    call_command("hc_triggers", "status", "--check")
    assert "not paused" in capsys.readouterr().out


@pytest.mark.parametrize("is_looked_at", [True, False])
def test_what_changed_while_paused_is_read_again(captured: HerokuConnect, connect: Any, is_looked_at: bool) -> None:
    """Also where no worker has ever looked at the table."""
    repairs = Repairs("default", Conf(), connected_models())
    if is_looked_at:
        repairs.look()
    edited, late, _ = captured.create(Account, 3)
    long_ago = timezone.now() - timedelta(days=1)
    as_the_app("UPDATE salesforce.account SET systemmodstamp = %s, createddate = %s", [long_ago, long_ago])
    deliver()
    heard: list[Any] = []
    connect(signals.record_changed, lambda event, **kwargs: heard.append((event.change_type, event.record_id)), Account)
    connect(signals.gap_detected, lambda event, **kwargs: heard.append((event.cause, None)), Account)
    call_command("hc_triggers", "pause")
    captured.update(Account, edited, name="unseen")
    (new,) = captured.create(Account, 1)
    just_before = timezone.now() - REREAD_MARGIN / 2
    as_the_app("UPDATE salesforce.account SET systemmodstamp = %s WHERE sfid = %s", [just_before, late])
    out = StringIO()
    call_command("hc_triggers", "resume", stdout=out)
    assert "reads again what Salesforce changed since, in 9 table(s)" in out.getvalue()
    repairs.look()
    assert repairs.is_reread_due
    assert Rereading("default", connected_models()).read_for(30)
    deliver()
    assert heard == [("paused", None), ("GAP_UPDATE", edited), ("GAP_UPDATE", late), ("GAP_CREATE", new)]
    repairs.look()
    assert not repairs.is_reread_due
    assert Change.objects.filter(operation="GAP", table_name="salesforce.account").count() == 1, "and is no drift"


def test_a_second_pause_has_all_read_since_the_first(captured: HerokuConnect) -> None:
    first = pausing.pause("default")
    pausing.resume("default", [Account])
    known.note_reread("default", "salesforce.account", 5)
    pausing.pause("default")
    pausing.resume("default", [Account])
    owed = known.read("default")["salesforce.account"]
    assert (owed.reread_since, owed.reread_after) == (first, None)


def test_what_is_not_read_again_after_a_pause_is_said(captured: HerokuConnect) -> None:
    as_the_app("ALTER TABLE salesforce.account DROP COLUMN systemmodstamp")
    call_command("hc_triggers", "uninstall", "crm.Contact", stdout=StringIO())
    pausing.pause("default")
    out = StringIO()
    call_command("hc_triggers", "resume", stdout=out)
    assert "in 7 table(s)" in out.getvalue()
    assert "Not in salesforce.account, without systemmodstamp: `manage.py hc_backfill` does." in out.getvalue()
    owed = known.read("default")
    assert "salesforce.account" not in owed
    assert owed["salesforce.contact"].reread_since is None, "it was uninstalled on purpose"


def test_every_consumer_hears_of_the_gap(heard: list[Any]) -> None:
    pausing.pause("default")
    pausing.resume("default", [Account])
    deliver()
    deliver(CONSUMER="other")
    assert [gap.cause for gap in heard] == ["paused", "paused"]


def test_pausing_needs_no_lock_on_a_mapped_table(captured: HerokuConnect) -> None:
    with another("LOCK TABLE salesforce.account IN ACCESS EXCLUSIVE MODE"), connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '500ms'")
        try:
            pausing.pause("default")
            pausing.resume("default", [Account])
        finally:
            cursor.execute("RESET lock_timeout")


def test_an_open_transaction_hears_of_the_pause_at_its_next_statement(captured: HerokuConnect) -> None:
    with another("SET LOCAL xmlbinary = 'hex'") as cursor:
        cursor.execute("INSERT INTO salesforce.account (sfid) VALUES ('A1')")
        pausing.pause("default")
        cursor.execute("INSERT INTO salesforce.account (sfid) VALUES ('A2')")
        cursor.connection.commit()
    assert [change.record_id for change in Change.objects.all()] == ["A1"]


def test_the_gap_is_written_when_what_was_skipped_can_be_read(heard: list[Any]) -> None:
    pausing.pause("default")
    with another("SET LOCAL xmlbinary = 'hex'") as cursor:
        cursor.execute("INSERT INTO salesforce.account (sfid) VALUES ('skipped')")

        def resume() -> None:
            call_command("hc_triggers", "resume")
            connection.close()

        resuming = threading.Thread(target=resume)
        resuming.start()
        while pausing.paused_since("default")[0]:
            pass
        insert("captured at once")
        deliver()
        assert heard == ["captured at once"]
        assert pausing.paused_since("default")[1], "the gap is owed"
        cursor.connection.commit()
    resuming.join(timeout=10)
    deliver()
    assert heard[1].cause == "paused"
    assert heard[1].since < heard[1].until


def test_an_interrupted_resume_can_be_repeated(heard: list[Any]) -> None:
    since = pausing.pause("default")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE public.hc_signals_control SET gap_since = paused_at, paused_at = NULL")
    assert pausing.paused_since("default") == (None, since)
    resumed = pausing.resume("default", [Account])
    assert resumed is not None
    assert resumed.since == since
    deliver()
    assert [gap.since for gap in heard] == [since]


def test_a_snapshot_from_before_the_resume_does_not_hide_a_change(captured: HerokuConnect) -> None:
    pausing.pause("default")
    with another("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET LOCAL xmlbinary = 'hex'") as cursor:
        cursor.execute("SELECT 1 FROM salesforce.account")
        pausing.resume("default", [Account])
        cursor.execute("INSERT INTO salesforce.account (sfid) VALUES ('A1')")
        cursor.connection.commit()
    assert lost() == 1


def test_models_cannot_be_paused_singly(captured: HerokuConnect) -> None:
    with pytest.raises(CommandError, match="all tables") as error:
        call_command("hc_triggers", "pause", "crm.Account")
    assert error.value.returncode == 2
