"""Reading ahead: the worker reads the next page while receivers process one; no change is lost or delivered twice."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from example.crm.models import Account, Project

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.delivery.ahead import Ahead
from hc_signals.delivery.shard import Outcome
from hc_signals.log import window
from hc_signals.log.claims import Claim
from hc_signals.log.position import LogShard
from hc_signals.log.positions import read_standing
from hc_signals.models import Delivery
from hc_signals.postgres.locks import CLAIMS
from hc_signals.postgres.side_connection import SideConnection
from hc_signals.worker.loop import Worker
from tests.conftest import IS_OURS, as_heroku_connect, deliver
from tests.test_worker_process import wait_until

pytestmark = pytest.mark.usefixtures("captured")
AHEAD = "SELECT pid, state FROM pg_stat_activity WHERE application_name = 'hc_listen default ahead' AND " + IS_OURS


def insert_accounts(count: int) -> None:
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name) SELECT left(md5(random()::text), 18), 'n' || g "
        "FROM generate_series(1, %s) g",
        [count],
    )


@pytest.fixture
def names(connect: Any) -> list[str]:
    """Names of the delivered accounts, in order."""
    delivered: list[str] = []
    connect(signals.record_created, lambda instance, **kwargs: delivered.append(instance.name), Account)
    return delivered


def numbered(count: int) -> list[str]:
    return [f"n{number}" for number in range(1, count + 1)]


def rows(sql: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9, 30])
def test_pages_are_delivered_once_and_in_order(names: list[str], count: int) -> None:
    insert_accounts(count)
    assert deliver(BATCH_SIZE=4) == count
    assert names == numbered(count)


def test_first_connection_reads_images_of_one_page_only(names: list[str]) -> None:
    insert_accounts(40)
    with CaptureQueriesContext(connection) as captured:
        deliver(BATCH_SIZE=4)
    assert names == numbered(40)
    assert sum("hc_signals_few_images(" in query["sql"] for query in captured) == 1
    wait_until(lambda: not rows(AHEAD))


def test_page_mixes_tables_and_operations(names: list[str], connect: Any) -> None:
    previous: list[dict[str, Any]] = []
    connect(signals.record_updated, lambda event, **kwargs: previous.append(dict(event.previous)), Project)
    for number in range(10):
        insert_accounts(1)
        as_heroku_connect("INSERT INTO salesforce.project__c (sfid, name) VALUES (%s, 'a')", [f"P{number}"])
        as_heroku_connect("UPDATE salesforce.project__c SET name = 'b' WHERE sfid = %s", [f"P{number}"])
    assert deliver(BATCH_SIZE=4) == 30
    assert names == ["n1"] * 10
    assert previous == [{"name": "a"}] * 10


def test_lost_side_connection_loses_no_change(names: list[str], connect: Any) -> None:
    def lose(instance: Account, **kwargs: Any) -> None:
        if instance.name in ("n6", "n19"):
            rows(f"SELECT pg_terminate_backend(pid) FROM ({AHEAD}) ahead")

    connect(signals.record_created, lose, Account)
    insert_accounts(30)
    assert deliver(BATCH_SIZE=4) == 30
    assert names == numbered(30)


def test_worker_delivers_without_a_side_connection(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: SideConnection) -> None:
        with connection.cursor() as cursor, transaction.atomic():
            cursor.execute("DO $$ BEGIN RAISE too_many_connections; END $$")

    monkeypatch.setattr(SideConnection, "_open", refuse)
    insert_accounts(30)
    assert deliver(BATCH_SIZE=4) == 30
    assert names == numbered(30)


def test_page_delivered_by_another_worker_is_discarded(names: list[str]) -> None:
    insert_accounts(30)
    worker = Worker("default", Conf(BATCH_SIZE=4))
    worker.prepare()
    with worker.reading_ahead():
        assert worker.shards[0].deliver_page() is Outcome.MORE
        assert deliver(BATCH_SIZE=3) == 26
        insert_accounts(2)
        while worker.shards[0].deliver_page() is Outcome.MORE:
            pass
    assert names == numbered(30) + numbered(2)


def test_claimed_shard_leaves_no_transaction_open(names: list[str]) -> None:
    insert_accounts(30)
    worker = Worker("default", Conf(BATCH_SIZE=4))
    worker.prepare()
    with worker.reading_ahead():
        assert worker.shards[0].deliver_page() is Outcome.MORE
        other = connection.copy()
        try:
            with other.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(%s, hashtext('default 0'))", [CLAIMS])
            assert worker.shards[0].deliver_page() is Outcome.ELSEWHERE
            assert [state for _, state in rows(AHEAD)] == ["idle"]
            with other.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock_all()")
        finally:
            other.close()
        while worker.shards[0].deliver_page() is Outcome.MORE:
            pass
    assert names == numbered(30)


def test_unreadable_image_fails_only_its_record(names: list[str]) -> None:
    insert_accounts(30)
    as_heroku_connect(
        "UPDATE public.hc_signals_change SET image = array_replace(image, record_key, 'no number') "
        "WHERE image @> ARRAY['n13']"
    )
    assert deliver(BATCH_SIZE=4) == 30
    assert names == [name for name in numbered(30) if name != "n13"]
    assert Delivery.objects.filter(signal="record_created").count() >= 1


def test_no_read_ahead_after_a_page_times_out(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    real = Ahead.go_on
    monkeypatch.setattr(Ahead, "go_on", lambda *args: begun.append(args) or real(*args))
    insert_accounts(12)
    assert deliver(BATCH_SIZE=4, MAX_TRANSACTION_SECONDS=1e-9) == 12
    assert names == numbered(12)
    assert len(begun) == 1


def test_page_after_a_timeout_is_shorter(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    for owner, name in ((Claim, "page"), (window, "read_page")):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda of, at, limit, real=real: limits.append(limit) or real(of, at, limit))
    insert_accounts(60)
    assert deliver(BATCH_SIZE=50, MAX_TRANSACTION_SECONDS=1e-9) == 60
    assert names == numbered(60)
    assert limits[0] == 50
    assert max(limits[2:]) <= 8


def test_window_closes_after_its_last_page(names: list[str]) -> None:
    """Changes that arrive while a window is open belong to the next one, with or without reading ahead."""
    insert_accounts(10)
    deliver(BATCH_SIZE=4)
    insert_accounts(10)
    deliver(BATCH_SIZE=3)
    assert names == numbered(10) * 2
    assert read_standing(LogShard("default", "default")).position.target is None


def test_infinite_date_is_read_as_the_latest(connect: Any) -> None:
    dates: list[datetime] = []
    connect(signals.record_created, lambda instance, **kwargs: dates.append(instance.starts_at), Project)
    for number in range(12):
        starts_at = "infinity" if number == 9 else "2024-05-06 07:08:09"
        as_heroku_connect(
            "INSERT INTO salesforce.project__c (sfid, name, starts_at__c) VALUES (%s, %s, %s)",
            [f"P{number}", f"n{number}", starts_at],
        )
    assert deliver(BATCH_SIZE=4) == 12
    usual = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert dates == [usual] * 9 + [datetime.max.replace(tzinfo=UTC)] + [usual] * 2


def test_results_of_a_closed_side_connection_are_discarded() -> None:
    side = SideConnection("default", lambda connection: None)  # all shards of a worker share one
    try:
        before = side.send([("SELECT 1", None)])
        side.close()
        after = side.send([("SELECT 2", None)])
        assert before is not None and after is not None
        assert not side.finish(before)
        assert side.finish(after)
        assert after[0].fetchall() == [(2,)]
    finally:
        side.close()
