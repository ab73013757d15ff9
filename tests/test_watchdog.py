"""The watchdog breaks connections that are kept open but pass nothing on, and no other connection."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection, connections
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.testing import HerokuConnect
from hc_signals.worker import watchdog
from hc_signals.worker.watchdog import Watchdog
from tests.chaos.proxy import Proxy
from tests.conftest import IS_OURS, running_crew
from tests.test_worker_process import asleep, wait_until


@pytest.fixture
def network(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A network between the database and every other thread, and watchdogs with shorter limits."""
    connection.ensure_connection()
    params = connection.get_connection_params()
    proxy = Proxy(psycopg.conninfo.make_conninfo(host=params["host"], port=params.get("port")))
    monkeypatch.setitem(connections.settings["default"], "HOST", "127.0.0.1")
    monkeypatch.setitem(connections.settings["default"], "PORT", str(proxy.port))
    monkeypatch.setattr(Watchdog, "EVERY", 0.1)
    monkeypatch.setattr(watchdog, "IDLE_SECONDS", 0.2)
    yield proxy
    proxy.close()


def listening(**conf: Any) -> AbstractContextManager[None]:
    """Run a crew behind the network during the block."""
    return running_crew(POLL_INTERVAL=600.0, **conf)


def broken(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "is unresponsive" in record.getMessage()]


@pytest.mark.parametrize(("atomic", "fault"), [(True, "sever"), (True, "stall"), (False, "stall")])
def test_delivery_goes_on_when_receivers_query_gets_no_answer(
    captured: HerokuConnect, network: Proxy, connect: Any, atomic: bool, fault: str
) -> None:
    """Also if the server keeps the session, which holds the claim of the shard."""
    calls: list[str] = []

    def on_account(instance: Account, using: str, **kwargs: Any) -> None:
        calls.append(instance.name)
        if calls == ["a", "b"]:
            getattr(network, fault)()
        Seen.objects.using(using).exists()

    connect(signals.record_created, on_account, Account)
    captured.insert(Account, {"name": "a"}, {"name": "b"}, {"name": "c"})
    with listening(ATOMIC=atomic, RETRY_SECONDS=0.1):
        wait_until(lambda: "c" in calls and calls.count("b") >= 2 and Seen.objects.count() == 3)
    if atomic:
        assert calls == ["a", "b", "a", "b", "c"]
    else:  # the call is retried, and the page is delivered again because the claim is lost as well
        assert (calls[:2], calls.count("a"), calls.count("c")) == (["a", "b"], 2, 1)


def test_sleeper_wakes_again_when_doorbell_was_unresponsive(
    captured: HerokuConnect, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hc_signals.worker.bell_connection.BellConnection.PING_EVERY", 0.2)
    with listening():
        captured.create(Account, 1)
        wait_until(lambda: Seen.objects.count() == 1 and asleep())
        network.stall()
        captured.create(Account, 1)
        wait_until(lambda: Seen.objects.count() == 2)


def test_unresponsive_worker_stops_on_request(captured: HerokuConnect, network: Proxy, connect: Any) -> None:
    connect(signals.record_created, lambda **kwargs: network.stall(), Account)
    captured.create(Account, 1)
    with listening():
        wait_until(lambda: any(not pair.passing.is_set() for pair in network._pairs.copy()))


def test_long_statement_keeps_its_connection(
    captured: HerokuConnect, network: Proxy, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def slow(instance: Account, using: str, **kwargs: Any) -> None:
        calls.append(instance.name)
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1.5)")
        time.sleep(1)

    connect(signals.record_created, slow, Account)
    captured.insert(Account, {"name": "a"})
    with listening():
        wait_until(lambda: Seen.objects.count() == 1)
    assert calls == ["a"]
    assert not broken(caplog)


def test_connection_broken_by_mistake_gets_more_time(
    captured: HerokuConnect, network: Proxy, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A receiver that reads rows one by one, with pauses, seems to wait for an answer."""
    calls: list[str] = []

    def thoughtful(instance: Account, using: str, **kwargs: Any) -> None:
        calls.append(instance.name)
        with connections[using].cursor() as cursor:
            for _ in cursor.cursor.stream("SELECT generate_series(1, 2)"):
                time.sleep(0.6)

    connect(signals.record_created, thoughtful, Account)
    captured.insert(Account, {"name": "a"})
    with listening():
        wait_until(lambda: Seen.objects.count() == 1)
    assert 1 < len(calls) <= 4
    assert len(broken(caplog)) == len(calls) - 1


@contextmanager
def waiting_for(sql: str, dog: Watchdog, in_receiver: bool = False) -> Iterator[dict[str, Any]]:
    """Wait for the answer to a statement over the network, in another thread that the watchdog watches."""
    found: dict[str, Any] = {}
    asked = threading.Event()

    def ask() -> None:
        own = connections["default"]
        own.ensure_connection()
        dog.watch("the test", lambda: own.connection, lambda: None, lambda: in_receiver)
        asked.set()
        try:
            with own.cursor() as cursor:
                cursor.execute(sql)
                found["answer"] = cursor.fetchone()
        except OperationalError as error:
            found["error"] = error
        own.close()

    thread = threading.Thread(target=ask)
    thread.start()
    asked.wait()
    dog.start()
    try:
        yield found
    finally:
        wait_until(lambda: not thread.is_alive())
        dog.end()
        dog.join()


def is_asleep_at_the_server() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND {IS_OURS}")
        return bool(cursor.rowcount)


def test_large_answer_that_stalls_breaks_the_connection(
    network: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watchdog, "STALLED_SECONDS", 0.8)
    with waiting_for("SELECT repeat('x', 50000000) FROM pg_sleep(0.5)", Watchdog("default")) as found:
        wait_until(is_asleep_at_the_server)
        network.stall()
    assert "error" in found
    assert "is blocked sending its answer" in broken(caplog)[0]


def test_no_connection_is_broken_while_server_is_unreachable(network: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog("default")
    dog.ASK_SECONDS = 0.3
    with waiting_for("SELECT pg_sleep(0.5)", dog) as found:
        wait_until(is_asleep_at_the_server)
        network.go_silent()
        time.sleep(2)  # a pause in which nothing must happen
        assert not found
        network.recover()
    assert "error" in found
    assert not broken(caplog)
