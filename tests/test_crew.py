"""Several threads and processes share the shards: records stay in order, no change is delivered twice."""

import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.delivery.pulse import Observer, Tally, observe, unobserve
from hc_signals.delivery.shard import Outcome, Shard
from hc_signals.log.layout import start
from hc_signals.log.position import LogShard
from hc_signals.models import Delivery
from hc_signals.postgres.locks import CLAIMS
from hc_signals.testing import HerokuConnect
from hc_signals.worker.crew import Crew
from hc_signals.worker.loop import Worker
from tests.conftest import another, as_heroku_connect, as_the_app, deliver
from tests.test_worker_process import asleep, insert, listener, wait_until

__all__ = ["listener"]


def run(crew: Crew, until: Callable[[], bool]) -> None:
    """Run the crew beside the test; stop it when the condition holds."""
    thread = threading.Thread(target=crew.run)
    thread.start()
    try:
        wait_until(until)
    finally:
        crew.stopping.set()
        thread.join()


def test_threads_share_the_shards_and_keep_each_record_in_order(captured: HerokuConnect, connect: Any) -> None:
    got: dict[str, list[str]] = defaultdict(list)
    threads: set[str] = set()

    def on_change(instance: Account, **kwargs: Any) -> None:
        got[instance.sf_id].append(instance.name)
        threads.add(threading.current_thread().name)

    connect(signals.record_changed, on_change, Account)
    sfids = captured.insert(Account, *({"name": "0"} for _ in range(40)))
    for number in range(1, 6):
        captured.poll(Account, [{"sf_id": sfid, "name": str(number)} for sfid in sfids])
    crew = Crew("default", Conf(SHARDS=4, BATCH_SIZE=10), 4)
    run(crew, lambda: Seen.objects.count() >= 240)
    assert all(names == ["0", "1", "2", "3", "4", "5"] for names in got.values())
    assert crew.delivered == Seen.objects.values("event_id").distinct().count() == 240
    assert len(threads) > 1, "the work was not shared"


@pytest.mark.parametrize("old_shards", [0, 3])
def test_threads_that_start_together_all_deliver_at_once(
    captured: HerokuConnect, connect: Any, old_shards: int
) -> None:
    """A new consumer, or another number of shards: a thread that finds the layout made holds no shards before."""
    if old_shards:
        start(LogShard.all_of("default", "default", old_shards), "latest")
    meeting, met = threading.Barrier(4), set()

    def meet(**kwargs: Any) -> None:
        if (name := threading.current_thread().name) not in met:
            met.add(name)
            meeting.wait(timeout=60)

    connect(signals.record_created, meet, Account)
    captured.create(Account, 200)
    crew = Crew("default", Conf(SHARDS=32), 4)
    with another(f"SELECT pg_advisory_xact_lock({CLAIMS}, hashtext('default 0'))") as first:

        def all_delivered() -> bool:
            wait_until(lambda: waiting_for_locks() == 4)
            first.execute("COMMIT")
            wait_until(lambda: Seen.objects.count() == 200)
            return True

        run(crew, all_delivered)
    assert not Delivery.objects.exists(), "the threads did not deliver at the same time"
    assert crew.delivered == Seen.objects.values("event_id").distinct().count() == 200


def waiting_for_locks() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return int(cursor.fetchone()[0])


def test_threads_begin_with_different_shards(captured: HerokuConnect, connect: Any) -> None:
    """A thread that begins next to another finds one claimed shard after the other."""
    begun: dict[str, int] = {}
    both = threading.Event()

    class Rounds(Observer):
        def page_begins(self, tally: Tally) -> None:
            begun.setdefault(threading.current_thread().name, tally.shard)
            if len(begun) == 2:
                both.set()

    connect(signals.record_created, lambda **kwargs: both.wait(timeout=60), Account)
    captured.create(Account, 200)
    rounds = Rounds()
    observe(rounds)
    try:
        run(Crew("default", Conf(SHARDS=32), 2), both.is_set)
    finally:
        unobserve(rounds)
    assert sorted(begun.values()) == [0, 16]


def test_sleeping_threads_are_woken_without_a_poll(captured: HerokuConnect) -> None:
    crew = Crew("default", Conf(SHARDS=3, POLL_INTERVAL=600.0), 3)

    def rounds() -> bool:
        for number in range(1, 4):
            wait_until(asleep)
            captured.create(Account, 12)
            wait_until(lambda n=number: Seen.objects.count() == 12 * n)  # type: ignore[misc]
        return True

    run(crew, rounds)


def test_due_retry_wakes_a_sleeping_worker(captured: HerokuConnect, connect: Any) -> None:
    calls: list[int] = []

    def flaky(event: Any, **kwargs: Any) -> None:
        calls.append(event.attempt)
        if event.attempt < 3:
            raise ValueError("not yet")

    connect(signals.record_created, flaky, Account)
    captured.create(Account, 1)
    conf = Conf(SHARDS=3, POLL_INTERVAL=600.0, RETRY_SECONDS=0.2, RETRY_MAX_SECONDS=0.2)
    run(Crew("default", conf, 2), lambda: len(calls) == 3 and not Delivery.objects.exists())
    assert calls == [1, 2, 3]


@pytest.mark.usefixtures("captured")
def test_standby_takes_over_from_a_killed_worker(listener: Any) -> None:
    workers = [listener("--poll-interval", "600") for _ in range(2)]
    wait_until(asleep)
    insert(3)
    wait_until(lambda: Seen.objects.count() == 3)
    insert(2000)
    wait_until(lambda: Seen.objects.count() > 50)
    os.kill(workers[0].pid, signal.SIGKILL)
    wait_until(lambda: Seen.objects.count() == 2003)
    wait_until(asleep)
    insert(2)
    wait_until(lambda: Seen.objects.count() == 2005)
    assert Seen.objects.values("event_id").distinct().count() == 2005


@pytest.mark.usefixtures("captured")
def test_sigterm_ends_all_threads_with_code_0(listener: Any) -> None:
    process = listener("--concurrency", "3")
    wait_until(asleep)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0


def test_worker_that_fails_ends_the_other_workers(captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a receiver nor a server can cause this error: it is a bug of ours."""

    crew = Crew("default", Conf(SHARDS=2), 2)

    def deliver_page(shard: Shard) -> Outcome:
        if shard.log.shard == 1:
            raise ZeroDivisionError
        crew.stopping.wait()
        return Outcome.DONE

    monkeypatch.setattr(Shard, "deliver_page", deliver_page)
    captured.create(Account, 8)
    with pytest.raises(ZeroDivisionError):
        crew.run()
    assert Seen.objects.count() == 0


def test_without_transaction_unfinished_calls_are_repeated(captured: HerokuConnect, connect: Any) -> None:
    calls: list[str] = []
    hooks: list[str] = []

    def slow(instance: Account, **kwargs: Any) -> None:
        assert not connection.in_atomic_block
        transaction.on_commit(lambda: hooks.append(instance.name))
        calls.append(instance.name)
        if instance.name == "b" and calls.count("b") == 1:
            raise KeyboardInterrupt  # as if the process were killed here

    connect(signals.record_created, slow, Account)
    captured.insert(Account, {"name": "a"}, {"name": "b"}, {"name": "c"})
    with pytest.raises(KeyboardInterrupt):
        deliver(ATOMIC=False)
    assert deliver(ATOMIC=False) == 3
    assert calls == ["a", "b", "a", "b", "c"]
    assert hooks == calls
    assert deliver(ATOMIC=False) == deliver() == 0


def test_without_transaction_failure_keeps_the_claim(captured: HerokuConnect, connect: Any) -> None:
    seen_elsewhere: list[int] = []

    def bad(**kwargs: Any) -> None:
        Seen.objects.create(event_id="half done", sequence_number=0, entity_name="", change_type="")
        thread = threading.Thread(target=lambda: seen_elsewhere.append(deliver_elsewhere()))
        thread.start()
        thread.join()
        raise ValueError("no")

    connect(signals.record_created, bad, Account)
    captured.create(Account, 1)
    assert deliver(ATOMIC=False) == 1
    assert seen_elsewhere == [0]
    assert [d.state for d in Delivery.objects.all()] == ["retry"]
    assert Seen.objects.filter(event_id="half done").exists(), "the receiver's write was committed"


def deliver_elsewhere() -> int:
    try:
        return deliver(ATOMIC=False)
    finally:
        connection.close()


def test_large_images_are_read_a_few_at_a_time(captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five hundred rows of five megabytes must not be in memory together, compressed or not."""
    monkeypatch.setattr("hc_signals.log.change.PAGE_BYTES", 2_000_000)
    as_heroku_connect(
        "INSERT INTO salesforce.project__c (sfid, name, description__c) SELECT 'P' || g, 'p' || g, CASE WHEN g % 2 = 0 "
        "THEN repeat('x', 500000) ELSE (SELECT string_agg(md5(random()::text || g || n), '') "
        "FROM generate_series(1, 15000) n) END FROM generate_series(1, 20) g"
    )
    worker = Worker("default", Conf())
    worker.prepare()
    sizes = []
    while worker.delivered < 20:
        before = worker.delivered
        worker.shards[0].deliver_page()
        sizes.append(worker.delivered - before)
    assert max(sizes) <= 4
    as_the_app("SELECT 1")
    assert Seen.objects.count() == 20
