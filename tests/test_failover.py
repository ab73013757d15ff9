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

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
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
    "standby promoted, with and without the last commits, while the worker runs or is down",
    outcome="gap for every model; what is there is delivered once and in order; replay ids go on rising",
)
def test_promotion_is_a_gap_and_reuses_no_replay_id(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.failover", "--only", "2", "3", "--json", file],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    without, with_loss = json.loads(file.read_text()).values()
    right = {"lost": 0, "twice": 0, "inverted": 0, "reused": 0, "passed_over": 0, "gaps": 1}
    assert without | right == without
    assert with_loss | right == with_loss
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
