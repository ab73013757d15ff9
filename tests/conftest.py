"""Fixtures: a simulated Heroku Connect on the test database, with or without capture; receivers for one test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection, transaction
from django.dispatch import Signal
from pytest_postgresql import factories

from hc_signals import orphans, triggers
from hc_signals.changelog import ChangeLog
from hc_signals.conf import Conf
from hc_signals.listeners import SIGNALS
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from hc_signals.worker import Worker
from tests import faults


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-faults", action="store_true", help="write the table of faults, if all tests pass")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if session.config.option.write_faults and exitstatus == pytest.ExitCode.OK:
        faults.write()


def pytest_report_header() -> str:
    """Name the server: what is tested is tested on it."""
    _server = settings.DATABASES["default"]
    with psycopg.connect(
        host=_server["HOST"] or None,
        port=int(_server["PORT"] or 5432),
        user=_server["USER"] or None,
        password=_server["PASSWORD"] or None,
        dbname="postgres",
    ) as server:
        return f"server: PostgreSQL {server.execute('SHOW server_version').fetchone()[0]}"  # type: ignore[index]


_server = settings.DATABASES["default"]
server = factories.postgresql_noproc(
    host=_server["HOST"] or "127.0.0.1",
    port=int(_server["PORT"] or 5432),
    user=_server["USER"],
    password=_server["PASSWORD"] or None,
    dbname="hc_signals_bare",
)
bare_database = factories.postgresql("server")
"""A psycopg connection to a new, empty database on the same server."""


def as_heroku_connect(sql: str, params: list[Any] | None = None) -> None:
    """Run one statement as Heroku Connect does: its own transaction, under xmlbinary = hex."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL xmlbinary = 'hex'")
        cursor.execute(sql, params)


def as_the_app(sql: str, params: list[Any] | None = None) -> None:
    """Run one statement as the app does, past the ORM: raw SQL, bulk, another language."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, params)


def deliver(**conf: Any) -> int:
    """Deliver all that is committed, in this process; return how many changes."""
    worker = Worker("default", Conf(**conf))
    worker.deliver_once()
    return worker.delivered


@contextmanager
def another(sql: str = "") -> Iterator[Any]:
    """A second connection with an open transaction; rolled back at the end."""
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
    return ChangeLog("default", "default").standing().lost


@pytest.fixture
def heroku(transactional_db: None) -> HerokuConnect:
    """Fresh connected tables with Heroku Connect's own triggers, and an empty change log."""
    simulator = HerokuConnect()
    simulator.drop_schemas()
    orphans.remove([], "default")  # functions of tables that are gone
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE public.hc_signals_change, public.hc_signals_position, public.hc_signals_delivery")
        cursor.execute("TRUNCATE public.hc_signals_cleared, public.hc_signals_reload, public.hc_signals_refill")
        cursor.execute("SELECT setval('public.hc_signals_lost_seq', 1, false)")
        cursor.execute("UPDATE public.hc_signals_control SET paused_at = NULL, gap_since = NULL")
        cursor.execute("UPDATE public.hc_signals_control SET max_bucket_bytes = NULL")
        cursor.execute("UPDATE public.hc_signals_control SET emptied_id = 0, emptied_at = NULL")
    simulator.create_tables()
    return simulator


@pytest.fixture
def captured(heroku: HerokuConnect) -> HerokuConnect:
    """The same, with capture triggers on every table."""
    for model in connected_models():
        assert triggers.install(model, "default").state == "installed"
    return heroku


@pytest.fixture
def connect() -> Iterator[Callable[..., None]]:
    """Connect receivers for the length of one test: ``connect(signal, receiver, sender)``."""
    connected: list[tuple[Signal, Any, Any]] = []

    def add(signal: Signal, receiver: Any, sender: Any = None) -> None:
        signal.connect(receiver, sender=sender, weak=False)
        connected.append((signal, receiver, sender))

    yield add
    for signal, receiver, sender in connected:
        signal.disconnect(receiver, sender=sender)


@pytest.fixture
def disconnected() -> Iterator[None]:
    """What is connected in the test, however, is not connected after it."""
    signals = list(SIGNALS.values())
    before = [list(signal.receivers) for signal in signals]
    yield
    for signal, receivers in zip(signals, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()
