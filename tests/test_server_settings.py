"""Servers with other settings than the suite's: a short NOTIFY queue, two-phase commit."""

import contextlib
from collections.abc import Iterator
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.db.utils import NotSupportedError, OperationalError
from example.crm.models import Account

from hc_signals import signals
from hc_signals.postgres.locks import BELL
from hc_signals.testing import HerokuConnect
from tests.conftest import another, as_heroku_connect, deliver
from tests.server import Server, installation, major_version

INSERT = "INSERT INTO salesforce.account (sfid, name) VALUES (%s, 'n')"


@pytest.fixture
def server(transactional_db: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with the given settings, with capture, as the default database of the test."""
    if "max_notify" in str(request.param) and major_version(installation()) < 17:
        pytest.skip("the length of the queue can be set from PostgreSQL 17 on; before, it is 8 GB")
    monkeypatch.setattr(signals.record_changed, "receivers", [])  # the example's receiver needs a table of its own
    own = Server(installation(), *request.param)
    before = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict |= {"HOST": str(own.directory), "PORT": "", "NAME": "postgres", "USER": "postgres"}
    try:
        HerokuConnect().create_tables()
        call_command("migrate", "hc_signals", verbosity=0)
        call_command("hc_triggers", "install", stdout=StringIO())
        yield own
    finally:
        connection.close()
        connection.settings_dict |= before
        own.stop()


@contextlib.contextmanager
def sleeping_worker(url: str) -> Iterator[None]:
    """Hold the bell's lock as a sleeping worker does: every writer notifies."""
    with psycopg.connect(url, autocommit=True) as worker:
        worker.execute("SELECT pg_advisory_lock(%s, %s)", BELL)
        yield


@pytest.mark.fault(
    "NOTIFY queue filled up by a session that LISTENs in an open transaction",
    outcome="delivered at the next poll, without a notification",
)
@pytest.mark.parametrize("server", [["max_notify_queue_pages=64"]], indirect=True)
def test_full_notify_queue_fails_no_commit(server: Server) -> None:
    with psycopg.connect(server.url, autocommit=True) as other, sleeping_worker(server.url):
        other.execute("LISTEN anything")
        other.execute("BEGIN; SELECT 1")
        with psycopg.connect(server.url, autocommit=True) as loud, pytest.raises(psycopg.OperationalError):
            for number in range(100):
                loud.execute("SELECT pg_notify('anything', %s)", [f"{number:07000}"])
        with connection.cursor() as cursor, pytest.raises(OperationalError, match="queue"):
            cursor.execute("NOTIFY hc_signals")
        as_heroku_connect(INSERT, ["A1"])
    assert deliver() == 1


@pytest.mark.parametrize("server", [[]], indirect=True)
def test_writer_does_not_notify_when_queue_is_half_full(server: Server) -> None:
    """The test above relies on this; for servers whose queue is too long to be filled here."""
    with psycopg.connect(server.url, autocommit=True) as other, sleeping_worker(server.url):
        other.execute("LISTEN hc_signals")
        as_heroku_connect(INSERT, ["A1"])
        assert len(list(other.notifies(timeout=60, stop_after=1))) == 1
        connection.close()
        other.execute(
            "CREATE OR REPLACE FUNCTION pg_catalog.pg_notification_queue_usage() RETURNS float8 LANGUAGE sql "
            "AS 'SELECT 0.5::float8'"
        )
        as_heroku_connect(INSERT, ["A2"])
        other.execute("NOTIFY hc_signals, 'the end'")
        assert [each.payload for each in other.notifies(timeout=60, stop_after=1)] == ["the end"]
    assert deliver() == 2


@pytest.mark.fault("two-phase commit by Heroku Connect's role", outcome="delivered, unless it had to notify")
@pytest.mark.parametrize("server", [["max_prepared_transactions=5"]], indirect=True)
def test_two_phase_commit(server: Server, connect: Any) -> None:
    """PostgreSQL refuses to prepare a transaction that has notified; Heroku Connect is not known to prepare any."""
    with another("SET LOCAL xmlbinary = 'hex'") as cursor:
        cursor.execute(INSERT, ["A1"])
        cursor.execute("PREPARE TRANSACTION 'one'")
    assert deliver() == 0
    with connection.cursor() as cursor:
        cursor.execute("COMMIT PREPARED 'one'")
    assert deliver() == 1
    with sleeping_worker(server.url), another("SET LOCAL xmlbinary = 'hex'") as cursor:
        cursor.execute(INSERT, ["A2"])
        with pytest.raises(NotSupportedError, match="NOTIFY"):
            cursor.execute("PREPARE TRANSACTION 'two'")
    assert Account.objects.count() == 1
