"""The chores of a worker: few queries while nothing happens, over a connection that may end."""

import threading
import time
from typing import Any

import psycopg
import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from hc_signals.conf import Conf
from hc_signals.delivery.shard import Outcome
from hc_signals.models import Change
from hc_signals.testing import HerokuConnect
from hc_signals.worker import watchdog
from hc_signals.worker.chores import RELOADS_EVERY, Chores
from hc_signals.worker.loop import Worker
from hc_signals.worker.watchdog import Watchdog
from tests.chaos.proxy import Proxy
from tests.conftest import another, as_heroku_connect, as_the_app
from tests.test_reloads import fill, hours_pass


@pytest.fixture
def chores(captured: HerokuConnect) -> Chores:
    """The chores of a worker, each done once, on a connection of their own."""
    connection.close()
    chores = Chores("default", Conf(), threading.Event())
    chores.do_what_is_due()
    return chores


def after(seconds: float, chores: Chores) -> None:
    """Do the chores that are due after some seconds."""
    for chore in chores.chores:
        chore.due -= seconds
    chores.do_what_is_due()


def test_idle_chores_run_one_query(chores: Chores) -> None:
    with CaptureQueriesContext(connection) as queries:
        for _ in range(3):
            after(RELOADS_EVERY + 1, chores)
    assert len(queries) == 3
    pid = connection.connection.info.backend_pid
    chores._connect()  # asks whether the connection is alive
    with another(f"SELECT query FROM pg_stat_activity WHERE pid = {pid}") as cursor:
        assert cursor.fetchone()[0] not in ("", "SELECT 1")
    with CaptureQueriesContext(connection) as queries:
        chores._rotate()
    assert len(queries) == 1


def test_chores_keep_their_connection_until_they_end(captured: HerokuConnect) -> None:
    stopping = threading.Event()
    chores = Chores("default", Conf(WATCH_SECONDS=0.02), stopping)
    chores.start()
    try:
        first = wait_for_chores(since=None)
        for _ in range(3):
            (pid, at) = wait_for_chores(since=first[1])
            assert pid == first[0]
            first = (pid, at)
    finally:
        stopping.set()
        chores.join(timeout=60)
    deadline = time.monotonic() + 10
    while sessions():
        assert time.monotonic() < deadline, "the connection is still open"
        time.sleep(0.01)


def sessions() -> list[tuple[int, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, query_start FROM pg_stat_activity "
            "WHERE application_name = 'hc_listen default chores' AND datname = current_database()"
        )
        return list(cursor.fetchall())


def wait_for_chores(since: Any) -> tuple[int, Any]:
    """Wait for a session that has begun a query after this time."""
    deadline = time.monotonic() + 10
    while not (found := [session for session in sessions() if since is None or session[1] > since]):
        assert time.monotonic() < deadline, "no chore was done"
        time.sleep(0.01)
    return found[0]


def test_sleeping_worker_reads_the_log_with_one_query(captured: HerokuConnect) -> None:
    worker = Worker("default", Conf())
    worker.prepare()
    while worker.shards[0].deliver_page() is not Outcome.DONE:
        pass
    with CaptureQueriesContext(connection) as queries:
        assert not worker._is_waiting()
    assert len(queries) == 1


def test_reload_that_begins_between_two_checks_is_ended(chores: Chores) -> None:
    fill(1, 30)
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 20)
    after(RELOADS_EVERY, chores)
    assert not Change.objects.filter(operation="RELOADED").exists()
    hours_pass()
    after(RELOADS_EVERY, chores)
    assert Change.objects.filter(operation="RELOADED").count() == 1
    assert Change.objects.filter(operation="DELETE").count() == 10


def test_end_of_a_reload_is_logged_once(chores: Chores, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hc_signals")
    fill(1, 20)
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 20)
    hours_pass()
    after(2 * RELOADS_EVERY, chores)
    after(2 * RELOADS_EVERY, chores)
    assert [record.message for record in caplog.records if "is over" in record.message] == [
        "The reload of salesforce.account is over."
    ]


def test_reload_is_found_although_the_watch_is_rare(captured: HerokuConnect) -> None:
    chores = Chores("default", Conf(WATCH_SECONDS=3600), threading.Event())
    chores.do_what_is_due()
    fill(1, 30)
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 30)
    hours_pass()
    after(RELOADS_EVERY + 1, chores)
    assert Change.objects.filter(operation="RELOADED").count() == 1


def test_idle_connection_that_ended_is_replaced_silently(chores: Chores, caplog: pytest.LogCaptureFixture) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    with another(f"SELECT pg_terminate_backend({pid}, 5000)"):
        after(RELOADS_EVERY, chores)
    assert chores.chores[0].due > time.monotonic() + 20
    assert not caplog.records


def test_unresponsive_connection_does_not_end_the_watch(
    captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy keeps the connection open and passes nothing on: TCP reports nothing."""
    monkeypatch.setattr(Watchdog, "EVERY", 0.05)
    monkeypatch.setattr(watchdog, "IDLE_SECONDS", 0.2)
    params = connection.get_connection_params()
    proxy = Proxy(psycopg.conninfo.make_conninfo(host=params["host"], port=params.get("port")))
    dues: list[float] = []
    dog = Watchdog("default")
    dog.start()

    def work() -> None:
        far = connections["default"] = connection.copy()  # of this thread only
        far.settings_dict |= {"HOST": "127.0.0.1", "PORT": proxy.port}
        chores = Chores("default", Conf(), threading.Event())
        dog.watch("the chores", lambda: far.connection, lambda: chores.done)
        chores.do_what_is_due()
        proxy.sever()
        after(RELOADS_EVERY, chores)
        dues.append(chores.chores[0].due)
        far.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout=60)
    dog.end()
    dog.join()
    proxy.close()
    assert not thread.is_alive(), "it waits for ever"
    assert dues[0] > time.monotonic() + 15
    assert ["The connection of the chores is unresponsive" in message for message in caplog.messages] == [True]


def test_chore_that_fails_on_a_new_connection_is_logged(chores: Chores, caplog: pytest.LogCaptureFixture) -> None:
    as_the_app("ALTER TABLE public.hc_signals_table RENAME TO hc_signals_gone")
    try:
        after(RELOADS_EVERY, chores)
    finally:
        as_the_app("ALTER TABLE public.hc_signals_gone RENAME TO hc_signals_table")
    said = (
        'The watch over capture is refused by the database: relation "public.hc_signals_table" does not exist [42P01]'
    )
    assert said in caplog.text
