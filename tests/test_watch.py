"""Drift of capture: found without a lock, repaired, told as a gap with its times, and what was missed is read again."""

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
from hc_signals.capture import drift, pausing, repairing, snapshots, table_state, triggers
from hc_signals.capture.function import function_name
from hc_signals.capture.reloads import finish_reloads
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import REREAD_MARGIN, Rereading
from hc_signals.conf import Conf
from hc_signals.models import Change
from hc_signals.observability.judge.capture import capture
from hc_signals.postgres.moments import now
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import another, as_heroku_connect, as_the_app, deliver, in_utc
from tests.server import own
from tests.test_worker_process import start, wait_until

TABLE = "salesforce.account"


def look(**conf: Any) -> Repairs:
    """Look as a worker that has just started."""
    repairs = Repairs("default", Conf(**conf), connected_models())
    repairs.look()
    return repairs


def reread() -> bool:
    return Rereading("default", connected_models()).read_for(30)


def gaps() -> list[dict[str, Any]]:
    return [change.note for change in Change.objects.filter(operation="GAP", table_name=TABLE)]


def state() -> str:
    return triggers.status(Account, "default").state


def good_since(ago: timedelta) -> None:
    """Let the last look at all tables be so long ago."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE public.hc_signals_table SET good_at = %s", [now() - ago])


@pytest.fixture
def watched(captured: HerokuConnect) -> HerokuConnect:
    """Ten accounts on captured tables at which a worker has looked; the log is empty."""
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
    outcome="found within 60 s, repaired; gap, and what changed is read again",
)
@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_repaired_and_told_once(watched: HerokuConnect, drift: str) -> None:
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
    assert Change.objects.filter(operation="GAP").count() == 1, "the other tables were not concerned"


def test_looking_takes_no_lock(watched: HerokuConnect) -> None:
    """Somebody holds the table for good; what is wrong is found all the same, and told."""
    cause, happen = DRIFTS["table re-created"]
    happen(watched)
    with another("LOCK TABLE salesforce.account IN ACCESS EXCLUSIVE MODE"), connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '300ms'")
        try:
            sights = drift.look(connected_models(), "default")
            out = StringIO()
            call_command("hc_triggers", "status", stdout=out)
        finally:
            cursor.execute("RESET lock_timeout")
    assert [sight.cause for sight in sights if sight.model is Account] == [cause]
    assert "salesforce.account: " in out.getvalue()


def test_a_locked_table_is_repaired_later_and_delivery_goes_on(
    watched: HerokuConnect, monkeypatch: pytest.MonkeyPatch, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []
    connect(signals.gap_detected, lambda event, **kwargs: heard.append(event), Account)
    monkeypatch.setattr(triggers, "LOCK_TIMEOUT", "50ms")
    as_the_app("ALTER TABLE salesforce.account DISABLE TRIGGER ALL")
    repairs = Repairs("default", Conf(), connected_models())
    with another("LOCK TABLE salesforce.account IN ROW EXCLUSIVE MODE"):
        assert repairs.look() == repairing.LOCKED_PAUSE
        assert repairs.look() == repairing.LOCKED_PAUSE
        assert caplog.text.count("is locked") == 1
        assert table_state.read("default")[TABLE].cause == "trigger_disabled"
        assert gaps() == []
        watched.create(Contact, 3)
        assert deliver() == 3
    assert repairs.look() == Conf().WATCH_SECONDS
    deliver()
    assert [event.cause for event in heard] == ["trigger_disabled"]
    assert heard[0].since < heard[0].until


@pytest.mark.parametrize("step", ["noted", "repaired"])
def test_who_dies_in_the_middle_leaves_enough_for_the_next(
    watched: HerokuConnect, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    as_the_app(replace_function("BEGIN RETURN NULL; END"))

    def die(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((triggers, "install") if step == "noted" else (table_state, "settle")), die)
        with pytest.raises(KeyboardInterrupt):
            look()
    assert state() == ("outdated" if step == "noted" else "installed")
    look()
    assert state() == "installed"
    assert [gap["cause"] for gap in gaps()] == ["function_altered"]


def test_of_two_workers_one_tells(watched: HerokuConnect) -> None:
    watched.recreate_table(Account)
    begin = threading.Barrier(4)

    def work() -> None:
        repairs = Repairs("default", Conf(), connected_models())
        begin.wait()
        repairs.look()
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    look()
    assert len(gaps()) == 1


def test_a_look_of_before_the_repair_does_nothing(watched: HerokuConnect) -> None:
    as_the_app("DROP TRIGGER hc_signals_delete ON salesforce.account")
    stale = drift.look([Account], "default")[0]
    look()
    assert not table_state.suspect("default", TABLE, stale.known, "trigger_missing")
    assert table_state.read("default")[TABLE].cause is None
    assert table_state.note_good("default", [(TABLE, *stale.good)]) == set()
    assert triggers.find([Account], "default")[0].versions == table_state.read("default")[TABLE].versions


def test_each_consumer_hears_of_the_gap(watched: HerokuConnect, connect: Any) -> None:
    heard: list[str] = []
    connect(signals.gap_detected, lambda event, **kwargs: heard.append(event.cause), Account)
    deliver()
    deliver(CONSUMER="other")
    watched.recreate_table(Account)
    look()
    deliver()
    deliver(CONSUMER="other")
    assert heard == ["table_recreated"] * 2


def test_a_repair_by_hand_is_told_all_the_same(watched: HerokuConnect) -> None:
    watched.recreate_table(Account)
    call_command("hc_triggers", "install", stdout=StringIO())
    look()
    assert [gap["cause"] for gap in gaps()] == ["table_recreated"]


def test_a_table_that_was_absent_for_a_while_is_told_from_when_it_was_seen_last(watched: HerokuConnect) -> None:
    watched.drop_table(Account)
    look()
    assert gaps() == []
    watched.create_table(Account)
    look()
    assert [gap["cause"] for gap in gaps()] == ["table_recreated"]


def test_a_table_that_appears_for_the_first_time_is_no_gap(
    heroku: HerokuConnect, caplog: pytest.LogCaptureFixture
) -> None:
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


def test_hc_listen_watches(captured: HerokuConnect) -> None:
    """While it runs one table is re-created; while it is down all are: then no trigger is left anywhere."""
    captured.create(Account, 3)
    process = start("hc_listen", WATCH_SECONDS="0.1")
    try:
        wait_until(lambda: table_state.read("default").get(TABLE) is not None)
        captured.recreate_table(Account)
        wait_until(lambda: told() == 3)
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0
        process.communicate()
    for model in connected_models():
        captured.recreate_table(model)
    process = start("hc_listen", WATCH_SECONDS="0.1")
    try:
        wait_until(lambda: told() == 6)
    finally:
        process.kill()
        process.communicate()
    assert [gap["cause"] for gap in gaps()] == ["table_recreated"] * 2


def told() -> int:
    return Seen.objects.filter(change_type__in=["GAP_CREATE", "GAP_UPDATE"]).count()


# -- what is no drift --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clear", ["truncate", "delete"])
def test_a_reload_that_was_captured_is_no_drift(watched: HerokuConnect, clear: str) -> None:
    watched.reload(Account, clear=clear)
    look()
    look()
    assert gaps() == []


def test_a_truncate_that_is_open_while_somebody_looks_is_no_drift(watched: HerokuConnect) -> None:
    with another("SET LOCAL xmlbinary = 'hex'; TRUNCATE salesforce.account") as cursor:
        look()
        good_since(timedelta(hours=1))
        look()  # stores a position in the log behind the TRUNCATE
        cursor.connection.commit()
    look()
    assert gaps() == []


def test_a_pause_is_no_drift_and_what_happens_in_it_is_told_once(watched: HerokuConnect) -> None:
    pausing.pause("default")
    as_heroku_connect("TRUNCATE salesforce.account")
    look()
    pausing.resume("default", [Account])
    look()
    assert [gap["cause"] for gap in gaps()] == ["paused"]


def test_what_was_uninstalled_on_purpose_stays_so(watched: HerokuConnect) -> None:
    call_command("hc_triggers", "uninstall", "crm.Account", stdout=StringIO())
    look()
    assert state() == "missing"
    call_command("hc_triggers", "uninstall", "--all", stdout=StringIO())
    look()
    assert {triggers.status(model, "default").state for model in connected_models()} == {"missing"}
    call_command("hc_triggers", "install", stdout=StringIO())
    look()
    assert (state(), [gap["cause"] for gap in gaps()]) == ("installed", ["uninstalled"])
    as_the_app("DROP TRIGGER hc_signals_delete ON salesforce.account")
    look()
    assert (state(), len(gaps())) == ("installed", 2)


def test_an_idle_look_writes_nothing_for_minutes(watched: HerokuConnect) -> None:
    before = table_state.read("default")
    look()
    assert table_state.read("default") == before
    good_since(timedelta(minutes=6))
    look()
    assert now() - table_state.read("default")[TABLE].good_at < timedelta(minutes=1)  # type: ignore[operator]


def test_an_idle_look_is_one_statement(watched: HerokuConnect, django_assert_num_queries: Any) -> None:
    repairs = look()
    with django_assert_num_queries(1):
        repairs.look()


# -- functions of other versions ---------------------------------------------------------------------------------------


def older_function(*without: str) -> None:
    """Install the function of a model that lacks some fields."""
    columns = tuple(c for c in triggers.find([Account], "default")[0].layout(Account).columns if c not in without)
    for statement in triggers.function_sql(Account, triggers.Layout(columns)):
        as_the_app(statement)


def test_a_function_that_lacked_a_column_is_renewed_and_told(watched: HerokuConnect) -> None:
    older_function("industry")
    look()
    assert (state(), [gap["cause"] for gap in gaps()]) == ("installed", ["columns_missing"])


def test_a_new_column_is_captured(watched: HerokuConnect) -> None:
    as_heroku_connect("ALTER TABLE salesforce.account DROP COLUMN industry")
    look()
    assert (state(), gaps()) == ("installed", [])
    as_heroku_connect("ALTER TABLE salesforce.account ADD COLUMN industry varchar(255)")
    look()
    assert (state(), [gap["cause"] for gap in gaps()]) == ("installed", ["columns_missing"])
    as_heroku_connect("UPDATE salesforce.account SET industry = 'Energy', name = 'x'")
    assert Change.objects.filter(changed__contains=["name"]).count() == 10


def test_a_function_of_an_older_release_is_renewed_without_a_lock_and_without_a_gap(
    watched: HerokuConnect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hc_signals")
    as_the_app(f"ALTER FUNCTION public.{function_name(Account)}() SET lock_timeout = '9s'")
    with another("LOCK TABLE salesforce.account IN ACCESS EXCLUSIVE MODE"):
        look()
    assert (state(), gaps()) == ("installed", [])
    assert "was renewed" in caplog.text


def test_services_with_different_models_of_a_table_do_not_take_turns_for_ever(
    watched: HerokuConnect, caplog: pytest.LogCaptureFixture
) -> None:
    repairs = look()
    older_function("industry")
    repairs.look()
    assert (state(), gaps()) == ("outdated", [])
    assert "another release" in caplog.text
    look()  # whoever starts last has the newest release
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
    outcome="`outdated`; repaired; gap, and what changed is read again",
)
@pytest.mark.parametrize("damage", HEADERS)
def test_a_damaged_header_is_outdated_and_mended(watched: HerokuConnect, damage: str, monkeypatch: Any) -> None:
    """By install or by a worker; nothing that looks at the function ends in an error."""
    monkeypatch.setattr("hc_signals.observability.judge.heroku.heroku", lambda: [])
    with connection.cursor() as cursor:
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname = %s", [function_name(Account)])
        damaged = HEADERS[damage](cursor.fetchone()[0])
    for mend in (lambda: call_command("hc_triggers", "install", stdout=StringIO()), look):
        as_the_app(replace_function(damaged))
        assert state() == "outdated"
        call_command("hc_triggers", "status", stdout=StringIO())
        found = {finding.text: finding.problem for finding in capture(using="default")}
        assert "capture-outdated" in found.values()
        finish_reloads("default", Conf())
        assert drift.look([Account], "default")[0].wrong == "function_altered"
        mend()
        assert state() == "installed"
    assert [gap["cause"] for gap in gaps()] == ["function_altered"] * 2


# -- reporting ---------------------------------------------------------------------------------------------------------


def test_report_only_repairs_nothing_and_tells_the_gap_after_a_repair_by_hand(
    watched: HerokuConnect, caplog: pytest.LogCaptureFixture
) -> None:
    as_the_app(replace_function("BEGIN RETURN NULL; END"))
    repairs = look(REPAIR_TRIGGERS=False)
    repairs.look()
    assert (state(), gaps()) == ("outdated", [])
    assert caplog.text.count("REPAIR_TRIGGERS is off") == 1
    out = StringIO()
    call_command("hc_triggers", "status", "crm.Account", stdout=out)
    assert "function_altered: told as a gap" in out.getvalue()
    assert "captured without a gap until" in out.getvalue()
    call_command("hc_triggers", "install", stdout=StringIO())
    repairs.look()
    assert [gap["cause"] for gap in gaps()] == ["function_altered"]


def test_lack_of_rights_is_told_once_with_the_remedy(watched: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
    as_the_app("ALTER TABLE salesforce.account DISABLE TRIGGER ALL")
    role = own("hc_meek")
    as_the_app(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA public TO {role}")
    as_the_app(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    repairs = Repairs("default", Conf(), connected_models())
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE {role}")
            for _ in range(3):
                repairs.look()
            cursor.execute("RESET ROLE")
        assert caplog.text.count("as the role that owns") == 1
    finally:
        as_the_app(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


def test_orphans_are_told_and_left(watched: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
    repairs = Repairs("default", Conf(), [model for model in connected_models() if model is not Contact])
    repairs.look()
    repairs.look()
    assert caplog.text.count("salesforce.contact: orphan") == 1
    assert triggers.status(Contact, "default").state == "installed"


# -- reading again -----------------------------------------------------------------------------------------------------


def test_what_changed_meanwhile_is_read_again(watched: HerokuConnect, connect: Any) -> None:
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


def test_reading_again_goes_on_where_it_stopped(watched: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hc_signals.capture.rereading.PAGE_SIZE", 3)
    watched.recreate_table(Account)
    look()
    reader = Rereading("default", connected_models())
    assert not reader.read_for(0.000001)
    calls = 0
    note = table_state.note_reread

    def dies(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        note(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(table_state, "note_reread", dies)
        with pytest.raises(KeyboardInterrupt):
            reader.read_for(30)
    assert Change.objects.filter(operation__startswith="GAP_").count() == 9, "the page it died in was taken back"
    assert reread()
    again = list(Change.objects.filter(operation__startswith="GAP_").values_list("record_id", flat=True))
    assert len(again) == len(set(again)) == 10


def test_a_locked_row_does_not_hold_up_the_other_tables(watched: HerokuConnect) -> None:
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


def test_a_nearly_full_log_is_left_to_the_writers(watched: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
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


def test_without_a_time_of_change_nothing_is_read_again_and_it_is_said(
    watched: HerokuConnect, caplog: pytest.LogCaptureFixture
) -> None:
    as_the_app("ALTER TABLE salesforce.account DROP COLUMN systemmodstamp")
    look()
    as_the_app("ALTER TABLE salesforce.account DISABLE TRIGGER ALL")
    assert not look().is_reread_due
    assert len(gaps()) == 1
    assert "Nothing is read again; `manage.py hc_backfill crm.Account`" in caplog.text


def test_drift_of_a_table_never_looked_at_is_a_gap_since_nobody_knows(captured: HerokuConnect) -> None:
    captured.recreate_table(Account)
    look()
    assert [(gap["cause"], gap["since"]) for gap in gaps()] == [("trigger_missing", None)]


def test_a_gap_is_told_when_what_was_missed_can_be_read(watched: HerokuConnect, monkeypatch: Any) -> None:
    """A writer whose statement the altered function kept quiet about is still open: it comes first."""
    monkeypatch.setattr(triggers, "LOCK_TIMEOUT", "50ms")
    as_the_app(replace_function("BEGIN RETURN NULL; END"))
    with another("SET LOCAL xmlbinary = 'hex'; INSERT INTO salesforce.account (sfid) VALUES ('quiet')") as cursor:
        look()
        assert gaps() == []
        cursor.connection.commit()
    look()
    assert len(gaps()) == 1
