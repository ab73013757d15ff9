"""A reload is no flood: what came back as it was is silent, the rest is told as what it is, and then the counts."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from example.crm.models import Account, Project

from hc_signals import signals
from hc_signals.capture import triggers
from hc_signals.capture.reloads import finish_reloads
from hc_signals.conf import Conf
from hc_signals.models import Change
from hc_signals.postgres.locks import RELOADS
from hc_signals.testing import HerokuConnect
from tests.conftest import IS_OURS, as_heroku_connect, as_the_app, deliver
from tests.sfdc.models import Everything

CONF = Conf()
CLEARINGS = {"truncate": "TRUNCATE salesforce.account", "delete": "DELETE FROM salesforce.account"}
both = pytest.mark.parametrize("clear", CLEARINGS.values(), ids=CLEARINGS)


def query(sql: str, params: Any = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def fill(first: int, last: int, **changed: str) -> None:
    """Insert the records A<first> to A<last> as Heroku Connect does; ``changed`` gives other names by sfid."""
    rows = [(f"A{n:03}", changed.get(f"A{n:03}", f"n{n}")) for n in range(first, last + 1)]
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name, systemmodstamp) VALUES "
        + ", ".join(["(%s, %s, clock_timestamp())"] * len(rows)),
        [value for row in rows for value in row],
    )


def hours_pass(hours: float = 0.2) -> None:
    """Let time pass in the stored times: 12 minutes are more than RELOAD_QUIET_SECONDS."""
    as_the_app(f"UPDATE public.hc_signals_reload SET cleared_at = cleared_at - interval '{hours} hours'")
    as_the_app(f"UPDATE public.hc_signals_refill SET at = at - interval '{hours} hours'")


def in_a_connection_of_its_own(function: Callable[..., Any], *args: Any) -> None:
    try:
        function(*args)
    finally:
        connection.close()


def wait_for(condition: str) -> None:
    deadline = time.monotonic() + 10
    while not query(condition)[0][0]:
        assert time.monotonic() < deadline, condition
        time.sleep(0.01)


def leftovers() -> list[int]:
    return [query(f"SELECT count(*) FROM public.hc_signals_{t}")[0][0] for t in ("cleared", "reload", "refill")]


@pytest.fixture
def told(connect: Callable[..., None]) -> list[tuple[Any, ...]]:
    """What receivers of Account hear of: change type, name, old name; or change type and counts."""
    got: list[tuple[Any, ...]] = []

    def on_change(event: Any, instance: Account, **kwargs: Any) -> None:
        got.append((event.change_type, instance.name, event.previous.get("name")))

    def on_table(event: Any, instance: None, **kwargs: Any) -> None:
        got.append((event.change_type, dict(event.counts)))

    connect(signals.record_changed, on_change, Account)
    connect(signals.table_reloaded, on_table, Account)
    connect(signals.table_resynced, on_table, Account)
    connect(signals.gap_detected, lambda event, **kwargs: got.append(("GAP", event.cause)), Account)
    return got


@pytest.fixture
def filled(captured: HerokuConnect, told: list[Any]) -> HerokuConnect:
    """Twenty records that everyone knows."""
    fill(1, 20)
    deliver()
    told.clear()
    return captured


def counts(cleared: int, unchanged: int = 0, changed: int = 0, created: int = 0, deleted: int = 0) -> dict[str, int]:
    names = ("cleared", "unchanged", "changed", "created", "deleted")
    return dict(zip(names, (cleared, unchanged, changed, created, deleted), strict=True))


@both
def test_only_what_is_different_is_told_and_then_the_counts(filled: HerokuConnect, told: list[Any], clear: str) -> None:
    as_heroku_connect(clear)
    deliver()
    assert told == []
    fill(1, 10, A003="three")
    fill(13, 22)
    deliver()
    assert told == [("UPDATE", "three", "n3"), ("CREATE", "n21", None), ("CREATE", "n22", None)]
    told.clear()
    assert finish_reloads("default", CONF) == []
    hours_pass()
    assert finish_reloads("default", CONF) == ["salesforce.account"]
    deliver()
    assert sorted(told[:-1]) == [("DELETE", "n11", None), ("DELETE", "n12", None)]
    assert told[-1] == ("RELOADED", counts(20, unchanged=17, changed=1, created=2, deleted=2))
    assert leftovers() == [0, 0, 0]
    assert finish_reloads("default", CONF) == []
    fill(30, 30)
    deliver()
    assert told[-1] == ("CREATE", "n30", None), "an ordinary insertion again"


def test_the_event_tells_from_when_to_when(filled: HerokuConnect, connect: Callable[..., None]) -> None:
    events: list[Any] = []
    connect(signals.table_reloaded, lambda event, instance, using, **kwargs: events.append(event), Account)
    as_heroku_connect("TRUNCATE salesforce.account")
    hours_pass(1)
    fill(1, 20)
    hours_pass()
    finish_reloads("default", CONF)
    deliver()
    assert 3590 < (events[0].until - events[0].since).total_seconds() < 3700
    assert (events[0].entity_name, events[0].instance, events[0].record_id) == ("Account", None, None)


@both
def test_a_pause_is_not_the_end(filled: HerokuConnect, told: list[Any], clear: str) -> None:
    as_heroku_connect(clear)
    fill(1, 10)
    hours_pass(0.05)
    assert finish_reloads("default", CONF) == []
    fill(11, 20)
    hours_pass(0.05)
    assert finish_reloads("default", CONF) == [], "quiet for three minutes, begun six minutes ago"
    hours_pass()
    assert finish_reloads("default", CONF) == ["salesforce.account"]
    deliver()
    assert told == [("RELOADED", counts(20, unchanged=20))]


def test_nothing_back_yet_is_waited_for_longer(filled: HerokuConnect, told: list[Any]) -> None:
    as_heroku_connect("TRUNCATE salesforce.account")
    hours_pass(0.9)
    assert finish_reloads("default", CONF) == []
    hours_pass(0.2)
    assert finish_reloads("default", CONF) == ["salesforce.account"]
    deliver()
    assert Counter(kind for kind, *_ in told) == {"DELETE": 20, "RELOADED": 1}


def test_an_open_copy_is_not_the_end(filled: HerokuConnect, told: list[Any]) -> None:
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 10)
    hours_pass()
    writer = connection.copy()
    try:
        writer.set_autocommit(False)
        with writer.cursor() as cursor:
            cursor.execute("LOCK TABLE salesforce.account IN ROW EXCLUSIVE MODE")  # a COPY that has not ended
            assert finish_reloads("default", CONF) == []
            cursor.execute("LOCK TABLE salesforce.account IN ACCESS EXCLUSIVE MODE")  # a TRUNCATE
            assert finish_reloads("default", CONF) == []
        writer.rollback()
    finally:
        writer.close()
    assert finish_reloads("default", CONF) == ["salesforce.account"]


@both
def test_a_reload_that_is_rolled_back_was_none(filled: HerokuConnect, told: list[Any], clear: str) -> None:
    with pytest.raises(RuntimeError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL xmlbinary = 'hex'; {clear}")
        cursor.execute("INSERT INTO salesforce.account (sfid, name) VALUES ('A001', 'other')")
        raise RuntimeError
    assert leftovers() == [0, 0, 0]
    deliver()
    assert told == []


@both
def test_a_reload_in_one_transaction(filled: HerokuConnect, told: list[Any], clear: str) -> None:
    with transaction.atomic():
        as_heroku_connect(clear)
        fill(1, 20, A001="one")
    hours_pass()
    finish_reloads("default", CONF)
    deliver()
    assert told == [("UPDATE", "one", "n1"), ("RELOADED", counts(20, unchanged=19, changed=1))]


@both
def test_a_second_reload_before_the_first_was_told(filled: HerokuConnect, told: list[Any], clear: str) -> None:
    as_heroku_connect(clear)
    fill(1, 15, A001="one")
    as_heroku_connect(clear)
    fill(1, 19, A001="eins", A018="eighteen")
    hours_pass()
    finish_reloads("default", CONF)
    deliver()
    assert told == [
        ("UPDATE", "one", "n1"),
        ("UPDATE", "eins", "one"),
        ("UPDATE", "eighteen", "n18"),
        ("DELETE", "n20", None),
        ("RELOADED", counts(35, unchanged=14 + 17, changed=3, deleted=1)),
    ]


def test_a_table_deleted_in_chunks_of_one_transaction(filled: HerokuConnect, told: list[Any]) -> None:
    with transaction.atomic():
        as_heroku_connect("DELETE FROM salesforce.account WHERE sfid < 'A006'")
        as_heroku_connect("DELETE FROM salesforce.account")
    fill(1, 20)
    deliver()
    assert told == []
    assert leftovers() == [0, 1, 1]


def test_a_record_that_came_and_went_in_the_same_transaction(filled: HerokuConnect, told: list[Any]) -> None:
    """Its first deletion is no chunk of the clearing: the creation behind it must keep its partner."""
    with transaction.atomic():
        as_heroku_connect("DELETE FROM salesforce.account WHERE sfid = 'A001'")
        fill(1, 1, A001="again")
        as_heroku_connect("DELETE FROM salesforce.account")
    fill(1, 20, A001="back")
    deliver()
    assert told == [("DELETE", "n1", None), ("CREATE", "again", None), ("UPDATE", "back", "again")]


def test_chunks_of_several_transactions_stay_deletions_but_the_last(filled: HerokuConnect, told: list[Any]) -> None:
    as_heroku_connect("DELETE FROM salesforce.account WHERE sfid < 'A006'")
    as_heroku_connect("DELETE FROM salesforce.account")
    fill(1, 20)
    deliver()
    assert Counter(kind for kind, *_ in told) == {"DELETE": 5, "CREATE": 5}


def test_the_last_records_of_a_small_table_are_deleted_at_once(filled: HerokuConnect, told: list[Any]) -> None:
    as_heroku_connect("DELETE FROM salesforce.account WHERE sfid > 'A009'")
    deliver()
    assert len(told) == 11, "the table is not empty"
    as_heroku_connect("DELETE FROM salesforce.account")
    deliver()
    assert Counter(told)["DELETE", "n1", None] == 1
    assert len(told) == 20


def test_ordinary_changes_in_the_middle_of_a_reload(filled: HerokuConnect, told: list[Any]) -> None:
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 20)
    as_heroku_connect("UPDATE salesforce.account SET name = 'edited' WHERE sfid = 'A002'")
    as_heroku_connect("DELETE FROM salesforce.account WHERE sfid = 'A003'")
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name) VALUES ('A002', 'twice'), ('A099', 'new') "
        "ON CONFLICT (sfid) DO UPDATE SET name = excluded.name"
    )
    hours_pass()
    finish_reloads("default", CONF)
    deliver()
    assert told == [
        ("UPDATE", "edited", "n2"),
        ("DELETE", "n3", None),
        ("UPDATE", "twice", "edited"),
        ("CREATE", "new", None),
        ("RELOADED", counts(20, unchanged=20, created=1)),
    ]


def test_every_type_comes_back_unchanged(captured: HerokuConnect) -> None:
    captured.create(Everything, 30)
    deliver()
    for clear in ("truncate", "delete"):
        captured.reload(Everything, clear)
        assert deliver() == 0
    counted = query("SELECT sum(unchanged), sum(changed), sum(created) FROM public.hc_signals_refill")
    assert counted == [(60, 0, 0)]


def test_rows_without_sfid_cannot_be_recognised(captured: HerokuConnect, connect: Callable[..., None]) -> None:
    got: list[str] = []
    connect(signals.record_changed, lambda event, **kwargs: got.append(event.change_type), Everything)
    for clear in ("TRUNCATE salesforce.everything__c", "DELETE FROM salesforce.everything__c"):
        captured.create(Everything, 12)
        captured.app_insert(Everything, text="not yet in Salesforce")
        deliver()
        got.clear()
        as_heroku_connect(clear)
        deliver()
        assert got == ["DELETE"]


def test_what_is_in_the_table_after_all_was_not_deleted(filled: HerokuConnect, told: list[Any]) -> None:
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 18)
    as_the_app("INSERT INTO salesforce.account (sfid, name) VALUES ('A019', 'n19')")
    hours_pass()
    finish_reloads("default", CONF)
    deliver()
    assert told == [("DELETE", "n20", None), ("RELOADED", counts(20, unchanged=18, deleted=1))]


def test_many_missing_records_are_told_by_and_by(captured: HerokuConnect, told: list[Any]) -> None:
    fill(1, 999)
    fill(1000, 1200)
    as_heroku_connect("DELETE FROM salesforce.account")
    hours_pass(2)
    finish_reloads("default", CONF)
    xids = query("SELECT count(DISTINCT xid) FROM public.hc_signals_change WHERE operation = 'DELETE'")
    assert xids == [(3,)]
    assert Change.objects.get(operation="RELOADED").note["deleted"] == 1200


def test_several_consumers_and_shards_hear_of_it(filled: HerokuConnect, told: list[Any]) -> None:
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 19)
    hours_pass()
    finish_reloads("default", CONF)
    finish_reloads("default", CONF)
    for consumer in ("default", "other"):
        told.clear()
        deliver(CONSUMER=consumer, SHARDS=4 if consumer == "other" else 1)
        assert Counter(kind for kind, *_ in told)["DELETE"] == 1
        assert [row for row in told if row[0] == "RELOADED"] == [("RELOADED", counts(20, unchanged=19, deleted=1))]


def test_a_failing_receiver_of_the_counts_is_called_again(filled: HerokuConnect, connect: Callable[..., None]) -> None:
    attempts: list[tuple[int, int]] = []

    def flaky(event: Any, **kwargs: Any) -> None:
        attempts.append((event.attempt, event.counts["cleared"]))
        if event.attempt == 1:
            raise ValueError("no")

    connect(signals.table_reloaded, flaky, Account)
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 20)
    hours_pass()
    finish_reloads("default", CONF)
    deliver()
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now()")
    deliver()
    assert attempts == [(1, 20), (2, 20)]


@pytest.mark.parametrize("aware", [False, ["crm.Project"]])
def test_switched_off_it_is_as_it_was(
    filled: HerokuConnect, told: list[Any], settings: Any, aware: bool | list[str]
) -> None:
    settings.HC_SIGNALS = {"RELOAD_AWARE": aware}
    assert triggers.status(Account, "default").state == "outdated"
    assert triggers.install(Account, "default").state == "installed"
    assert triggers.status(Project, "default").state == ("outdated" if aware is False else "installed")
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 20)
    as_heroku_connect("DELETE FROM salesforce.account")
    deliver()
    assert told[0] == ("GAP", "truncate")
    assert Counter(kind for kind, *_ in told) == {"GAP": 1, "CREATE": 20, "DELETE": 20}
    assert leftovers() == [0, 0, 0]


def test_a_wrong_label_is_named(captured: HerokuConnect, settings: Any) -> None:
    settings.HC_SIGNALS = {"RELOAD_AWARE": ["crm.Acount"]}
    with pytest.raises(CommandError, match=r"names 'crm\.Acount', which is no connected model"):
        call_command("hc_triggers", "status")


@pytest.mark.parametrize("table", ["hc_signals_cleared", "hc_signals_reload", "hc_signals_refill"])
def test_a_fault_of_ours_does_not_stop_the_writer(filled: HerokuConnect, told: list[Any], table: str) -> None:
    """What cannot be kept is told as without us: a gap, deletions, creations."""
    as_the_app(f"ALTER TABLE public.{table} RENAME TO gone")
    try:
        as_heroku_connect("TRUNCATE salesforce.account")
        fill(1, 20)
        as_heroku_connect("DELETE FROM salesforce.account")
        fill(1, 3)
        assert Account.objects.count() == 3
        deliver()
    finally:
        as_the_app(f"ALTER TABLE public.gone RENAME TO {table}")
    expected = Counter({"GAP": 1, "CREATE": 23, "DELETE": 20})
    if table == "hc_signals_refill":  # the clearings were kept; the creations are told although they are none
        expected = Counter({"CREATE": 23})
    assert Counter(kind for kind, *_ in told) == expected


def test_a_record_that_comes_back_while_its_deletion_is_told_comes_behind_it(filled: HerokuConnect) -> None:
    """Or its creation could be read before its deletion: it would be gone for ever."""
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 19)
    worker = connection.copy()
    try:
        worker.set_autocommit(False)
        with worker.cursor() as cursor:  # in the middle of telling the end
            cursor.execute(f"SELECT pg_try_advisory_xact_lock({RELOADS}, hashtext('salesforce.account'))")
            assert cursor.fetchone() == (True,)
            cursor.execute("DELETE FROM public.hc_signals_cleared; DELETE FROM public.hc_signals_reload")
            writer = threading.Thread(target=in_a_connection_of_its_own, args=(fill, 20, 20))
            writer.start()
            wait_for(f"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {IS_OURS}")
            cursor.execute("SELECT nextval('public.hc_signals_change_id_seq')")
            deletion = cursor.fetchone()[0]
        worker.commit()
        writer.join(10)
    finally:
        worker.close()
    creation = Change.objects.get(operation="INSERT", record_id="A020", id__gt=deletion)
    assert creation.old is None


def test_two_workers_tell_an_end_once(filled: HerokuConnect, told: list[Any]) -> None:
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 15)
    hours_pass()
    workers = [
        threading.Thread(target=in_a_connection_of_its_own, args=(finish_reloads, "default", CONF)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(10)
    deliver()
    assert Counter(kind for kind, *_ in told) == {"DELETE": 5, "RELOADED": 1}


def test_concurrent_writers_of_a_reload_do_not_wait_for_one_another(filled: HerokuConnect) -> None:
    as_heroku_connect("TRUNCATE salesforce.account")
    with transaction.atomic():
        fill(1, 10)
        writer = threading.Thread(target=in_a_connection_of_its_own, args=(fill, 11, 20))
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
    assert query("SELECT sum(unchanged), count(*) FROM public.hc_signals_refill") == [(20, 2)]


@pytest.mark.parametrize("rows", [2_000, 30_000])
def test_whether_a_table_is_empty(captured: HerokuConnect, rows: int) -> None:
    """Small, and so large that only its ends are looked at first; what is left lies first, last, in the middle."""
    as_heroku_connect(
        "ALTER TABLE salesforce.account DISABLE TRIGGER USER; "
        f"INSERT INTO salesforce.account (sfid, name) SELECT g, repeat('n', 60) FROM generate_series(1, {rows}) g"
    )
    for left in (1, rows, rows // 2, 0):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("DELETE FROM salesforce.account WHERE sfid <> %s", [str(left)])
            cursor.execute("SELECT public.hc_signals_is_empty('salesforce.account')")
            assert cursor.fetchone() == (left == 0,)
            transaction.set_rollback(True)


def test_uninstalling_forgets_what_waits(filled: HerokuConnect) -> None:
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 3)
    triggers.uninstall(Account, "default")
    assert leftovers() == [0, 0, 0]


# -- a newly mapped field ----------------------------------------------------------------------------------------------


def without_industry(filled: HerokuConnect) -> None:
    filled.drop_column(Account, "industry")
    status = triggers.install(Account, "default")
    assert (status.state, status.detail) == ("installed", "missing in the table: industry")


def mapped_again() -> None:
    as_heroku_connect("ALTER TABLE salesforce.account ADD COLUMN industry varchar(255)")
    assert triggers.status(Account, "default").state == "outdated"
    assert triggers.install(Account, "default").state == "installed"


def test_a_missing_column_does_not_end_typed_capture(filled: HerokuConnect) -> None:
    without_industry(filled)
    as_heroku_connect("UPDATE salesforce.account SET systemmodstamp = now()")
    as_heroku_connect("UPDATE salesforce.account SET name = 'x' WHERE sfid = 'A001'")
    change = Change.objects.latest("id")
    assert (change.changed, Change.objects.count()) == (["name"], 21)


def test_a_field_added_to_the_mapping_is_one_resync(filled: HerokuConnect, told: list[Any]) -> None:
    without_industry(filled)
    mapped_again()
    as_heroku_connect("UPDATE salesforce.account SET industry = 'Energy' WHERE sfid <= 'A010'")
    as_heroku_connect("UPDATE salesforce.account SET industry = 'Media', name = 'both' WHERE sfid = 'A011'")
    as_heroku_connect("UPDATE salesforce.account SET industry = 'Media' WHERE sfid = 'A001'")
    hours_pass(0.05)
    assert finish_reloads("default", CONF) == []
    as_heroku_connect("UPDATE salesforce.account SET industry = 'Energy' WHERE sfid > 'A011'")
    hours_pass()
    assert finish_reloads("default", CONF) == ["salesforce.account"]
    deliver()
    assert told == [("UPDATE", "both", "n11"), ("UPDATE", "n1", None), ("RESYNCED", {"resynced": 19})]
    assert leftovers() == [0, 0, 0]
    as_heroku_connect("UPDATE salesforce.account SET industry = NULL WHERE sfid = 'A002'")
    as_heroku_connect("UPDATE salesforce.account SET industry = 'back' WHERE sfid = 'A002'")
    assert deliver() == 2, "an ordinary column now"
    assert triggers.status(Account, "default").state == "installed"


def test_a_column_that_nothing_fills_is_ordinary_after_an_hour(filled: HerokuConnect, told: list[Any]) -> None:
    without_industry(filled)
    mapped_again()
    finish_reloads("default", CONF)
    as_heroku_connect("UPDATE salesforce.account SET industry = 'x' WHERE sfid = 'A001'")
    assert deliver() == 0
    as_the_app("DELETE FROM public.hc_signals_refill")
    finish_reloads("default", replace(CONF, RELOAD_QUIET_SECONDS=0.0001))
    as_heroku_connect("UPDATE salesforce.account SET industry = 'x' WHERE sfid = 'A002'")
    deliver()
    assert told == [("UPDATE", "n2", None)]
