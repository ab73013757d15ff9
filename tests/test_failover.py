"""A standby is promoted: noticed by its timeline, reported as a gap, and no replay id is used twice."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from example.crm.models import Account

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.log.restoring import moved
from hc_signals.testing import HerokuConnect
from hc_signals.worker.loop import Worker
from tests.conftest import deliver
from tests.server import Server, Standby, installation

ROOT = Path(__file__).parent.parent


@pytest.mark.fault(
    "standby promoted, with and without the last commits, while the worker runs, is down, or keeps its sessions on the "
    "old primary",
    outcome="gap for every model; what is there is delivered once and in order; replay ids go on rising",
)
def test_promotion_is_a_gap_and_reuses_no_replay_id(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.failover", "--only", "2", "3", "5", "--json", file],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    without, with_loss, with_old = json.loads(file.read_text()).values()
    right = {"lost": 0, "twice": 0, "inverted": 0, "reused": 0, "passed_over": 0, "gaps": 1}
    assert without | right == without
    assert with_loss | right == with_loss
    assert with_old | right == with_old
    assert without["phantoms"] == 0
    assert with_loss["phantoms"] == 80


@pytest.fixture
def primary(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with capture, as the default database of the test."""
    monkeypatch.setattr(signals.record_changed, "receivers", [])  # the example's receiver needs a table of its own
    own = Server(installation())
    before = dict(connection.settings_dict)
    use(own)
    try:
        HerokuConnect().create_tables()
        call_command("migrate", "hc_signals", verbosity=0)
        call_command("hc_triggers", "install", stdout=StringIO())
        yield own
    finally:
        connection.close()
        connection.settings_dict |= before
        own.stop()


@pytest.fixture
def standby(primary: Server) -> Iterator[Standby]:
    own = Standby(primary)
    yield own
    connection.close()
    own.stop()


def use(server: Server) -> None:
    connection.close()
    connection.settings_dict |= {"HOST": str(server.directory), "PORT": "", "NAME": "postgres", "USER": "postgres"}


def test_session_that_outlives_a_promotion_takes_over(primary: Server, standby: Standby, connect: Any) -> None:
    """A worker that waits for its server, or is behind a pooler, makes no new connection to compare."""
    gaps: list[Any] = []
    connect(signals.gap_detected, lambda event, **kwargs: gaps.append(event), Account)
    heroku = HerokuConnect()
    heroku.create(Account, 3)
    assert deliver(SHARDS=2) == 3
    done_at = datetime.now(UTC)
    heroku.create(Account, 2)
    ((epoch,),) = primary.execute("SELECT epoch FROM hc_signals_control")
    standby.catch_up()
    standby.cut_off()
    heroku.create(Account, 2)
    use(standby)
    with connection.cursor() as cursor:  # this works on the server in recovery
        cursor.execute("SELECT pg_is_in_recovery()")
        assert cursor.fetchone()[0]
    assert moved("default") is None
    worker = Worker("default", Conf(SHARDS=2))
    worker._prepared = connection.connection  # it compared the server in recovery
    worker._took_layout = True
    primary.halt()
    standby.promote()
    assert moved("default") == "failed_over"
    with pytest.raises(CommandError, match="promoted or recovered to a point in time"):
        call_command("hc_consumers", "list")
    heroku.create(Account, 1)
    for _ in range(3):  # notice it, take over, deliver
        worker._deliver_round()
    assert worker.delivered == 3
    assert [gap.cause for gap in gaps] == ["failed_over"]
    assert gaps[0].since < done_at < gaps[0].until
    assert gaps[0].replay_id.partition("-")[0] > epoch
    assert moved("default") is None


@pytest.fixture
def two_primaries(primary: Server, standby: Standby) -> Worker:
    """A worker on the old primary; the address leads new connections to the promoted standby. Both have new changes."""
    HerokuConnect().create(Account, 1)
    assert deliver() == 1
    standby.catch_up()
    standby.cut_off()
    standby.promote()
    for server, name in ((primary, "old"), (standby, "new")):
        with psycopg.connect(server.url) as writer:
            writer.execute("SET LOCAL xmlbinary = 'hex'")
            writer.execute(INSERT, [name])
    worker = Worker("default", Conf(BATCH_SIZE=4))
    worker.prepare()
    connection.settings_dict |= {"HOST": str(standby.directory)}
    return worker


INSERT = (
    "INSERT INTO salesforce.account (sfid, name) SELECT left(md5(g::text), 18), %s || g FROM generate_series(1, 20) g"
)


@pytest.mark.fault(
    "the address leads a new connection of `hc_listen` to another server (two primaries, several hosts)",
    outcome="the pages of a server are read from that server",
)
def test_no_page_is_read_ahead_from_another_server(two_primaries: Worker, connect: Any) -> None:
    names: list[str] = []
    connect(signals.record_created, lambda instance, **kwargs: names.append(instance.name), Account)
    two_primaries.deliver_once()
    assert names == [f"old{number}" for number in range(1, 21)]


def test_claim_on_another_server_is_refused(two_primaries: Worker) -> None:
    """There it would keep no other worker from the shard. The worker reconnects, and then works on the new server."""
    two_primaries.conf = two_primaries.shards[0].conf = Conf(ATOMIC=False)
    with pytest.raises(OperationalError, match="another server"):
        two_primaries.deliver_once()
    connection.close()
    assert deliver(ATOMIC=False) == 20
