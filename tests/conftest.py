"""Fixtures: a simulated Heroku Connect on the test database, with or without capture; receivers for one test."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection, transaction
from django.dispatch import Signal
from pytest_postgresql import factories

from hc_signals.capture import orphans
from hc_signals.capture.install import install_capture
from hc_signals.conf import Conf
from hc_signals.delivery import failure_log
from hc_signals.delivery.routing import SIGNALS
from hc_signals.tables import connected_models, table_parts
from hc_signals.testing import HerokuConnect, databases
from hc_signals.worker.crew import Crew
from hc_signals.worker.loop import Worker
from tests import faults, slow
from tests.server import of_this_run, own, start_for_this_run

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-faults", action="store_true", help="write the table of faults, if all tests pass")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow.mark(items)


def pytest_configure() -> None:
    """Let a Ctrl-C raise KeyboardInterrupt, as in a terminal. A process in a shell's background would ignore it.

    And let warnings be errors in the processes that tests start, too.
    """
    import signal

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["PYTHONWARNINGS"] = "error"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: Sequence[Any]) -> None:
    """Give each of xdist's workers its own server; the first one inherits that of this process."""
    if of_this_run:
        for worker in specs[1:]:
            worker.env["DATABASE_URL"] = start_for_this_run().url


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    is_worker = hasattr(session.config, "workerinput")  # an xdist worker knows the results of its own tests only
    if session.config.option.write_faults and exitstatus == pytest.ExitCode.OK and not is_worker:
        faults.write()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Replace lone surrogates in captured output and in failures, which xdist cannot send: its worker would end.

    Receivers raise errors with them. Ids of tests have none: pytest escapes them.
    """
    report = yield
    report.sections = [(name, encodable(text)) for name, text in report.sections]
    if (failure := report.longreprtext) != encodable(failure):
        report.longrepr = encodable(failure)
    return report


def encodable(text: str) -> str:
    """Return the text with its lone surrogates escaped."""
    return text.encode(errors="backslashreplace").decode()


def pytest_report_header() -> str:
    """Name the server that the tests run on, and say whether it can compile queries (JIT)."""
    _server = settings.DATABASES["default"]
    with psycopg.connect(
        host=_server["HOST"] or None,
        port=int(_server["PORT"] or 5432),
        user=_server["USER"] or None,
        password=_server["PASSWORD"] or None,
        dbname="postgres",
    ) as server:
        server.execute("SET jit = on")  # ask what the server has, not how it is set
        version, has_jit = server.execute("SELECT current_setting('server_version'), pg_jit_available()").fetchone()  # type: ignore[misc]
        return f"server: PostgreSQL {version}, {'with' if has_jit else 'without'} JIT"


_server = settings.DATABASES["default"]
BARE = own("hc_signals_bare")
"""Name of the database of ``bare_database``."""
server = factories.postgresql_noproc(
    host=_server["HOST"] or "127.0.0.1",
    port=int(_server["PORT"] or 5432),
    user=_server["USER"],
    password=_server["PASSWORD"] or None,
    dbname="hc_signals_bare",
)
bare_database = factories.postgresql("server", dbname=BARE)
"""A psycopg connection to a new, empty database on the same server."""


IS_OURS = "pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
"""Condition on pg_locks and pg_stat_activity: other xdist workers may have other databases on the server."""


def as_heroku_connect(sql: str, params: list[Any] | None = None) -> None:
    """Run one statement as Heroku Connect does: its own transaction, under xmlbinary = hex."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL xmlbinary = 'hex'")
        cursor.execute(sql, params)


def as_the_app(sql: str, params: list[Any] | None = None) -> None:
    """Run one statement as the app does outside the ORM: raw SQL, bulk, another language."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, params)


def in_utc(when: datetime) -> datetime:
    """Return a time as Heroku Connect stores it: in UTC, without a time zone."""
    return when.astimezone(UTC).replace(tzinfo=None)


def deliver(**conf: Any) -> int:
    """Deliver all committed changes, in this process; return their number."""
    worker = Worker("default", Conf(**conf))
    worker.deliver_once()
    return worker.delivered


@contextmanager
def running_crew(**conf: Any) -> Iterator[None]:
    """Deliver in a thread during the block."""
    crew = Crew("default", Conf(**conf), 1)
    thread = threading.Thread(target=crew.run)
    thread.start()
    try:
        yield
    finally:
        crew.stopping.set()
        thread.join(timeout=60)
    assert not thread.is_alive(), "the crew does not stop"


@contextmanager
def another(sql: str = "") -> Iterator[Any]:
    """Open a second connection with a transaction, which is rolled back at the end."""
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            if sql:
                cursor.execute(sql)
            yield cursor
    finally:
        other.close()


def lost() -> int:
    """Return how many statements were not captured."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT public.hc_signals_lost(0)")
        return int(cursor.fetchone()[0])


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the sdist, and the wheel built from it."""
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


# Everything that a test can change about the connected tables, our tables, triggers and functions.
_SHAPE = r"""
SELECT md5(string_agg(line, E'\n' ORDER BY line)) FROM (
    SELECT concat_ws(' ', 'column', c.oid::regclass, c.relkind, c.relowner, c.relacl, c.reloptions, a.attname, a.attnum,
                     a.atttypid, a.atttypmod, a.attnotnull, a.attacl, pg_get_expr(d.adbin, d.adrelid)) AS line
    FROM ours c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    UNION ALL SELECT concat_ws(' ', 'index', pg_get_indexdef(c.oid)) FROM ours c WHERE c.relkind = 'i'
    UNION ALL SELECT concat_ws(' ', 'constraint', x.conrelid::regclass, pg_get_constraintdef(x.oid))
    FROM pg_constraint x JOIN ours c ON c.oid IN (x.conrelid, x.confrelid)
    UNION ALL SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid), t.tgenabled)
    FROM pg_trigger t JOIN ours c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
    UNION ALL SELECT concat_ws(' ', 'function', p.oid::regprocedure, p.prosrc, p.proconfig, p.prosecdef, p.proowner,
                               p.proacl)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY (%(schemas)s)
    UNION ALL SELECT concat_ws(' ', 'schema', nspname, nspowner, nspacl) FROM pg_namespace
    WHERE nspname = ANY (%(schemas)s)
) shape
"""
_OURS = """
WITH ours AS (
    SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY (%(schemas)s) AND (n.nspname <> 'public' OR c.relname LIKE 'hc\\_signals\\_%%')
)
"""
_shapes: dict[bool, str] = {}
"""Shape of new tables, without and with capture: tables of this shape only need to be emptied."""


def shape() -> str:
    schemas = sorted({table_parts(model)[0] for model in connected_models()} | {"public"})
    with connection.cursor() as cursor:
        cursor.execute(_OURS + _SHAPE, {"schemas": schemas})
        return str(cursor.fetchone()[0])


def is_simulated() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT bool_and(org_id = 'simulated') FROM salesforce._hcmeta")
        return bool(cursor.fetchone()[0])


def fresh_tables(is_captured: bool) -> HerokuConnect:
    """Return connected tables as if just created: emptied if their shape is unchanged, else recreated."""
    simulator = HerokuConnect()
    if _shapes.get(is_captured) != shape() or not is_simulated():
        simulator.drop_schemas()
        orphans.remove([], "default")  # functions of dropped tables
        simulator.create_tables()
        for model in connected_models() if is_captured else []:
            assert install_capture(model, "default").state == "installed"
        _shapes[is_captured] = shape()
    databases.empty()
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval('public.hc_signals_lost_seq', 1, false)")
        cursor.execute(
            "UPDATE public.hc_signals_control SET paused_at = NULL, gap_since = NULL, max_bucket_bytes = NULL, "
            "emptied_id = 0, emptied_at = NULL"
        )
    return simulator


_AT_WORK = """
SELECT pid, application_name, state, query FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'
"""


def wait_for_sessions(seconds: float = 60) -> None:
    """Wait until no other session of the database has a statement or a transaction, also those of killed processes."""
    deadline = time.monotonic() + seconds
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_AT_WORK)
            found = cursor.fetchall()
        if not found:
            return
        assert time.monotonic() < deadline, f"sessions that the test has left: {found}"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def every_failure_is_news() -> None:
    """Forget which failures were logged: within a minute the same one would only be counted."""
    failure_log.log_counted()


@pytest.fixture
def heroku(transactional_db: None) -> Iterator[HerokuConnect]:
    """Return new connected tables with Heroku Connect's own triggers, and an empty change log."""
    yield fresh_tables(is_captured=False)
    wait_for_sessions()
    databases.empty_log()


@pytest.fixture
def captured(transactional_db: None) -> Iterator[HerokuConnect]:
    """Return the same, with capture triggers on every table."""
    yield fresh_tables(is_captured=True)
    wait_for_sessions()
    databases.empty_log()


@pytest.fixture
def connect() -> Iterator[Callable[..., None]]:
    """Connect receivers during one test: ``connect(signal, receiver, sender)``."""
    connected: list[tuple[Signal, Any, Any]] = []

    def add(signal: Signal, receiver: Any, sender: Any = None) -> None:
        signal.connect(receiver, sender=sender, weak=False)
        connected.append((signal, receiver, sender))

    yield add
    for signal, receiver, sender in connected:
        signal.disconnect(receiver, sender=sender)


@pytest.fixture
def disconnected() -> Iterator[None]:
    """Disconnect every receiver that the test connects."""
    signals = list(SIGNALS.values())
    before = [list(signal.receivers) for signal in signals]
    yield
    for signal, receivers in zip(signals, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


def server_url() -> str:
    """Return where the tests' server is, as psycopg takes it: its database ``postgres``."""
    parts = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD"}
    given = {name: settings.DATABASES["default"].get(key) for name, key in parts.items()}
    return " ".join(f"{name}={value}" for name, value in given.items() if value) + " dbname=postgres"
