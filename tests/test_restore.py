"""A dump restored into another server: recognised, nothing lost, nothing twice, nothing stuck."""

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
from hc_signals.listening.worker import Worker
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, deliver
from tests.server import Server, clients, installation


@pytest.fixture
def other_server() -> Iterator[Server]:
    server = Server(installation())
    yield server
    server.stop()


def move_to(server: Server, path: Path) -> None:
    """Dump the test database into a new one of the other server, and use that from now on."""
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
def test_a_restored_database_goes_on(
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
    assert causes == ["restored"], "told once"


def test_a_restart_of_the_same_server_is_no_restore(captured: HerokuConnect, caplog: Any) -> None:
    captured.create(Account, 3)
    deliver()
    connection.close()
    as_heroku_connect("SELECT 1")
    assert deliver() == 0
    assert "restored" not in caplog.text
