"""``hc_triggers pause`` and ``resume``: they work from the next statement, need no table lock, and report a gap."""

import threading
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture import outages, pausing, table_state
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import REREAD_MARGIN, Rereading
from hc_signals.capture.status import statuses_of
from hc_signals.conf import Conf
from hc_signals.models import Change
from hc_signals.postgres.moments import now
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import another, as_heroku_connect, as_the_app, deliver, in_utc, lost


@pytest.fixture
def heard(captured: HerokuConnect, connect: Any) -> list[Any]:
    """Names of accounts, and gaps, in the order in which receivers are called."""
    got: list[Any] = []
    connect(signals.record_changed, lambda instance, **kwargs: got.append(instance.name), Account)
    connect(signals.gap_detected, lambda event, **kwargs: got.append(event), Account)
    return got


def insert(name: str) -> None:
    as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES (%s, %s)", [name, name])


@pytest.mark.fault(
    "`hc_triggers pause`, the kill switch",
    outcome="nothing is captured; `resume` reports a gap, and changed rows are read again",
)
def test_pause_and_resume_report_one_gap_in_order(heard: list[Any], capsys: Any) -> None:
    insert("before")
    call_command("hc_triggers", "pause")
    call_command("hc_triggers", "pause")  # the second has no effect
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


@pytest.mark.parametrize("is_checked", [True, False])
def test_changes_during_a_pause_are_read_again(captured: HerokuConnect, connect: Any, is_checked: bool) -> None:
    """Also if no worker has ever checked the table."""
    repairs = Repairs("default", Conf(), connected_models())
    if is_checked:
        repairs.run()
    edited, late, _ = captured.create(Account, 3)
    long_ago = in_utc(now() - timedelta(days=1))
    as_the_app("UPDATE salesforce.account SET systemmodstamp = %s, createddate = %s", [long_ago, long_ago])
    deliver()
    heard: list[Any] = []
    connect(signals.record_changed, lambda event, **kwargs: heard.append((event.change_type, event.record_id)), Account)
    connect(signals.gap_detected, lambda event, **kwargs: heard.append((event.cause, None)), Account)
    call_command("hc_triggers", "pause")
    captured.update(Account, edited, name="unseen")
    (new,) = captured.create(Account, 1)
    just_before = in_utc(now() - REREAD_MARGIN / 2)
    as_the_app("UPDATE salesforce.account SET systemmodstamp = %s WHERE sfid = %s", [just_before, late])
    out = StringIO()
    call_command("hc_triggers", "resume", stdout=out)
    assert "reads again what Salesforce changed since, in 10 table(s)" in out.getvalue()
    repairs.run()
    assert repairs.is_reread_due
    assert Rereading("default", connected_models()).read_for(30)
    deliver()
    assert heard == [("paused", None), ("GAP_UPDATE", edited), ("GAP_UPDATE", late), ("GAP_CREATE", new)]
    repairs.run()
    assert not repairs.is_reread_due
    assert Change.objects.filter(operation="GAP", table_name="salesforce.account").count() == 1, "a pause is no drift"


def test_second_pause_requests_a_reread_since_the_first(captured: HerokuConnect) -> None:
    first = pausing.pause("default")
    pausing.resume("default", [Account])
    table_state.record_reread("default", "salesforce.account", 5)
    pausing.pause("default")
    pausing.resume("default", [Account])
    owed = table_state.read("default")["salesforce.account"]
    assert (owed.reread_since, owed.reread_after) == (first, None)


def test_resume_names_tables_that_are_not_read_again(captured: HerokuConnect) -> None:
    as_the_app("ALTER TABLE salesforce.account DROP COLUMN systemmodstamp")
    call_command("hc_triggers", "uninstall", "crm.Contact", stdout=StringIO())
    pausing.pause("default")
    out = StringIO()
    call_command("hc_triggers", "resume", stdout=out)
    assert "in 8 table(s)" in out.getvalue()
    assert "Not in salesforce.account, without systemmodstamp: `manage.py hc_backfill` does." in out.getvalue()
    owed = table_state.read("default")
    assert owed["salesforce.account"].reread_since is None
    assert owed["salesforce.contact"].reread_since is None, "it was uninstalled on purpose"


def test_every_consumer_receives_the_gap_of_a_pause(heard: list[Any]) -> None:
    pausing.pause("default")
    pausing.resume("default", [Account])
    deliver()
    deliver(CONSUMER="other")
    assert [gap.cause for gap in heard] == ["paused", "paused"]


def test_pause_needs_no_lock_on_a_mapped_table(captured: HerokuConnect) -> None:
    with another("LOCK TABLE salesforce.account IN ACCESS EXCLUSIVE MODE"), connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '500ms'")
        try:
            pausing.pause("default")
            pausing.resume("default", [Account])
        finally:
            cursor.execute("RESET lock_timeout")


def test_pause_stops_capture_in_an_open_transaction(captured: HerokuConnect) -> None:
    with another("SET LOCAL xmlbinary = 'hex'") as cursor:
        cursor.execute("INSERT INTO salesforce.account (sfid) VALUES ('A1')")
        pausing.pause("default")
        cursor.execute("INSERT INTO salesforce.account (sfid) VALUES ('A2')")
        cursor.connection.commit()
    assert [change.record_id for change in Change.objects.all()] == ["A1"]


def test_resume_reports_the_gap_after_open_writers_commit(heard: list[Any]) -> None:
    pausing.pause("default")
    with another("SET LOCAL xmlbinary = 'hex'") as cursor:
        cursor.execute("INSERT INTO salesforce.account (sfid) VALUES ('skipped')")

        def resume() -> None:
            call_command("hc_triggers", "resume")
            connection.close()

        resuming = threading.Thread(target=resume)
        resuming.start()
        while pausing.find("default").since:
            pass
        insert("captured at once")
        deliver()
        assert heard == ["captured at once"]
        assert pausing.find("default").owed
        cursor.connection.commit()
    resuming.join(timeout=60)
    deliver()
    assert heard[1].cause == "paused"
    assert heard[1].since < heard[1].until


def test_resume_can_be_repeated_after_an_interruption(heard: list[Any]) -> None:
    since = pausing.pause("default")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE public.hc_signals_control SET gap_since = paused_at, paused_at = NULL")
    assert pausing.find("default") == pausing.Pause(None, since)
    resumed = pausing.resume("default", [Account])
    assert resumed is not None
    assert resumed.since == since
    deliver()
    assert [gap.since for gap in heard] == [since]


def test_writer_with_an_older_snapshot_is_lost_after_resume(captured: HerokuConnect) -> None:
    pausing.pause("default")
    with another("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET LOCAL xmlbinary = 'hex'") as cursor:
        cursor.execute("SELECT 1 FROM salesforce.account")
        pausing.resume("default", [Account])
        cursor.execute("INSERT INTO salesforce.account (sfid) VALUES ('A1')")
        cursor.connection.commit()
    assert lost() == 1


def test_pause_refuses_single_models(captured: HerokuConnect) -> None:
    with pytest.raises(CommandError, match="all tables") as error:
        call_command("hc_triggers", "pause", "crm.Account")
    assert error.value.returncode == 2


# -- pause --remove --------------------------------------------------------------------------------------------------


def ours_on_tables() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'hc\\_signals\\_%'")
        names = [row[0] for row in cursor.fetchall()]
        cursor.execute("SELECT proname FROM pg_proc WHERE proname LIKE 'hc\\_signals\\_capture\\_%'")
        return names + [row[0] for row in cursor.fetchall()]


def triggers_command(*arguments: str) -> str:
    out = StringIO()
    call_command("hc_triggers", *arguments, stdout=out, stderr=out)
    return out.getvalue()


@pytest.mark.fault(
    "`hc_triggers pause --remove`: temporary disk full, `temp_file_limit`",
    outcome="no trigger is left on any table; `resume` restores them and reports a gap; changed rows are read again",
)
def test_pause_remove_leaves_no_object_on_the_tables(heard: list[Any]) -> None:
    """Neither the worker nor a deployment restores them; capture of removed models is removed as well."""
    as_the_app("ALTER TABLE salesforce.contact RENAME TO people")
    repairs = Repairs("default", Conf(), connected_models())
    repairs.run()
    assert "taken off" not in triggers_command("pause", "--remove")
    assert ours_on_tables() == []
    repairs.run()
    assert "has removed capture from every table" in triggers_command("install")
    triggers_command("pause")  # a plain pause does not end --remove
    assert ours_on_tables() == []
    assert "Paused, and taken off every table, since" in triggers_command("status")
    insert("unseen")
    assert heard == []
    out = triggers_command("resume")
    assert "in 9 table(s)" in out, "salesforce.contact does not exist"
    as_the_app("ALTER TABLE salesforce.people RENAME TO contact")
    repairs.run()
    deliver()
    assert [gap.cause for gap in heard] == ["paused"]
    assert {note["cause"] for note in Change.objects.filter(operation="GAP").values_list("note", flat=True)} == {
        "paused"
    }
    assert Change.objects.filter(operation="GAP").count() == 10
    call_command("hc_triggers", "status", "--check", stdout=StringIO())


def test_pause_remove_continues_after_a_locked_table(captured: HerokuConnect, monkeypatch: Any) -> None:
    monkeypatch.setattr("hc_signals.capture.install.LOCK_TIMEOUT", "20ms")
    with another("LOCK TABLE salesforce.account IN ROW EXCLUSIVE MODE"):
        with pytest.raises(CommandError, match=r"Not taken off: crm.Account.*run the command again"):
            triggers_command("pause", "--remove")
        assert len(ours_on_tables()) == 6, "those of one table"
        insert("unseen")
        assert Change.objects.count() == 0, "it is paused nevertheless"
    first = pausing.find("default").since
    triggers_command("pause", "--remove")
    assert ours_on_tables() == []
    assert pausing.find("default").since == first


def test_resume_names_a_table_that_it_could_not_restore(captured: HerokuConnect, monkeypatch: Any) -> None:
    """The other tables are captured again; the worker restores this one later, and reports its gap."""
    monkeypatch.setattr("hc_signals.capture.install.LOCK_TIMEOUT", "20ms")
    triggers_command("pause", "--remove")
    refused = pytest.raises(CommandError, match=r"Not installed: crm.Account.*the gap is reported then")
    with another("LOCK TABLE salesforce.account IN ROW EXCLUSIVE MODE"), refused:
        triggers_command("resume")
    gaps = Change.objects.filter(operation="GAP")
    assert (gaps.count(), gaps.filter(table_name="salesforce.account").count()) == (9, 0)
    Repairs("default", Conf(), connected_models()).run()
    (gap,) = gaps.filter(table_name="salesforce.account")
    assert gap.note["cause"] == "paused"
    assert pausing.find("default") == pausing.Pause()


@pytest.mark.parametrize("step", ["repair", "report_gap"])
def test_repeated_resume_restores_the_remaining_tables(captured: HerokuConnect, monkeypatch: Any, step: str) -> None:
    """It ends between two tables, or before it reports a gap. A worker changes nothing until it is repeated."""
    repairs = Repairs("default", Conf(), connected_models())
    repairs.run()
    triggers_command("pause", "--remove")
    calls = 0
    original = getattr(outages, step)

    def dies(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(outages, step, dies)
        with pytest.raises(KeyboardInterrupt):
            triggers_command("resume")
    assert len(ours_on_tables()) == (12 if step == "repair" else 60)
    repairs.run()
    assert Change.objects.count() == 0
    triggers_command("resume")
    assert Change.objects.filter(operation="GAP").count() == 10
    assert len(ours_on_tables()) == 60


def test_resume_does_not_install_uninstalled_tables(captured: HerokuConnect) -> None:
    """Uninstalled before or during the pause: one gap is reported when capture is installed, from the beginning."""
    Repairs("default", Conf(), connected_models()).run()
    triggers_command("uninstall", "crm.Account")
    since = pausing.pause("default")
    triggers_command("uninstall", "crm.Contact")
    triggers_command("pause", "--remove")
    triggers_command("resume")
    state = {status.table: status.state for status in statuses_of(connected_models(), "default")}
    assert [table for table, found in state.items() if found == "missing"] == [
        "salesforce.account",
        "salesforce.contact",
    ]
    triggers_command("install")
    gaps = {change.table_name: change.note for change in Change.objects.filter(operation="GAP")}
    assert gaps["salesforce.account"]["cause"] == gaps["salesforce.contact"]["cause"] == "uninstalled"
    assert datetime.fromisoformat(gaps["salesforce.account"]["since"]) < since
    assert datetime.fromisoformat(gaps["salesforce.contact"]["since"]) == since


def test_pause_records_gaps_of_removed_models(captured: HerokuConnect) -> None:
    """The worker of another service, or of a later release with the model, reports the recorded gap."""
    others = [model for model in connected_models() if model is not Account]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pausing, "connected_models", lambda: others)
        pausing.pause("default")
        pausing.resume("default", others)
    assert table_state.read("default")["salesforce.account"].cause == "paused"


def test_loss_during_a_resume_is_reported_after_its_commit(captured: HerokuConnect, connect: Any) -> None:
    """``resume`` waits for a writer; another one loses its change, and commits after the gap of the pause."""
    captured.insert(Account, {"name": "a"}, {"name": "b"})
    deliver()
    names: list[set[str]] = []
    connect(signals.gap_detected, lambda **kwargs: names.append(set(Account.objects.values_list("name", flat=True))))
    pausing.pause("default")
    with another("SET LOCAL xmlbinary = 'hex'") as first, another("SET LOCAL xmlbinary = 'hex'") as second:
        first.execute("UPDATE salesforce.account SET name = 'changed' WHERE name = 'a'")
        resuming = threading.Thread(target=resume_in_thread)
        resuming.start()
        while pausing.find("default").since is not None:
            pass
        with another("LOCK TABLE public.hc_signals_change IN ACCESS EXCLUSIVE MODE"):
            second.execute("UPDATE salesforce.account SET name = 'missed' WHERE name = 'b'")
        first.connection.commit()
        resuming.join(30)
        deliver()
        second.connection.commit()
    deliver()
    assert "missed" in names[-1]


def resume_in_thread() -> None:
    try:
        call_command("hc_triggers", "resume")
    finally:
        connection.close()
