"""A dump restored into another server: no change is lost, repeated or stuck."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection, connections
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.log.restoring import moved
from hc_signals.log.schema import BUCKETS
from hc_signals.testing import HerokuConnect
from hc_signals.worker.loop import Worker
from tests.conftest import as_heroku_connect, deliver
from tests.server import Server, clients, installation, major_version


@pytest.fixture
def other_server() -> Iterator[Server]:
    server = Server(installation())
    yield server
    server.stop()


def move_to(server: Server, path: Path) -> None:
    """Restore a dump of the test database on the other server, and use that from now on."""
    here = connection.settings_dict
    bin_path = clients()
    options = ["-h", here["HOST"], "-p", str(here["PORT"] or 5432), "-U", here["USER"], here["NAME"]]
    dump = path / "dump"
    subprocess.run([bin_path / "pg_dump", "-Fc", "-f", dump, *options], check=True)
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE restored")
    host = server.url.split("host=")[1]
    restore = ["-h", host, "-U", "postgres", "-d", "restored", dump]
    subprocess.run([bin_path / "pg_restore", *restore], check=True)
    connection.close()
    connections["default"].settings_dict |= {"HOST": host, "NAME": "restored", "USER": "postgres", "PORT": ""}


@pytest.fixture
def back(captured: HerokuConnect, other_server: Server) -> Iterator[None]:
    """Return to the test database afterwards, before it is cleaned up and the other server stops."""
    before = dict(connection.settings_dict)
    yield
    connection.close()
    connections["default"].settings_dict |= before


@pytest.mark.usefixtures("back")
@pytest.mark.parametrize("shards", [1, 3])
def test_restored_database_delivers_what_was_left(
    captured: HerokuConnect, other_server: Server, tmp_path: Path, connect: Any, caplog: Any, shards: int
) -> None:
    causes: list[str] = []
    connect(signals.gap_detected, lambda event, **kwargs: causes.append(event.cause), Account)
    for number in range(30):  # transaction ids run ahead of those of the other server
        captured.insert(Account, name=f"delivered {number}")
    assert deliver(SHARDS=shards) == 30
    for number in range(10):
        captured.insert(Account, name=f"waiting {number}")
    worker = Worker("default", Conf(SHARDS=shards, BATCH_SIZE=2))
    worker.prepare()
    for shard in worker.shards:
        shard.deliver_page()  # half-way through a window
    half_way = worker.delivered
    assert 0 < half_way < 10
    move_to(other_server, tmp_path)
    captured.insert(Account, name="made before any worker was there")
    with caplog.at_level(logging.WARNING):
        assert deliver(SHARDS=shards) == 10 - half_way + 1
    assert "restored from another server" in caplog.text
    assert causes == ["restored"]
    captured.insert(Account, name="afterwards")
    assert deliver(SHARDS=shards) == 1
    assert Seen.objects.count() == Seen.objects.values("event_id").distinct().count() == 42
    assert deliver(SHARDS=shards) == 0
    assert causes == ["restored"], "reported once"


PUBLICATIONS = {
    # The log of an older dump has no replica identity.
    "all tables": ("DEFAULT", "CREATE PUBLICATION everything FOR ALL TABLES"),
    # The columns do not cover the replica identity.
    "columns": ("FULL", "CREATE PUBLICATION certain FOR TABLE {partitions}"),
}


@pytest.mark.usefixtures("back")
@pytest.mark.fault("restored under a publication that refuses to update the log", outcome="delivered; gap")
@pytest.mark.parametrize("kind", list(PUBLICATIONS))
def test_restored_log_is_taken_over_under_a_publication(
    captured: HerokuConnect, other_server: Server, tmp_path: Path, connect: Any, kind: str
) -> None:
    if kind == "columns" and major_version(other_server.programs) < 15:
        pytest.skip("before PostgreSQL 15 a publication cannot name columns")
    causes: list[str] = []
    connect(signals.gap_detected, lambda event, **kwargs: causes.append(event.cause), Account)
    captured.create(Account, 3)
    assert deliver() == 3
    captured.create(Account, 2)
    move_to(other_server, tmp_path)
    identity, publication = PUBLICATIONS[kind]
    with connection.cursor() as cursor:
        for bucket in range(BUCKETS):
            cursor.execute(f"ALTER TABLE public.hc_signals_change_{bucket} REPLICA IDENTITY {identity}")
        partitions = ", ".join(f"public.hc_signals_change_{bucket} (id)" for bucket in range(BUCKETS))
        cursor.execute(publication.format(partitions=partitions))
    captured.create(Account, 1)
    assert deliver() == 3
    assert causes == ["restored"]
    captured.create(Account, 1)
    assert deliver() == 1
    assert Seen.objects.count() == Seen.objects.values("event_id").distinct().count() == 7


@pytest.mark.usefixtures("back")
@pytest.mark.fault(
    "an older dump restored into its own database", outcome="gap; what is in it is delivered; replay ids go on rising"
)
def test_older_dump_in_the_same_database_is_detected(
    captured: HerokuConnect, other_server: Server, tmp_path: Path, connect: Any
) -> None:
    events: list[Any] = []
    for signal in (signals.gap_detected, signals.record_created):
        connect(signal, lambda event, **kwargs: events.append(event), Account)
    move_to(other_server, tmp_path)
    deliver()
    captured.create(Account, 2)
    assert deliver() == 2
    captured.create(Account, 1)
    dump = tmp_path / "of the same database"
    here = ["-h", str(other_server.directory), "-U", "postgres"]
    subprocess.run([clients() / "pg_dump", "-Fc", "-f", dump, *here, "restored"], check=True)
    assert deliver() == 1
    captured.create(Account, 2)  # after the dump: delivered, then gone
    assert deliver() == 2
    before = [event.replay_id for event in events]
    connection.close()
    subprocess.run([clients() / "pg_restore", "--clean", *here, "-d", "restored", dump], check=True)
    assert moved("default") == "restored"
    captured.create(Account, 3)
    assert deliver() == 4
    after = events[len(before) :]
    assert [event.cause or event.change_type for event in after] == ["restored", *["CREATE"] * 4]
    assert max(before) < min(event.replay_id for event in after)


def test_restart_of_the_server_is_no_restore(captured: HerokuConnect, caplog: Any) -> None:
    captured.create(Account, 3)
    deliver()
    connection.close()
    as_heroku_connect("SELECT 1")
    assert deliver() == 0
    assert "restored" not in caplog.text
