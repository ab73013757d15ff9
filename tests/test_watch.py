"""Drift of capture: the worker finds it without a lock, repairs it, reports a gap, and rereads what was missed."""

import logging
import re
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from example.crm.models import Account, Contact, Seen

from hc_signals import signals
from hc_signals.capture import drift, pausing, repairing, snapshots, table_state
from hc_signals.capture.function import function_name, function_sql
from hc_signals.capture.function_columns import Layout
from hc_signals.capture.reloads import finish_reloads
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import REREAD_MARGIN, Rereading
from hc_signals.capture.status import find_tables, status_of
from hc_signals.conf import Conf
from hc_signals.models import Change
from hc_signals.observability.judge.capture import capture
from hc_signals.observability.survey import Survey
from hc_signals.postgres.moments import now
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import another, as_heroku_connect, as_the_app, deliver, in_utc
from tests.server import own
from tests.test_worker_process import start, wait_until

TABLE = "salesforce.account"


def look(**conf: Any) -> Repairs:
    """Check and repair as a worker that has just started."""
    repairs = Repairs("default", Conf(**conf), connected_models())
    repairs.run()
    return repairs


def reread() -> bool:
    return Rereading("default", connected_models()).read_for(30)


def gaps() -> list[dict[str, Any]]:
    return [change.note for change in Change.objects.filter(operation="GAP", table_name=TABLE)]


def state() -> str:
    return status_of(Account, "default").state


def good_since(ago: timedelta) -> None:
    """Move the last check of all tables into the past."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE public.hc_signals_table SET good_at = %s", [now() - ago])


@pytest.fixture
def watched(captured: HerokuConnect) -> HerokuConnect:
    """Ten accounts in captured tables that a worker has checked; the log is empty."""
    captured.create(Account, 10)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE public.hc_signals_change")
    look()
    return captured


def replace_function(body: str) -> str:
    return (
        f"CREATE OR REPLACE FUNCTION public.{function_name(Account)}() RETURNS trigger LANGUAGE plpgsql "
        f"SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' "
        f"AS $hc_edited$ {body} $hc_edited$"
    )


DRIFTS: dict[str, tuple[str, Callable[[HerokuConnect], Any]]] = {
    "table re-created": ("table_recreated", lambda heroku: heroku.recreate_table(Account)),
    "one trigger dropped": (
        "trigger_missing",
        lambda heroku: as_the_app("DROP TRIGGER hc_signals_delete ON salesforce.account"),
    ),
    "function dropped, and all triggers with it": (
        "trigger_missing",
        lambda heroku: as_the_app(f"DROP FUNCTION public.{function_name(Account)} CASCADE"),
    ),
    "triggers disabled": (
        "trigger_disabled",
        lambda heroku: as_the_app("ALTER TABLE salesforce.account DISABLE TRIGGER ALL"),
    ),
    "body altered": (
        "function_altered",
        lambda heroku: as_the_app(replace_function("BEGIN RETURN NULL; END")),
    ),
    "silent reload, triggers enabled again": (
        "trigger_disabled",
        lambda heroku: heroku.reload(Account, clear="silent"),
    ),
    "file of the table replaced without TRUNCATE": (
        "table_rewritten",
        lambda heroku: as_the_app("SET LOCAL session_replication_role = replica; TRUNCATE salesforce.account"),
    ),
}


@pytest.mark.fault(
    "triggers dropped or disabled, their function altered, the table re-created or silently reloaded",
    outcome="found within 60 s, repaired; gap, and changed rows are read again",
)
@pytest.mark.parametrize("drift", DRIFTS)
def test_worker_repairs_drift_and_reports_one_gap(watched: HerokuConnect, drift: str) -> None:
    cause, happen = DRIFTS[drift]
    good_at = table_state.read("default")[TABLE].good_at
    happen(watched)
    look()
    assert state() == "installed"
    (gap,) = gaps()
    assert gap["cause"] == cause
    assert datetime.fromisoformat(gap["since"]) == good_at
    assert gap["since"] < gap["until"]
    look()
    assert len(gaps()) == 1
    before = Change.objects.count()
    watched.create(Account, 1)
    assert Change.objects.count() == before + 1
    assert Change.objects.filter(operation="GAP").count() == 1, "the other tables have no gap"


def test_check_needs_no_lock_on_a_table(watched: HerokuConnect) -> None:
    """The check finds the cause while another session holds the strongest lock."""
    cause, happen = DRIFTS["table re-created"]
    happen(watched)
    with another("LOCK TABLE salesforce.account IN ACCESS EXCLUSIVE MODE"), connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '300ms'")
        try:
            checks = drift.check_tables(connected_models(), "default")
            out = StringIO()
            call_command("hc_triggers", "status", stdout=out)
        finally:
            cursor.execute("RESET lock_timeout")
    assert [check.cause for check in checks if check.model is Account] == [cause]
    assert "salesforce.account: " in out.getvalue()


def test_delivery_continues_while_a_broken_table_is_locked(
    watched: HerokuConnect, monkeypatch: pytest.MonkeyPatch, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Any] = []
    connect(signals.gap_detected, lambda event, **kwargs: received.append(event), Account)
    monkeypatch.setattr("hc_signals.capture.install.LOCK_TIMEOUT", "50ms")
    as_the_app("ALTER TABLE salesforce.account DISABLE TRIGGER ALL")
    repairs = Repairs("default", Conf(), connected_models())
    with another("LOCK TABLE salesforce.account IN ROW EXCLUSIVE MODE"):
        assert repairs.run() == repairing.LOCKED_SECONDS
        assert repairs.run() == repairing.LOCKED_SECONDS
        assert caplog.text.count("is locked") == 1
        assert table_state.read("default")[TABLE].cause == "trigger_disabled"
        assert gaps() == []
        watched.create(Contact, 3)
        assert deliver() == 3
    assert repairs.run() == Conf().WATCH_SECONDS
    deliver()
    assert [event.cause for event in received] == ["trigger_disabled"]
    assert received[0].since < received[0].until


@pytest.mark.parametrize("step", ["recorded", "repaired"])
def test_next_worker_finishes_an_interrupted_repair(
    watched: HerokuConnect, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    as_the_app(replace_function("BEGIN RETURN NULL; END"))

    def die(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        function = "install_capture" if step == "recorded" else "table_state.report_gap"
        patch.setattr(f"hc_signals.capture.outages.{function}", die)
        with pytest.raises(KeyboardInterrupt):
            look()
    assert state() == ("outdated" if step == "recorded" else "installed")
    look()
    assert state() == "installed"
    assert [gap["cause"] for gap in gaps()] == ["function_altered"]


def test_one_of_four_workers_reports_the_gap(watched: HerokuConnect) -> None:
    watched.recreate_table(Account)
    begin = threading.Barrier(4)

    def work() -> None:
        repairs = Repairs("default", Conf(), connected_models())
        begin.wait()
        repairs.run()
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    look()
    assert len(gaps()) == 1


def test_check_from_before_the_repair_changes_nothing(watched: HerokuConnect) -> None:
    as_the_app("DROP TRIGGER hc_signals_delete ON salesforce.account")
    stale = drift.check_tables([Account], "default")[0]
    look()
    assert not table_state.record_cause("default", TABLE, stale.state, "trigger_missing")
    assert table_state.read("default")[TABLE].cause is None
    assert table_state.record_healthy("default", {TABLE: stale.healthy}) == set()
    assert find_tables([Account], "default")[0].versions == table_state.read("default")[TABLE].versions


def test_each_consumer_receives_the_gap(watched: HerokuConnect, connect: Any) -> None:
    heard: list[str] = []
    connect(signals.gap_detected, lambda event, **kwargs: heard.append(event.cause), Account)
    deliver()
    deliver(CONSUMER="other")
    watched.recreate_table(Account)
    look()
    deliver()
    deliver(CONSUMER="other")
    assert heard == ["table_recreated"] * 2


def test_gap_is_reported_after_a_repair_by_hand(watched: HerokuConnect) -> None:
    watched.recreate_table(Account)
    call_command("hc_triggers", "install", stdout=StringIO())
    look()
    assert [gap["cause"] for gap in gaps()] == ["table_recreated"]


def test_gap_of_a_recreated_table_is_reported(watched: HerokuConnect) -> None:
    """Also if a worker has found it absent in between."""
    watched.drop_table(Account)
    look()
    assert gaps() == []
    watched.create_table(Account)
    look()
    assert [gap["cause"] for gap in gaps()] == ["table_recreated"]


def test_new_table_is_captured_without_a_gap(heroku: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hc_signals")
    heroku.drop_table(Account)
    call_command("hc_triggers", "install", stdout=StringIO())
    with connection.cursor() as cursor:
        cursor.execute(f"DROP FUNCTION IF EXISTS public.{function_name(Account)}")
    look()
    heroku.create_table(Account)
    heroku.create(Account, 3)
    look()
    assert "salesforce.account is captured from now on" in caplog.text
    assert "hc_backfill crm.Account" in caplog.text
    look()
    assert (gaps(), Change.objects.count()) == ([], 0)
    heroku.create(Account, 1)
    assert Change.objects.count() == 1


def test_hc_listen_repairs_drift_at_run_time_and_at_start(captured: HerokuConnect) -> None:
    """One table is recreated while it runs, all are while it does not: then no trigger is left."""
    captured.create(Account, 3)
    process = start("hc_listen", WATCH_SECONDS="0.1")
    try:
        wait_until(lambda: table_state.read("default").get(TABLE) is not None)
        captured.recreate_table(Account)
        wait_until(lambda: reread_count() == 3)
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0
        process.communicate()
    for model in connected_models():
        captured.recreate_table(model)
    process = start("hc_listen", WATCH_SECONDS="0.1")
    try:
        wait_until(lambda: reread_count() == 6)
    finally:
        process.kill()
        process.communicate()
    assert [gap["cause"] for gap in gaps()] == ["table_recreated"] * 2


def reread_count() -> int:
    return Seen.objects.filter(change_type__in=["GAP_CREATE", "GAP_UPDATE"]).count()


# -- what is no drift --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clear", ["truncate", "delete"])
def test_captured_reload_is_no_drift(watched: HerokuConnect, clear: str) -> None:
    watched.reload(Account, clear=clear)
    look()
    look()
    assert gaps() == []


def test_truncate_in_an_open_transaction_is_no_drift(watched: HerokuConnect) -> None:
    with another("SET LOCAL xmlbinary = 'hex'; TRUNCATE salesforce.account") as cursor:
        look()
        good_since(timedelta(hours=1))
        look()  # records a snapshot that is newer than the TRUNCATE
        cursor.connection.commit()
    look()
    assert gaps() == []


def test_truncate_during_a_pause_is_reported_once(watched: HerokuConnect) -> None:
    pausing.pause("default")
    as_heroku_connect("TRUNCATE salesforce.account")
    look()
    pausing.resume("default", [Account])
    look()
    assert [gap["cause"] for gap in gaps()] == ["paused"]


def test_worker_does_not_install_uninstalled_tables(watched: HerokuConnect) -> None:
    call_command("hc_triggers", "uninstall", "crm.Account", stdout=StringIO())
    look()
    assert state() == "missing"
    call_command("hc_triggers", "uninstall", "--all", stdout=StringIO())
    look()
    assert {status_of(model, "default").state for model in connected_models()} == {"missing"}
    call_command("hc_triggers", "install", stdout=StringIO())
    look()
    assert (state(), [gap["cause"] for gap in gaps()]) == ("installed", ["uninstalled"])
    as_the_app("DROP TRIGGER hc_signals_delete ON salesforce.account")
    look()
    assert (state(), len(gaps())) == ("installed", 2)


def test_idle_run_writes_nothing_for_minutes(watched: HerokuConnect) -> None:
    before = table_state.read("default")
    look()
    assert table_state.read("default") == before
    good_since(timedelta(minutes=6))
    look()
    assert now() - table_state.read("default")[TABLE].good_at < timedelta(minutes=1)  # type: ignore[operator]


def test_idle_run_is_one_statement(watched: HerokuConnect, django_assert_num_queries: Any) -> None:
    repairs = look()
    with django_assert_num_queries(1):
        repairs.run()


# -- functions of other versions ---------------------------------------------------------------------------------------


def older_function(*without: str) -> None:
    """Install the function of a model that lacks some fields."""
    columns = tuple(c for c in find_tables([Account], "default")[0].layout(Account).columns if c not in without)
    for statement in function_sql(Account, Layout(columns)):
        as_the_app(statement)


def test_function_without_a_column_is_renewed_with_a_gap(watched: HerokuConnect) -> None:
    older_function("industry")
    look()
    assert (state(), [gap["cause"] for gap in gaps()]) == ("installed", ["columns_missing"])


def test_new_column_is_captured(watched: HerokuConnect) -> None:
    as_heroku_connect("ALTER TABLE salesforce.account DROP COLUMN industry")
    look()
    assert (state(), gaps()) == ("installed", [])
    as_heroku_connect("ALTER TABLE salesforce.account ADD COLUMN industry varchar(255)")
    look()
    assert (state(), [gap["cause"] for gap in gaps()]) == ("installed", ["columns_missing"])
    as_heroku_connect("UPDATE salesforce.account SET industry = 'Energy', name = 'x'")
    assert Change.objects.filter(changed__contains=["name"]).count() == 10


def test_function_of_an_older_release_is_renewed_without_a_gap(
    watched: HerokuConnect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hc_signals")
    as_the_app(f"ALTER FUNCTION public.{function_name(Account)}() SET lock_timeout = '9s'")
    with another("LOCK TABLE salesforce.account IN ACCESS EXCLUSIVE MODE"):
        look()
    assert (state(), gaps()) == ("installed", [])
    assert "renewed the capture function" in caplog.text


def test_two_services_do_not_replace_functions_in_turns(
    watched: HerokuConnect, caplog: pytest.LogCaptureFixture
) -> None:
    repairs = look()
    older_function("industry")
    repairs.run()
    assert (state(), gaps()) == ("outdated", [])
    assert "Another service or release has replaced" in caplog.text
    look()  # the service that starts last has the newest release
    assert state() == "installed"


HEADERS: dict[str, Callable[[str], str]] = {
    "broken JSON": lambda source: source.replace("-- Columns: [", "-- Columns: [[,"),
    "endless JSON": lambda source: re.sub(r"-- Columns: .*", lambda found: "-- Columns: " + "[" * 5000, source),
    "no list": lambda source: re.sub(r"-- Columns: .*", '-- Columns: {"id": 1}', source),
    "no names": lambda source: re.sub(r"-- Columns: .*", "-- Columns: [1, null]", source),
    "a null": lambda source: re.sub(r"-- Columns: .*", "-- Columns: null", source),
    "missing": lambda source: re.sub(r"-- Columns: .*\n", "", source),
    "twice": lambda source: re.sub(r"(-- Columns: .*\n)", r"\1\1", source),
    "nothing fresh": lambda source: fresh(source, "-- Fresh since 2026-01-01T00:00:00+00:00: "),
    "fresh since no time": lambda source: fresh(source, '-- Fresh since yesterday: ["industry"]'),
    "fresh since no day": lambda source: fresh(source, '-- Fresh since 2026-02-31T00:00:00+00:00: ["industry"]'),
    "fresh since a week": lambda source: fresh(source, '-- Fresh since 2026-W01: ["industry"]'),
    "fresh twice": lambda source: fresh(source, *['-- Fresh since 2026-01-01T00:00:00+00:00: ["industry"]'] * 2),
    "fresh numbers": lambda source: fresh(source, "-- Fresh since 2026-01-01T00:00:00+00:00: 7"),
    "another digest": lambda source: source.replace("-- Unaltered: ", "-- Unaltered: 0"),
    "empty": lambda source: "BEGIN RETURN NULL; END",
}


def fresh(source: str, *lines: str) -> str:
    return re.sub(r"(-- Columns: .*\n)", lambda found: "\n".join([found[0].strip(), *lines, ""]), source)


@pytest.mark.fault(
    "header lines of a capture function edited: broken, missing, twice",
    outcome="`outdated`; repaired; gap, and changed rows are read again",
)
@pytest.mark.parametrize("damage", HEADERS)
def test_damaged_header_is_outdated_and_repaired(watched: HerokuConnect, damage: str) -> None:
    """By ``install`` or by a worker. Nothing that reads the function raises an error."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname = %s", [function_name(Account)])
        damaged = HEADERS[damage](cursor.fetchone()[0])
    for repair in (lambda: call_command("hc_triggers", "install", stdout=StringIO()), look):
        as_the_app(replace_function(damaged))
        assert state() == "outdated"
        call_command("hc_triggers", "status", stdout=StringIO())
        found = {finding.text: finding.problem for finding in capture(Survey("default", Conf()))}
        assert "capture-outdated" in found.values()
        finish_reloads("default", Conf())
        assert drift.check_tables([Account], "default")[0].fault == "function_altered"
        repair()
        assert state() == "installed"
    assert [gap["cause"] for gap in gaps()] == ["function_altered"] * 2


# -- reporting ---------------------------------------------------------------------------------------------------------


def test_worker_repairs_nothing_if_repair_triggers_is_off(
    watched: HerokuConnect, caplog: pytest.LogCaptureFixture
) -> None:
    as_the_app(replace_function("BEGIN RETURN NULL; END"))
    repairs = look(REPAIR_TRIGGERS=False)
    repairs.run()
    assert (state(), gaps()) == ("outdated", [])
    assert caplog.text.count("REPAIR_TRIGGERS is off") == 1
    out = StringIO()
    call_command("hc_triggers", "status", "crm.Account", stdout=out)
    assert "function_altered: hc_listen reports a gap once capture works again" in out.getvalue()
    assert "captured without a gap until" in out.getvalue()
    call_command("hc_triggers", "install", stdout=StringIO())
    repairs.run()
    assert [gap["cause"] for gap in gaps()] == ["function_altered"]


def test_missing_right_is_logged_once_with_the_remedy(watched: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
    as_the_app("ALTER TABLE salesforce.account DISABLE TRIGGER ALL")
    role = own("hc_meek")
    as_the_app(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA public TO {role}")
    as_the_app(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    repairs = Repairs("default", Conf(), connected_models())
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE {role}")
            for _ in range(3):
                repairs.run()
            cursor.execute("RESET ROLE")
        assert caplog.text.count("as the role that owns") == 1
    finally:
        as_the_app(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


def test_worker_logs_orphans_and_keeps_them(watched: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
    repairs = Repairs("default", Conf(), [model for model in connected_models() if model is not Contact])
    repairs.run()
    repairs.run()
    assert caplog.text.count("salesforce.contact: orphan") == 1
    assert status_of(Contact, "default").state == "installed"


# -- reading again -----------------------------------------------------------------------------------------------------


def test_changes_without_capture_are_read_again(watched: HerokuConnect, connect: Any) -> None:
    heard: list[Any] = []
    connect(signals.record_changed, lambda event, **kwargs: heard.append((event.change_type, event.record_id)), Account)
    connect(signals.gap_detected, lambda event, **kwargs: heard.append((event.cause, None)), Account)
    old, edited, *_ = watched.sfids(Account)
    long_ago = in_utc(now() - timedelta(days=1))
    as_the_app("UPDATE salesforce.account SET systemmodstamp = %s, createddate = %s", [long_ago, long_ago])
    good_since(timedelta(minutes=10))
    as_the_app("ALTER TABLE salesforce.account DISABLE TRIGGER ALL")
    watched.update(Account, edited, name="unseen")
    (new,) = watched.create(Account, 1)
    late = in_utc(now() - timedelta(minutes=10) - REREAD_MARGIN / 2)
    as_the_app("UPDATE salesforce.account SET systemmodstamp = %s WHERE sfid = %s", [late, old])
    assert look().is_reread_due
    assert reread()
    assert table_state.read("default")[TABLE].reread_since is None
    deliver()
    assert heard == [("trigger_disabled", None), ("GAP_UPDATE", old), ("GAP_UPDATE", edited), ("GAP_CREATE", new)]


def test_reread_continues_after_an_interruption(watched: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hc_signals.capture.rereading.PAGE_SIZE", 3)
    watched.recreate_table(Account)
    look()
    reader = Rereading("default", connected_models())
    assert not reader.read_for(0.000001)
    calls = 0
    record = table_state.record_reread

    def dies(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        record(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(table_state, "record_reread", dies)
        with pytest.raises(KeyboardInterrupt):
            reader.read_for(30)
    assert Change.objects.filter(operation__startswith="GAP_").count() == 9, "the interrupted page was rolled back"
    assert reread()
    again = list(Change.objects.filter(operation__startswith="GAP_").values_list("record_id", flat=True))
    assert len(again) == len(set(again)) == 10


def test_reread_of_other_tables_continues_past_a_locked_row(watched: HerokuConnect) -> None:
    watched.create(Contact, 2)
    for model in (Account, Contact):
        watched.recreate_table(model)
    look()
    with another("UPDATE salesforce.account SET name = 'x' WHERE id = (SELECT min(id) FROM salesforce.account)"):
        assert reread()
        assert Change.objects.filter(operation__startswith="GAP_").values("table_name").distinct().count() == 1
        assert table_state.read("default")[TABLE].reread_since is not None
    assert reread()
    assert Change.objects.filter(operation__startswith="GAP_", table_name=TABLE).count() == 10


def test_reread_waits_while_the_log_is_nearly_full(watched: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
    watched.recreate_table(Account)
    look()
    as_the_app("UPDATE public.hc_signals_control SET max_bucket_bytes = 1")
    assert not snapshots.has_room("default")
    assert reread()
    assert "nearly full" in caplog.text
    assert not Change.objects.filter(operation__startswith="GAP_").exists()
    as_the_app("UPDATE public.hc_signals_control SET max_bucket_bytes = 100000000")
    assert reread()
    assert Change.objects.filter(operation__startswith="GAP_").count() == 10


def test_worker_logs_that_it_cannot_reread_without_a_time(
    watched: HerokuConnect, caplog: pytest.LogCaptureFixture
) -> None:
    as_the_app("ALTER TABLE salesforce.account DROP COLUMN systemmodstamp")
    look()
    as_the_app("ALTER TABLE salesforce.account DISABLE TRIGGER ALL")
    assert not look().is_reread_due
    assert len(gaps()) == 1
    assert "Nothing is read again; `manage.py hc_backfill crm.Account`" in caplog.text


def test_drift_before_the_first_check_is_a_gap_without_a_since(captured: HerokuConnect) -> None:
    captured.recreate_table(Account)
    look()
    assert [(gap["cause"], gap["since"]) for gap in gaps()] == [("trigger_missing", None)]


def test_gap_is_reported_after_open_writers_commit(watched: HerokuConnect, monkeypatch: Any) -> None:
    """A writer is still open whose change the altered function did not log."""
    monkeypatch.setattr("hc_signals.capture.install.LOCK_TIMEOUT", "50ms")
    as_the_app(replace_function("BEGIN RETURN NULL; END"))
    with another("SET LOCAL xmlbinary = 'hex'; INSERT INTO salesforce.account (sfid) VALUES ('quiet')") as cursor:
        look()
        assert gaps() == []
        cursor.connection.commit()
    look()
    assert len(gaps()) == 1
