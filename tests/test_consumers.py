"""Several consumers of one log: where a new one starts, what each has left, and how one is removed."""

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.delivery.failures import waiting_shards
from hc_signals.log import backlog as backlog_module
from hc_signals.log import positions
from hc_signals.log.backlog import backlog
from hc_signals.log.claims import claim_all
from hc_signals.log.layout import start
from hc_signals.log.position import LogShard, Position
from hc_signals.log.positions import shards_of
from hc_signals.log.rotation import rotate
from hc_signals.models import Change, Delivery
from hc_signals.models import Position as PositionRow
from hc_signals.postgres.locks import CLAIMS
from hc_signals.postgres.moments import aware
from hc_signals.testing import HerokuConnect
from hc_signals.worker.loop import Worker
from tests.conftest import IS_OURS, as_the_app, deliver, running_crew
from tests.test_rotation import age


def command(*arguments: Any, **options: Any) -> str:
    out = io.StringIO()
    call_command("hc_consumers", *arguments, stdout=out, **options)
    return out.getvalue()


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)


@contextmanager
def open_transaction(sql: str) -> Iterator[Any]:
    """Run Heroku Connect's statement in a transaction of another connection; commit() is the caller's."""
    other = connection.copy()
    other.inc_thread_sharing()  # commit() may come from another thread
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(f"SET LOCAL xmlbinary = 'hex'; {sql}")
        yield other
    finally:
        other.close()


def scalar(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


# Where a new consumer starts


@pytest.mark.parametrize("shards", [1, 3])
def test_latest_skips_only_what_is_committed(
    captured: HerokuConnect, connect: Any, caplog: pytest.LogCaptureFixture, shards: int
) -> None:
    causes: list[str] = []
    connect(signals.gap_detected, lambda event, **kwargs: causes.append(event.cause), Account)
    captured.create(Account, 5)
    scalar("SELECT nextval('public.hc_signals_lost_seq')")
    with open_transaction("INSERT INTO salesforce.account (sfid) VALUES ('open')") as late:
        captured.create(Account, 5)
        assert deliver(SHARDS=shards, START_AT="latest") == 0
        assert "new and starts at latest" in caplog.text
        late.commit()
    assert deliver(SHARDS=shards, START_AT="latest") == 1
    captured.create(Account, 4)
    assert deliver(SHARDS=shards) == 4
    assert causes == [], "losses before its start are not reported to it"
    scalar("SELECT nextval('public.hc_signals_lost_seq')")
    deliver(SHARDS=shards)
    assert causes == ["capture_failed"]


def test_earliest_delivers_the_whole_log(captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    deliver()
    assert deliver(CONSUMER="second") == 5


@pytest.mark.parametrize("shards", [1, 3])
def test_time_delivers_changes_captured_since(captured: HerokuConnect, shards: int) -> None:
    with open_transaction("INSERT INTO salesforce.account (sfid) VALUES ('open')") as late:
        captured.create(Account, 5)
        age(12)
        captured.create(Account, 7)
        assert deliver(SHARDS=shards, START_AT="2h", BATCH_SIZE=3) == 7
        late.commit()
    assert deliver(SHARDS=shards) == 1, "it commits later, so it is no older change"
    assert {position.shards for position in PositionRow.objects.all()} == {shards}


@pytest.mark.parametrize("shards", [1, 3])
def test_time_before_the_oldest_change_is_a_gap(
    captured: HerokuConnect, connect: Any, caplog: pytest.LogCaptureFixture, shards: int
) -> None:
    gaps: list[Any] = []
    connect(signals.gap_detected, lambda event, **kwargs: gaps.append(event), Account)
    captured.create(Account, 5)
    age(84)
    captured.create(Account, 2)
    deliver()
    newest = Change.objects.order_by("id")[4].captured_at
    assert len(rotate("default", 72)) == 1
    caplog.clear()
    assert deliver(CONSUMER="late", START_AT="4d", SHARDS=shards) == 2
    (gap,) = gaps
    assert gap.cause == "emptied"
    assert gap.since < aware(newest) == gap.until
    assert caplog.text.count("the log was emptied of changes up to") == 1
    assert deliver(CONSUMER="later", START_AT="3d", SHARDS=shards) == 2
    assert deliver(CONSUMER="all", START_AT="earliest", SHARDS=shards) == 2
    assert deliver(CONSUMER="late", SHARDS=shards) == deliver(CONSUMER="late", SHARDS=2) == 0
    assert gaps == [gap]


def test_time_without_later_changes_delivers_nothing(captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    age(12)
    assert deliver(START_AT="2h") == 0
    captured.create(Account, 2)
    assert deliver(START_AT="2h") == 2


def test_start_at_is_ignored_after_the_first_position(captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    deliver()
    captured.create(Account, 3)
    assert deliver(START_AT="latest") == 3


def test_two_workers_that_start_at_once_agree(captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    began: list[tuple[str, bool]] = []

    def begin(at: str) -> None:
        try:
            began.append((at, start(LogShard.all_of("default", "new", 2), at)))
        finally:
            connections["default"].close()

    key = f"({CLAIMS}, hashtext('new 0'))"
    with open_transaction(f"SELECT pg_advisory_xact_lock{key}") as other:
        threads = [threading.Thread(target=begin, args=[at]) for at in ("latest", "earliest")]
        for thread in threads:
            thread.start()
        wait_until(lambda: scalar(f"SELECT count(*) FROM pg_locks WHERE NOT granted AND {IS_OURS}") == 2)
        other.commit()
        for thread in threads:
            thread.join(10)
    (first,) = [at for at, was_first in began if was_first]
    assert PositionRow.objects.count() == 2
    assert deliver(CONSUMER="new", SHARDS=2) == (5 if first == "earliest" else 0)


def test_command_gives_a_consumer_its_position(captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    assert command("start", "billing", at="latest") == "Consumer 'billing' starts at latest.\n"
    captured.create(Account, 2)
    with pytest.raises(CommandError, match="'billing' has a position already; nothing was changed"):
        command("start", "billing", at="earliest")
    assert deliver(CONSUMER="billing", SHARDS=3) == 2


# What each has left


@pytest.mark.parametrize("shards", [1, 3])
def test_backlog_is_what_gets_delivered(captured: HerokuConnect, shards: int) -> None:
    worker = Worker("default", Conf(SHARDS=shards, BATCH_SIZE=4))
    logs = [shard.log for shard in worker.shards]
    worker.deliver_once()
    with open_transaction("INSERT INTO salesforce.account (sfid) VALUES ('open')") as late:
        captured.create(Account, 20)
        worker.shards[0].deliver_page()
        captured.create(Account, 10)
        assert backlog(logs).count == 30 - worker.delivered
        worker.shards[-1].deliver_page()
        late.commit()
    while left := 31 - worker.delivered:
        found = backlog(logs)
        assert found.count == left
        assert found.since is not None
        worker._deliver_round()
    assert backlog(logs) == backlog_module.Backlog(0, None)


def test_long_backlog_is_counted_up_to_the_limit(captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "COUNT_LIMIT", 10)
    command("start", "behind", at="latest")
    captured.create(Account, 10)
    assert str(backlog(shards_of("default", "behind"))) == "10"
    captured.create(Account, 20)
    assert str(backlog(shards_of("default", "behind"))) == "more than 10"


def test_list_shows_lag_and_held_up_rotation(captured: HerokuConnect, connect: Any) -> None:
    assert command("list").startswith("No consumer yet")

    def fail(instance: Account, **kwargs: Any) -> None:
        raise ValueError("no")

    command("start", "behind", at="earliest")
    captured.create(Account, 5)
    connect(signals.record_created, fail, Account)
    deliver(SHARDS=2)
    age(84)
    behind, default = command("list").splitlines()
    assert behind.startswith("behind: 1 shard(s), 0 worker(s); 5 change(s) to deliver, the oldest 3 d old; moved")
    assert behind.endswith("HOLDS UP THE ROTATION OF THE LOG")
    assert default.startswith("default: 2 shard(s), ")
    assert "; 0 change(s) to deliver; moved" in default
    assert default.endswith("failed deliveries: 5 retry")


def test_idle_shard_does_not_hold_up_the_rotation(captured: HerokuConnect) -> None:
    deliver(SHARDS=4)
    sfid = captured.insert(Account, name="0")[0]
    for number in range(1, 5):
        captured.update(Account, sfid, name=str(number))
    assert deliver(SHARDS=4) == 5
    age(84)
    as_the_app("UPDATE public.hc_signals_position SET created_at = created_at - interval '20 minutes'")
    assert len(waiting_shards("default", Conf(SHARDS=4))[0]) == 3
    assert deliver(SHARDS=4) == 0
    assert waiting_shards("default", Conf(SHARDS=4))[0] == set()
    assert len(rotate("default", 72)) == 1


def test_empty_shard_does_not_hold_up_the_rotation(captured: HerokuConnect) -> None:
    captured.insert(Account, name="0")
    assert deliver(SHARDS=4) == 1
    age(84)
    assert len(rotate("default", 72)) == 1


def test_alternating_consumers_get_their_positions_pruned(
    captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "PRUNE_SHARE", 0.1)
    names = ("a", "b")
    with transaction.atomic():
        claims = claim_all(LogShard("default", name) for name in names)
        for _ in range(900):
            for claim in claims:
                claim.append(Position())
    for name in names:
        assert PositionRow.objects.filter(consumer=name).count() < 700


def test_view_has_the_newest_positions(captured: HerokuConnect) -> None:
    assert scalar("SELECT count(*) FROM public.hc_signals_newest_position") == 0
    for consumer, shards in (("b", 3), ("a", 1), ("ä", 2), ("b", 3)):
        for claim in claim_all(LogShard.all_of("default", consumer, shards)):
            claim.append(Position())
    with connection.cursor() as cursor:
        cursor.execute("SELECT consumer, shard, id FROM public.hc_signals_newest_position ORDER BY 3")
        by_view = cursor.fetchall()
        cursor.execute("SELECT consumer, shard, max(id) FROM public.hc_signals_position GROUP BY 1, 2 ORDER BY 3")
        assert by_view == cursor.fetchall()


# One that is gone


def test_removed_consumer_frees_the_log(captured: HerokuConnect) -> None:
    command("start", "gone", at="latest")
    captured.create(Account, 5)
    deliver()
    age(84)
    assert rotate("default", 72) == []
    assert command("remove", "gone") == "Consumer 'gone' was removed.\n"
    assert len(rotate("default", 72)) == 1


def test_consumer_with_a_running_worker_is_not_removed(captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    with running_crew(CONSUMER="alive", START_AT="earliest"):
        wait_until(lambda: Seen.objects.count() == 5)
        with pytest.raises(CommandError, match="'alive' has a running worker"):
            command("remove", "alive")
        assert " 1 worker(s)" in command("list")
    wait_until(lambda: "0 worker(s)" in command("list"))
    command("remove", "alive")
    assert PositionRow.objects.count() == 0


def test_worker_restarts_after_its_consumer_was_removed(captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    command("start", "alive", at="earliest")
    with running_crew(CONSUMER="alive", START_AT="latest", POLL_INTERVAL=60.0):
        wait_until(lambda: Seen.objects.count() == 5)
        command("remove", "alive", force=True)
        wait_until(lambda: PositionRow.objects.count() > 0)
        captured.create(Account, 2)
        wait_until(lambda: Seen.objects.count() == 7)
    assert Seen.objects.values("event_id").distinct().count() == Seen.objects.count() == 7


def test_remove_refuses_failed_deliveries_by_default(captured: HerokuConnect, connect: Any) -> None:
    def fail(instance: Account, **kwargs: Any) -> None:
        raise ValueError("no")

    captured.create(Account, 5)
    connect(signals.record_created, fail, Account)
    deliver()
    with pytest.raises(CommandError, match="has 5 failed deliveries"):
        command("remove", "default")
    assert PositionRow.objects.count() > 0
    assert command("remove", "default", with_deliveries=True) == "Consumer 'default' was removed, with 5 deliveries.\n"
    assert Delivery.objects.count() == PositionRow.objects.count() == 0


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["remove", "missing"], {}, "There is no consumer 'missing'; known: 'default'"),
        (["remove", ""], {}, "The name is empty"),
        (["start", "", "--at", "latest"], {}, "The name is empty"),
        (["start", "new"], {}, "--at"),
        (["start", "new", "--at", "2099-01-01"], {}, "lies in the future"),
        (["start", "new", "--at=-2h"], {}, "'-2h' is not a time"),
        (["start", "new", "--at", "soon"], {}, "'soon' is not a time.*'earliest' and 'latest' are taken too"),
        (["start", "default", "--at", "latest"], {}, "has a position already"),
        (["list"], {"database": "nope"}, "'nope' doesn't exist"),
        (["drop", "default"], {}, "invalid choice: 'drop'"),
    ],
)
def test_wrong_arguments_change_nothing(
    captured: HerokuConnect, arguments: list[str], options: dict[str, Any], message: str
) -> None:
    deliver()
    before = list(PositionRow.objects.values_list("id", "consumer"))
    with pytest.raises(CommandError, match=message):
        command(*arguments, **options)
    assert list(PositionRow.objects.values_list("id", "consumer")) == before


def test_command_refuses_a_restored_database(captured: HerokuConnect) -> None:
    deliver()
    as_the_app("UPDATE public.hc_signals_control SET system_identifier = system_identifier + 1")
    try:
        with pytest.raises(CommandError, match="restored from another server"):
            command("start", "new", at="latest")
    finally:
        as_the_app("UPDATE public.hc_signals_control SET system_identifier = system_identifier - 1")


def test_start_of_a_consumer_is_logged(captured: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="hc_signals"):
        deliver()
    assert "Consumer 'default' is new and starts with the oldest change" in caplog.text
