"""MAX_LOG_MB: a consumer that is dead for days does not fill the disk, and what it loses is said, never silent."""

import logging
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, connections
from example.crm.models import Account

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.log import limit
from hc_signals.log.layout import start
from hc_signals.log.limit import keep_below
from hc_signals.log.position import LogShard
from hc_signals.log.positions import read_standing
from hc_signals.log.rotation import filled, size_mb
from hc_signals.models import Change
from hc_signals.postgres.locks import CLAIMS
from hc_signals.postgres.moments import now
from hc_signals.testing import HerokuConnect
from hc_signals.worker.chores import Chores
from hc_signals.worker.loop import Worker
from tests.conftest import IS_OURS, as_the_app, deliver
from tests.test_consumers import open_transaction, scalar, wait_until


def fill(hours: int, changes: int = 1500) -> None:
    """Write changes of 1 kB as if they had been captured that long ago."""
    as_the_app(
        "INSERT INTO public.hc_signals_change (table_name, operation, origin, record_id, new, captured_at, bucket) "
        "SELECT 'salesforce.account', 'INSERT', 'heroku_connect', n, "
        "json_build_object('id', n, 'sfid', n, 'padding', repeat(md5(n::text), 30)), "
        "clock_timestamp() - make_interval(hours => %s), "
        "((floor(extract(epoch FROM clock_timestamp()) / 43200))::bigint - %s / 12 + 16) %% 8 "
        "FROM generate_series(1, %s) n",
        [hours, hours, changes],
    )


def begin(consumer: str, shards: int = 1) -> None:
    start(LogShard.all_of("default", consumer, shards), "latest")


@pytest.fixture
def gaps(captured: HerokuConnect, connect: Any) -> list[Any]:
    """Collect the gaps of Account."""
    found: list[Any] = []
    connect(signals.gap_detected, lambda event, **kwargs: found.append(event), Account)
    return found


def test_log_below_the_limit_is_kept(captured: HerokuConnect) -> None:
    begin("dead")
    fill(60)
    begin("alive")
    assert size_mb("default") > 1.5
    assert keep_below("default", 10)
    assert Change.objects.count() == 1500


def test_delivered_changes_are_removed_before_a_backlog(
    captured: HerokuConnect, caplog: pytest.LogCaptureFixture
) -> None:
    fill(48)
    fill(36)
    begin("dead")
    fill(24, changes=100)
    begin("alive")
    caplog.clear()
    assert len(filled("default")) == 3
    assert keep_below("default", 3)
    assert len(filled("default")) == 2, "the oldest bucket was enough"
    assert "were removed before RETENTION_HOURS" in caplog.text
    assert keep_below("default", 1)
    assert Change.objects.count() == 100
    assert deliver(CONSUMER="dead") == 100


@pytest.mark.parametrize("shards", [1, 3])
def test_dropped_backlog_becomes_one_gap_per_table(
    captured: HerokuConnect, gaps: list[Any], caplog: pytest.LogCaptureFixture, shards: int
) -> None:
    begin("dead", shards)
    fill(36)
    begin("alive")
    before = now()
    assert keep_below("default", 1)
    assert Change.objects.count() == 0
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "MAX_LOG_MB = 1: consumer 'dead' has lost its backlog of 1500 changes" in record.getMessage()
    captured.create(Account, 3)
    assert deliver(CONSUMER="alive") == 3
    assert gaps == []
    assert deliver(CONSUMER="dead", SHARDS=shards) == 3
    (gap,) = gaps
    assert gap.change_type == "GAP_OVERFLOW"
    assert gap.cause == "backlog_dropped"
    assert timedelta(hours=35, minutes=59) < before - gap.since < timedelta(hours=36, minutes=1)
    assert before <= gap.until <= now()
    assert deliver(CONSUMER="dead", SHARDS=shards) == 0
    assert len(gaps) == 1, "reported once"


def test_only_backlogs_in_the_oldest_bucket_are_dropped(captured: HerokuConnect, gaps: list[Any]) -> None:
    begin("dead")
    fill(60)
    begin("slow")
    fill(36, changes=50)
    begin("alive")
    assert keep_below("default", 1)
    assert Change.objects.count() == 50
    assert deliver(CONSUMER="slow") == 50
    assert gaps == []
    assert deliver(CONSUMER="dead") == 0
    assert [gap.cause for gap in gaps] == ["backlog_dropped"]


def test_unreported_gap_becomes_part_of_the_next_one(captured: HerokuConnect, gaps: list[Any]) -> None:
    begin("dead")
    fill(60)
    assert keep_below("default", 1)
    fill(24)
    assert keep_below("default", 1)
    deliver(CONSUMER="dead")
    (gap,) = gaps
    assert now() - gap.since > timedelta(hours=59)


def test_no_backlog_is_dropped_while_the_bucket_is_busy(
    captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limit, "PATIENCE", 0.1)
    begin("dead")
    fill(36)
    with open_transaction("SELECT count(*) FROM public.hc_signals_change"):  # a backup
        assert not keep_below("default", 1)
    assert "nothing can be freed now" in caplog.text
    assert read_standing(LogShard("default", "dead")).position.gap is None
    assert Change.objects.count() == 1500
    assert keep_below("default", 1)


def test_no_backlog_is_dropped_while_its_shard_is_busy(
    captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit, "CLAIM_SECONDS", 0.1)
    begin("slow")
    fill(36)
    with open_transaction(f"SELECT pg_advisory_xact_lock({CLAIMS}, hashtext('slow 0'))"):
        assert not keep_below("default", 1)
    assert Change.objects.count() == 1500


def test_backlog_of_the_last_minutes_is_kept(captured: HerokuConnect, gaps: list[Any]) -> None:
    begin("alive")
    fill(0)
    assert not keep_below("default", 1)
    assert Change.objects.count() == 1500
    deliver(CONSUMER="alive")
    assert keep_below("default", 1), "delivered, the present bucket may go as well"
    assert gaps == []


def test_late_commit_into_the_oldest_bucket_is_delivered(captured: HerokuConnect, gaps: list[Any]) -> None:
    begin("dead")
    with open_transaction("INSERT INTO salesforce.account (sfid) VALUES ('open')") as late:
        fill(36)
        assert keep_below("default", 1)
        late.commit()
    assert deliver(CONSUMER="dead") == 1
    assert len(gaps) == 1


def test_commit_between_snapshot_and_lock_stays(captured: HerokuConnect) -> None:
    begin("dead")
    fill(36)
    moved = (
        "SELECT count(*) FROM pg_locks claim JOIN pg_locks own USING (pid) WHERE own.locktype = 'transactionid' "
        f"AND claim.locktype = 'advisory' AND claim.classid = {CLAIMS} AND {IS_OURS}"
    )
    into_oldest = (
        "INSERT INTO public.hc_signals_change (table_name, operation, origin, bucket) "
        f"VALUES ('salesforce.account', 'DELETE', 'heroku_connect', {filled('default')[0]})"
    )
    with open_transaction(into_oldest) as late:

        def commit_when_moved() -> None:
            try:
                wait_until(lambda: scalar(moved) > 0)
                late.commit()
            finally:
                connections["default"].close()

        thread = threading.Thread(target=commit_when_moved)
        thread.start()
        assert not keep_below("default", 1)
        thread.join(10)
    assert Change.objects.count() == 1501
    assert read_standing(LogShard("default", "dead")).position.gap is None


def test_worker_keeps_the_log_below_the_limit(captured: HerokuConnect, gaps: list[Any]) -> None:
    begin("dead")
    fill(36)
    conf = Conf(CONSUMER="alive", START_AT="latest", MAX_LOG_MB=1)
    Worker("default", conf).prepare()
    Chores("default", conf, threading.Event())._rotate()
    assert Change.objects.count() == 0
    gap = read_standing(LogShard("default", "dead")).position.gap
    assert gap is not None
    assert datetime.fromisoformat(gap["since"]) < now()


def test_size_counts_indexes(captured: HerokuConnect) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_relation_size('public.hc_signals_change_0'), pg_indexes_size('public.hc_signals_change_0')"
        )
        table, indexes = cursor.fetchone()
    assert table == 0
    assert size_mb("default") >= 8 * indexes / 2**20
