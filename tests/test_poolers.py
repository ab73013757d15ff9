"""The real PgBouncer between hc_listen and the server: session state of a process ends with the process."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from example.crm.models import Seen

from hc_signals.log.presence import workers
from hc_signals.postgres.locks import BELL, CLAIMS, PRESENCE, RUNS
from hc_signals.postgres.sessions import SessionKind, session_kind
from tests.conftest import IS_OURS
from tests.pgbouncer import PgBouncer, needs_pgbouncer
from tests.test_worker_process import asleep, insert, start, wait_until

pytestmark = [needs_pgbouncer, pytest.mark.django_db(transaction=True)]

MODES: dict[str, tuple[str, tuple[str, ...]]] = {
    "transaction": ("transaction", ()),
    "transaction, always reset": ("transaction", ("server_reset_query_always = 1",)),
    "session": ("session", ()),
    "session, no reset": ("session", ("server_reset_query =",)),
    "statement": ("statement", ()),
}
POOL_SIZE = 8


@pytest.fixture
def bouncer() -> Iterator[Callable[[str], PgBouncer]]:
    """Start PgBouncer in one of MODES in front of the test's server."""
    started: list[PgBouncer] = []

    def launch(mode: str, size: int = POOL_SIZE) -> PgBouncer:
        database = settings.DATABASES["default"]
        server = psycopg.conninfo.make_conninfo(
            host=database["HOST"] or None,
            port=database["PORT"] or None,
            user=database["USER"] or None,
            password=database["PASSWORD"] or None,
            dbname=connection.settings_dict["NAME"],
        )
        pool_mode, options = MODES[mode]
        started.append(PgBouncer(server, pool_mode, size=size, options=options))
        return started[-1]

    yield launch
    for each in started:
        each.stop()


@pytest.fixture
def listen() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start hc_listen through a PgBouncer."""
    started: list[subprocess.Popen[str]] = []

    def launch(pooler: PgBouncer, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        started.append(start("hc_listen", *arguments, DATABASE_URL=pooler.url, **environment))
        return started[-1]

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def left_behind(pooler: PgBouncer, busy: int = 0) -> set[Any]:
    """Return the session state in all idle server sessions of the pool, and our locks in the database."""
    found: set[Any] = set()
    with ExitStack() as stack:
        for _ in range(POOL_SIZE - busy):  # in a transaction each, so that each has a server session of its own
            client = stack.enter_context(psycopg.connect(pooler.url))
            found |= {row[0] for row in client.execute("SELECT pg_listening_channels()")}
            (value,) = client.execute("SHOW synchronous_commit").fetchone() or ("",)
            found |= {value} - {"on"}
            found |= {row[0] for row in client.execute("SELECT name FROM pg_prepared_statements")}
            found |= set(
                client.execute("SELECT name, setting FROM pg_settings WHERE name ~ 'timeout' AND source = 'session'")
            )
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT classid, objid, mode FROM pg_locks WHERE locktype = 'advisory' AND classid = ANY(%s) AND "
            + IS_OURS,
            [[BELL[0], CLAIMS, PRESENCE, RUNS]],
        )
        return found | set(cursor.fetchall())


def application_names(name: str) -> bool:
    """Return True if the server shows a session of this name."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM pg_stat_activity WHERE application_name = %s AND {IS_OURS}", [name])
        return bool(cursor.rowcount)


def command(pooler: PgBouncer, *arguments: str) -> tuple[str, int]:
    """Run a management command through PgBouncer; return its output and exit code."""
    process = start(*arguments, DATABASE_URL=pooler.url)
    output, _ = process.communicate(timeout=60)
    return output, process.returncode


def is_at_work() -> bool:
    return workers("default", "default") > 0


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("session", SessionKind.LENT),
        ("session, no reset", SessionKind.SHARED),
        ("transaction", SessionKind.SHARED),
        ("transaction, always reset", SessionKind.SHARED),
    ],
)
def test_session_kind_sees_through_the_pooler(bouncer: Any, mode: str, kind: SessionKind) -> None:
    pooler = bouncer(mode)

    def connect() -> psycopg.Connection:
        return psycopg.connect(pooler.url, autocommit=True, prepare_threshold=None)

    for _ in range(3):
        with connect() as raw:
            assert session_kind(raw, connect) is kind


def test_session_kind_is_shared_in_a_busy_pool(bouncer: Any) -> None:
    """Other clients take the sessions that are given back, so the two connections get theirs by chance."""
    pooler, stopping = bouncer("transaction"), threading.Event()

    def connect() -> psycopg.Connection:
        return psycopg.connect(pooler.url, autocommit=True, prepare_threshold=None)

    def busy() -> None:
        with connect() as client:
            while not stopping.is_set():
                client.execute("SELECT pg_sleep(random() / 200)")

    clients = [threading.Thread(target=busy) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for _ in range(10):
            with connect() as raw:
                assert session_kind(raw, connect) is SessionKind.SHARED
    finally:
        stopping.set()
        for client in clients:
            client.join()


def test_session_kind_is_direct_without_a_pooler() -> None:
    connection.ensure_connection()
    assert session_kind(connection.connection, lambda: pytest.fail("needs no other connection")) is SessionKind.DIRECT


@pytest.mark.usefixtures("captured")
@pytest.mark.fault(
    "hc_listen behind PgBouncer, killed", outcome="no lock, LISTEN or setting of ours stays in a session of the pool"
)
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "statement"])
def test_killed_worker_leaves_nothing_in_the_pool(bouncer: Any, listen: Any, mode: str) -> None:
    pooler = bouncer(mode)
    process = listen(pooler)
    wait_until(is_at_work)
    insert(5)
    wait_until(lambda: Seen.objects.count() == 5)
    wait_until(lambda: asleep() == (mode == "session"))
    assert application_names("hc_listen default bell") == (mode == "session")
    process.kill()
    process.wait()
    wait_until(lambda: not left_behind(pooler))


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_ended_worker_leaves_nothing_in_the_pool(bouncer: Any, listen: Any, mode: str) -> None:
    pooler = bouncer(mode)
    process = listen(pooler)
    wait_until(is_at_work)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert ("A pooler shares" in output) == (mode == "transaction")
    assert not left_behind(pooler)


@pytest.mark.usefixtures("captured")
def test_statement_mode_is_refused_in_the_poolers_words(bouncer: Any, listen: Any) -> None:
    """PgBouncer ends the connection. Once its mode is another one, hc_listen goes on."""
    pooler = bouncer("statement")
    output, code = command(pooler, "hc_listen", "--once")
    assert "transaction blocks not allowed in statement pooling mode [08P01]" in output
    assert code == 1
    process = listen(pooler)
    insert(3)
    pooler.change("pool_mode", "transaction")
    wait_until(lambda: Seen.objects.count() == 3, 40)
    assert process.poll() is None


@pytest.mark.usefixtures("captured")
@pytest.mark.fault("PgBouncer is killed and started again", outcome="delivery goes on through it")
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_worker_goes_on_when_the_pooler_restarts(bouncer: Any, listen: Any, mode: str) -> None:
    pooler = bouncer(mode)
    process = listen(pooler)
    wait_until(is_at_work)
    for count in (3, 6):
        pooler.restart()
        insert(3)
        wait_until(lambda n=count: Seen.objects.count() == n)  # type: ignore[misc]
    wait_until(is_at_work)
    assert process.poll() is None


@pytest.mark.usefixtures("captured")
@pytest.mark.fault(
    "two workers with ATOMIC = False behind PgBouncer in transaction mode", outcome="each change is delivered once"
)
@pytest.mark.parametrize("atomic", [True, False])
def test_two_workers_share_the_shards_behind_a_pooler(bouncer: Any, listen: Any, atomic: bool) -> None:
    pooler = bouncer("transaction", size=12)
    conf = {"HC_SIGNALS_JSON": json.dumps({"SHARDS": 2, "ATOMIC": atomic})}
    insert(150)
    for _ in range(2):
        listen(pooler, "--concurrency", "2", "--batch-size", "20", **conf)
    wait_until(lambda: workers("default", "default") == 2)
    insert(150)
    wait_until(lambda: Seen.objects.count() >= 300)
    assert Seen.objects.values("event_id").distinct().count() == Seen.objects.count() == 300


@pytest.mark.usefixtures("captured")
@pytest.mark.fault(
    "PgBouncer goes from session to transaction mode while `hc_listen` runs",
    outcome="the worker polls; nothing of it stays in the pool",
)
def test_worker_notices_a_changed_pool_mode(bouncer: Any, listen: Any) -> None:
    pooler = bouncer("session")
    process = listen(pooler)
    wait_until(asleep)
    pooler.change("pool_mode", "transaction")
    for count in (3, 6):
        insert(3)
        wait_until(lambda n=count: Seen.objects.count() == n, 40)  # type: ignore[misc]
    wait_until(lambda: application_names("hc_listen default pooled"), 40)
    wait_until(lambda: not asleep())
    process.terminate()
    process.communicate(timeout=60)
    wait_until(lambda: not left_behind(pooler))


@pytest.mark.usefixtures("captured")
def test_commands_behind_a_pooler_see_the_worker(bouncer: Any, listen: Any) -> None:
    pooler = bouncer("transaction")
    listen(pooler)
    wait_until(is_at_work)
    output, code = command(pooler, "hc_status")
    assert "[bell-pooled]" in output
    assert "ok    consumer    default: 1 worker(s), nothing to deliver" in output
    assert code == 0
    output, code = command(pooler, "hc_consumers", "remove", "default")
    assert "has a running worker" in output
    assert code == 1
    assert command(pooler, "hc_triggers", "install")[1] == 0
    assert [found[0] for found in left_behind(pooler, busy=2)] == [PRESENCE], "the running worker's own"


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_writer_behind_a_pooler_wakes_a_direct_worker(bouncer: Any, mode: str) -> None:
    pooler = bouncer(mode)
    process = start("hc_listen", "--poll-interval", "600")
    try:
        for count in (2, 4):
            wait_until(asleep)
            with psycopg.connect(pooler.url) as writer:
                writer.execute("SET LOCAL xmlbinary = 'hex'")
                writer.execute("INSERT INTO salesforce.account (name) VALUES ('a'), ('b')")
            wait_until(lambda n=count: Seen.objects.count() == n)  # type: ignore[misc]
        wait_until(asleep)
        assert len(left_behind(pooler)) == 3, "the direct worker's own: bell, presence, run"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.usefixtures("captured")
def test_djangos_own_pool_lends_enough(listen: Any, bouncer: Any) -> None:
    """Threads that keep their connection for good would soon empty the pool."""
    pytest.importorskip("psycopg_pool", reason="psycopg_pool is not installed (pip install 'psycopg[pool]')")
    conf = json.dumps({"SHARDS": 2, "ATOMIC": False})
    options = '{"OPTIONS": {"pool": {"min_size": 1, "max_size": 3}}, "CONN_MAX_AGE": 0}'
    process = start("hc_listen", "--concurrency", "2", DATABASE_JSON=options, HC_SIGNALS_JSON=conf)
    try:
        for count in (150, 300):
            wait_until(asleep)
            insert(150)
            wait_until(lambda n=count: Seen.objects.count() == n)  # type: ignore[misc]
        wait_until(lambda: application_names("hc_listen default chores"))
        process.terminate()
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    finally:
        process.kill()
        process.communicate()


@pytest.mark.usefixtures("captured")
def test_tail_polls_behind_a_pooler_and_leaves_nothing(bouncer: Any) -> None:
    pooler = bouncer("transaction")
    process = start("hc_tail", "--json", "--since", "1h", DATABASE_URL=pooler.url)
    assert process.stdout is not None
    try:
        for _ in range(2):
            insert(1)
            line = next(line for line in process.stdout if line.startswith("{"))  # the others are stderr's
            assert json.loads(line)["change_type"] == "CREATE"
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()
    assert left_behind(pooler) == set()
