"""Errors of the database do not end hc_listen: it logs them once, shows them, and goes on by itself."""

import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, OperationalError, connection, connections
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.delivery.pulse import Pulse
from hc_signals.observability import judge
from hc_signals.observability.findings import Finding
from hc_signals.observability.liveness import liveness
from hc_signals.observability.surveyor import Surveyor
from hc_signals.postgres import trouble
from hc_signals.postgres.limits import OWN_LIMITS
from hc_signals.postgres.trouble import Trouble
from hc_signals.testing import HerokuConnect
from hc_signals.worker import threads
from hc_signals.worker.chores import Chores
from hc_signals.worker.crew import Crew
from hc_signals.worker.doorbell import Doorbell
from hc_signals.worker.threads import keep_turning
from hc_signals.worker.watchdog import Watchdog
from tests.chaos.proxy import Proxy
from tests.conftest import running_crew
from tests.server import own
from tests.test_metrics import get, url_of
from tests.test_worker_process import asleep, insert, start, wait_until


class WorkerProcess:
    """A real hc_listen with /healthz, and its output."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._process: subprocess.Popen[str] = start("hc_listen", "--metrics-port", "0", *arguments, **environment)
        self.url = url_of(self._process)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self._process.stdout or ()))
        self._reader.start()

    def says(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    def health(self) -> Any:
        return json.loads(get(self.url + "/healthz")[1])

    def is_well(self) -> bool:
        return get(self.url + "/healthz")[0] == 200

    def metric(self, line: str) -> bool:
        return line in get(self.url + "/metrics")[1]

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(timeout=60)
        self._reader.join()
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def launch() -> Iterator[Callable[..., WorkerProcess]]:
    """Start a :class:`WorkerProcess`; it is killed at the end of the test."""
    launched: list[WorkerProcess] = []

    def start_one(*arguments: str, **environment: str) -> WorkerProcess:
        launched.append(WorkerProcess(*arguments, **environment))
        return launched[-1]

    yield start_one
    for each in launched:
        each.kill()


def url(**other: Any) -> str:
    """Return the URL of the test's server, with other parts where given."""
    settings = connection.settings_dict
    parts = {"user": settings["USER"], "host": settings["HOST"], "port": settings["PORT"] or 5432, **other}
    return f"postgresql://{parts['user']}@/x?host={parts['host']}&port={parts['port']}"


@contextmanager
def administrator(*at_the_end: str) -> Iterator[Callable[[str], None]]:
    """Run statements on the maintenance database; ``{}`` becomes the name of the test's database."""
    database = connection.settings_dict["NAME"]
    with psycopg.connect(url().replace("/x?", "/postgres?"), autocommit=True) as other:

        def run(sql: str) -> None:
            other.execute(sql.format(f'"{database}"').encode())

        try:
            yield run
        finally:
            for sql in at_the_end:
                run(sql)


END_SESSIONS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE application_name LIKE 'hc_listen %' AND format('\"%s\"', datname) = '{}'"
)


def status(problem: str) -> list[dict[str, Any]]:
    """Return the facts of the findings with this problem."""
    return [dict(f.facts) for f in judge.examine("default", Conf(), ask_heroku=False) if f.problem == problem]


def as_heroku_connect_writable(count: int) -> None:
    """Insert although the database is read-only by default."""
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
    insert(count)


@pytest.mark.fault("the database is read-only for a while (`default_transaction_read_only`)", outcome="delivered")
@pytest.mark.usefixtures("captured")
def test_worker_goes_on_when_database_was_read_only(launch: Any) -> None:
    worker = launch("--poll-interval", "600")
    wait_until(asleep)
    reset = "ALTER DATABASE {} RESET default_transaction_read_only"
    with administrator(reset) as run:
        run("ALTER DATABASE {} SET default_transaction_read_only = on")
        run(END_SESSIONS)
        as_heroku_connect_writable(2)
        wait_until(lambda: worker.says("Worker 0 waits for the server: cannot execute"))
        wait_until(lambda: [found["sqlstate"] for found in status("worker-trouble")] == ["25006"])
        assert any("[25006]" in reason for reason in worker.health()["reasons"])
        assert worker.metric('hc_signals_trouble{task="Worker 0"} 1.0')
        assert not any("lost" in line for line in worker.lines)
        run(reset)
        run(END_SESSIONS)
    wait_until(lambda: Seen.objects.count() == 2)
    wait_until(lambda: worker.says("Worker 0 works again after"))
    wait_until(worker.is_well)
    assert not status("worker-trouble")
    assert sum("Worker 0 waits for the server" in line for line in worker.lines) == 1, worker.lines
    assert worker.stop() == 0


@pytest.mark.fault("the worker's rights are revoked for a while", outcome="delivered")
@pytest.mark.usefixtures("captured")
def test_worker_goes_on_when_its_rights_were_revoked(launch: Any) -> None:
    role = own("hc_revoked")
    with administrator(f"DROP ROLE IF EXISTS {role}") as run:
        run(f"CREATE ROLE {role} LOGIN SUPERUSER")
        worker = launch(DATABASE_URL=url(user=role))
        wait_until(asleep)
        run(f"ALTER ROLE {role} NOSUPERUSER")
        insert(2)
        wait_until(lambda: worker.says("Worker 0 is refused by the database: permission denied"))
        assert worker.says("[42501]") and worker.says("Grant the database role its rights: see docs/security.md.")
        wait_until(lambda: [found["sqlstate"] for found in status("worker-trouble")] == ["42501"])
        assert not worker.says("no connection")
        run(f"ALTER ROLE {role} SUPERUSER")
        wait_until(lambda: Seen.objects.count() == 2)
        wait_until(worker.is_well)
        assert worker.stop() == 0


@pytest.mark.fault("the server is away when `hc_listen` starts", outcome="waited for")
@pytest.mark.usefixtures("captured")
def test_start_waits_for_a_server_that_is_away(launch: Any) -> None:
    insert(2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        worker = launch(DATABASE_URL=url(host="127.0.0.1", port=port))
        wait_until(lambda: worker.says("The start has no connection to the database"))
        assert worker.health()["helpers"][-1]["helper"] == "survey"
        assert any("Connection refused" in text for each in worker.health()["helpers"] for text in each["troubles"])
    proxy = Proxy(url(), port)
    try:
        wait_until(lambda: Seen.objects.count() == 2)
        wait_until(worker.is_well)
        assert worker.says("The start works again after")
    finally:
        proxy.close()


@pytest.mark.usefixtures("captured")
def test_start_waits_for_a_read_only_database(launch: Any) -> None:
    insert(1)
    reset = "ALTER DATABASE {} RESET default_transaction_read_only"
    with administrator(reset) as run:
        run("ALTER DATABASE {} SET default_transaction_read_only = on")
        worker = launch()
        wait_until(lambda: worker.says("The start waits for the server: The database 'default' is read-only"))
        process = start("hc_listen", "--no-wait")
        output, _ = process.communicate(timeout=60)
        assert "CommandError: The database 'default' is read-only" in output
        assert process.returncode == 1
        connection.close()
        assert status("server-read-only")
        run(reset)
        connection.close()
        wait_until(lambda: Seen.objects.count() == 1)


@pytest.mark.usefixtures("captured")
def test_start_without_rights_says_what_to_grant(launch: Any) -> None:
    """A plan's row limit takes rights away: then a restart must not become a crash loop."""
    role = own("hc_without")
    with administrator(f"DROP ROLE {role}") as run:
        run(f"CREATE ROLE {role} LOGIN")
        insert(1)
        worker = launch(DATABASE_URL=url(user=role))
        wait_until(lambda: worker.says("Worker 0 is refused by the database: permission denied"))
        assert worker.says("Grant the database role its rights: see docs/security.md.")
        assert not worker.is_well()
        run(f"ALTER ROLE {role} SUPERUSER")
        wait_until(lambda: Seen.objects.count() == 1)
        assert worker.stop() == 0


@pytest.mark.usefixtures("captured")
def test_sigterm_ends_a_start_that_waits(launch: Any) -> None:
    with administrator("ALTER DATABASE {} ALLOW_CONNECTIONS true") as run:
        connection.close()
        run("ALTER DATABASE {} ALLOW_CONNECTIONS false")
        worker = launch()
        wait_until(lambda: worker.says("not currently accepting connections"))
        assert worker.stop() == 0
    assert worker.says("0 changes delivered; stopped.")


@pytest.mark.fault("no connection is free but the worker's first one", outcome="delivered, by polling")
@pytest.mark.usefixtures("captured")
def test_worker_delivers_over_its_only_connection(launch: Any) -> None:
    role = own("hc_single")
    with administrator(f"DROP OWNED BY {role}", f"DROP ROLE {role}") as run:
        run(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1; GRANT {connection.settings_dict['USER']} TO {role}")
        worker = launch(DATABASE_URL=url(user=role))
        wait_until(lambda: worker.says("The doorbell has no connection to the database"))
        for number in range(1, 3):
            insert(1)
            wait_until(lambda n=number: Seen.objects.count() == n)  # type: ignore[misc]
        run(f"ALTER ROLE {role} CONNECTION LIMIT 10")
        wait_until(lambda: worker.says("The doorbell works again after"))
        wait_until(asleep)
        assert worker.stop() == 0


# In this process


class Refused(psycopg.errors.InsufficientPrivilege):
    pass


def wrapped(error: psycopg.Error) -> DatabaseError:
    found = DatabaseError(str(error))
    found.__cause__ = error
    return found


def test_lasting_error_is_logged_at_growing_intervals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1000.0]
    monkeypatch.setattr(trouble.time, "monotonic", lambda: now[0])
    one, logged_at = Trouble("The task"), []
    pauses = []
    for _ in range(5000):  # ten seconds each: more than ten hours
        pauses.append(one.happens(wrapped(psycopg.errors.ReadOnlySqlTransaction("no"))))
        if caplog.records:
            logged_at.append(round(now[0] - 1000))
            caplog.clear()
        now[0] += 10
    assert logged_at[:6] == [0, 60, 180, 420, 900, 1860]
    assert all(3500 < later - sooner < 3700 for sooner, later in pairwise(logged_at[7:]))
    assert pauses[0] < 0.3
    assert 4.9 < min(pauses[10:]) < max(pauses) <= 10
    one.happens(OperationalError("server closed the connection unexpectedly"))
    assert "The task has no connection to the database: server closed the connection unexpectedly" in caplog.text
    caplog.clear()
    one.ends()
    assert caplog.messages == ["The task works again after 50000 s and 5001 failed tries."]
    assert one.happens(OperationalError("again")) < 0.3
    assert one.errors == {"25006": 5000, "none": 2}


def test_other_error_is_not_logged_as_a_lost_connection(caplog: pytest.LogCaptureFixture) -> None:
    for error in (wrapped(psycopg.errors.ObjectInUse("in use")), wrapped(psycopg.errors.UndefinedFunction("f"))):
        Trouble("The task").happens(error)
    assert "connection" not in caplog.text
    assert "ObjectInUse [55006]" in caplog.text
    assert "Run `manage.py migrate hc_signals`" in caplog.text


def of_helper(name: str) -> Any:
    return next(helper for helper in liveness(None).helpers if helper["helper"] == name)


@pytest.mark.parametrize("raised", [ValueError, SystemExit])
def test_helper_goes_on_after_any_exception(raised: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    stopping, turns = threading.Event(), []

    def turn(helper: Any) -> float:
        turns.append(1)
        if len(turns) == 1:
            raise raised("Top Secret")
        stopping.set()
        return 0.0

    thread = threading.Thread(target=keep_turning, args=("gardener", turn, stopping))
    thread.start()
    thread.join(timeout=60)
    assert len(turns) == 2
    failed, recovered = caplog.messages
    assert re.match(rf"The gardener failed: {raised.__name__} at tests/test_trouble.py:\d+ turn < .*threads", failed)
    assert "The gardener works again after" in recovered
    assert "Secret" not in caplog.text


def test_failing_chore_does_not_stop_other_chores(
    captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chores = Chores("default", Conf(), threading.Event())
    done = threading.Event()
    monkeypatch.setattr(chores, "AFTER_FAILURE", 0.0)
    monkeypatch.setattr(chores._repairs, "run", lambda: {}["Top Secret"])
    chores.chores[1].do = lambda: done.set() or 60.0  # type: ignore[func-returns-value]
    chores.start()
    try:
        assert done.wait(timeout=60)
        wait_until(lambda: chores.chores[0].trouble._tries > 1)
        assert any("The watch over capture: KeyError at" in text for text in of_helper("chores")["troubles"])
    finally:
        chores.stopping.set()
        chores.join(timeout=60)
    assert "The watch over capture failed: KeyError at" in caplog.text
    assert "Secret" not in caplog.text


def test_watchdog_and_survey_go_on_after_any_exception(
    captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    dog = Watchdog("default")
    surveyor = Surveyor("default", Conf(), dog)
    monkeypatch.setattr(Surveyor, "SECONDS", 0.01)
    monkeypatch.setattr(Watchdog, "EVERY", 0.01)
    bad = threading.Event()
    bad.set()
    look, survey = Watchdog._turn, Surveyor._look

    def fails(self: Any, *args: Any) -> Any:
        if bad.is_set():
            raise RuntimeError
        return (look if isinstance(self, Watchdog) else survey)(self, *args)

    monkeypatch.setattr(Watchdog, "_turn", fails)
    monkeypatch.setattr(Surveyor, "_look", fails)
    monkeypatch.setattr(threads, "workers", lambda: [Pulse()])
    dog.start()
    surveyor.start()
    try:
        wait_until(lambda: bool(of_helper("survey")["troubles"] and of_helper("watchdog")["troubles"]))
        bad.clear()
        wait_until(lambda: surveyor.newest is not None)
        wait_until(lambda: not of_helper("survey")["troubles"] and not of_helper("watchdog")["troubles"])
    finally:
        surveyor.stop()
        dog.end()
        dog.join(timeout=60)
    assert "survey" not in [helper.name for helper in threads.helpers()], "a helper that has ended is not shown"


def test_survey_leaves_the_first_connection_to_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    surveyor = Surveyor("default", Conf(), Watchdog("default"))
    monkeypatch.setattr(Surveyor, "_look", lambda self: "looked")
    surveyor._turn(threads.Helper("survey", 60))
    assert surveyor.newest is None
    with threads.as_worker(0):
        surveyor._turn(threads.Helper("survey", 60))
    assert surveyor.newest == "looked"


def test_dead_or_stuck_helper_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_helpers", {})

    def dies() -> None:
        with suppress(SystemExit), threads.as_helper("ghost", 60):
            raise SystemExit

    thread = threading.Thread(target=dies)
    thread.start()
    thread.join()
    with threads.as_helper("sleeper", 60) as helper:
        helper.turn(30)
        assert liveness(None).reasons == ("ghost: its thread has died", "not listening yet", "no worker has begun")
        helper.due_at = time.monotonic() - 61
        assert "sleeper: stuck for 61 s" in liveness(None).reasons
    assert liveness(None).helpers[0]["turned_seconds_ago"] is not None


def test_options_of_the_project_stay_as_they_are(captured: HerokuConnect, connect: Any) -> None:
    ours = connections["default"]
    before = json.dumps(connections.settings["default"], default=str)
    seen: list[dict[str, Any]] = []

    def elsewhere() -> None:
        seen.append(dict(connections["default"].get_connection_params()))

    def on_account(using: str, **kwargs: Any) -> None:
        seen.append(dict(connections[using].get_connection_params()))
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    connect(signals.record_created, on_account, Account)
    captured.create(Account, 1)
    with running_crew():
        wait_until(lambda: len(seen) == 2)
        assert json.dumps(connections.settings["default"], default=str) == before
    assert seen[0]["keepalives_idle"] == 5, "the worker's own"
    assert "keepalives_idle" not in seen[1], "a thread of the receiver's"
    crew = Crew("default", Conf(), 1)
    crew.stopping.set()
    crew.run()  # in this thread
    assert ours.settings_dict is connections.settings["default"]
    assert json.dumps(connections.settings["default"], default=str) == before


LIMIT, LONGER = "1s", 1.3
"""A limit for all sessions, and more seconds than that."""


@pytest.fixture
def limited(captured: HerokuConnect) -> Iterator[None]:
    """Give every new session of the test's database small limits; the test's own sessions have none."""
    connection.ensure_connection()
    newer = set() if connection.pg_version >= 170000 else {"transaction_timeout"}
    names = [name for name in OWN_LIMITS if name.endswith("_timeout") and name not in newer]
    with administrator(*(f"ALTER DATABASE {{}} RESET {name}" for name in names)) as run:
        for name in names:
            run(f"ALTER DATABASE {{}} SET {name} = '{LIMIT}'")
        yield


def sessions(part: str) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()",
            [f"hc_listen default {part}".strip()],
        )
        return [pid for (pid,) in cursor.fetchall()]


@pytest.mark.fault("small limits for sessions and statements of role or database", outcome="delivered")
@pytest.mark.usefixtures("limited")
def test_own_sessions_outlast_the_limits_of_the_database(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow = f"SELECT pg_sleep({LONGER})"
    chores = Chores("default", Conf(), threading.Event())
    found: list[list[int]] = []
    answers: list[Any] = []

    def sleep() -> float:
        with connections["default"].cursor() as cursor:
            cursor.execute(slow)
        found.append(sessions("chores"))
        return LONGER if len(found) < 2 else 600.0

    chores.chores[:] = chores.chores[:1]
    chores.chores[0].do = sleep
    dog = Watchdog("default")
    surveyor = Surveyor("default", Conf(), dog)

    def look() -> Iterator[Finding]:
        time.sleep(LONGER)  # with the transaction open
        answers.append(slow_survey())
        yield from ()

    def closing(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        finally:
            connections["default"].close()

    asking = (
        lambda: answers.append(dog._ask(slow, {})),
        lambda: answers.append(surveyor._look()),
        lambda: judge._look("default", "slow", look),
    )

    def slow_survey(*args: Any) -> Any:
        with connections["default"].cursor() as cursor:
            cursor.execute(slow)
            return cursor.fetchone()

    monkeypatch.setattr("hc_signals.observability.surveyor.figures", slow_survey)
    threads = [threading.Thread(target=closing, args=(ask,)) for ask in asking]
    for thread in (chores, *threads):
        thread.start()
    try:
        wait_until(lambda: len(found) == 2)
        for thread in threads:
            thread.join(timeout=60)
    finally:
        chores.stopping.set()
        chores.join(timeout=60)
    assert found[0] == found[1] != [], "the chores keep their session"
    assert answers == 3 * [("",)]
    assert not [message for message in caplog.messages if "watch" in message]


@pytest.mark.usefixtures("limited")
def test_doorbell_outlasts_the_limits_of_the_database() -> None:
    stopping = threading.Event()
    with Doorbell("default", stopping.is_set, "default") as bell:
        thread = threading.Thread(target=lambda: bell.sleep(lambda: False, lambda: 600.0, Pulse()))
        thread.start()
        wait_until(asleep)
        first = sessions("bell")
        time.sleep(LONGER)
        assert sessions("bell") == first != []
        stopping.set()
        thread.join(timeout=60)
    assert bell.state().reconnects == 0


@pytest.mark.usefixtures("captured")
def test_worker_outlasts_an_idle_session_timeout() -> None:
    with administrator("ALTER DATABASE {} RESET idle_session_timeout") as run:
        connection.ensure_connection()
        run(f"ALTER DATABASE {{}} SET idle_session_timeout = '{LIMIT}'")
        with running_crew(POLL_INTERVAL=600.0):
            wait_until(asleep)
            first = sessions("")
            time.sleep(LONGER)
            assert sessions("") == first != []
