"""The disk of the log is full while Heroku Connect writes or a worker delivers; later it has room again."""

from collections.abc import Iterator
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from example.crm.models import Account, Contact

from hc_signals import signals
from hc_signals.testing import HerokuConnect
from tests.conftest import deliver, lost, running_crew
from tests.server import Server, installation
from tests.small_disk import SmallDisk, can_have_small_disk, small_disk
from tests.test_worker_process import wait_until


@pytest.fixture
def disk(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    """A default database whose log, and every other table of ours, is on a small disk."""
    if not can_have_small_disk():
        pytest.skip("this machine allows no small disk: it has no unshare, or allows no user namespaces")
    monkeypatch.setattr(signals.record_changed, "receivers", [])  # the example's receiver needs a table
    server = Server(installation(), start_with=small_disk())
    before = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict |= {"HOST": str(server.directory), "PORT": "", "NAME": "postgres", "USER": "postgres"}
    try:
        HerokuConnect().create_tables()
        call_command("migrate", "hc_signals", verbosity=0)
        call_command("hc_triggers", "install", stdout=StringIO())
        small = SmallDisk(server)
        small.put("^hc_signals_")
        yield small
    finally:
        connection.close()
        connection.settings_dict |= before
        server.stop()


@pytest.mark.fault(
    "disk full while Heroku Connect writes", outcome="gap for the changes that did not fit; then captured again"
)
def test_writers_continue_while_the_disk_is_full(disk: SmallDisk, connect: Any) -> None:
    received: list[str] = []
    for signal in (signals.record_created, signals.gap_detected):
        connect(signal, lambda event, **kwargs: received.append(event.cause or event.change_type), Account)
    heroku = HerokuConnect()
    heroku.create(Account, 1)
    assert deliver() == 1
    disk.fill()
    written = 0
    while not lost():  # existing pages have some room
        heroku.create(Account, 20)
        written += 20
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM salesforce.account")
        assert cursor.fetchone()[0] == 1 + written
    disk.make_room()
    heroku.create(Account, 1)
    deliver()
    assert received.count("capture_failed") == 1
    assert received.count("CREATE") == 1 + (written - 20) + 1, "one statement was lost, and is the gap"


@pytest.mark.fault("disk full while a worker delivers", outcome="delivered once there is room; effects once")
def test_worker_waits_for_room_and_delivers_once(disk: SmallDisk, connect: Any) -> None:
    """The position of the page does not fit. The writes of its receivers are rolled back with it."""
    calls: list[str] = []

    def record(event: Any, **kwargs: Any) -> None:
        calls.append(event.record_id)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO effects VALUES (%s)", [event.record_id])

    connect(signals.record_created, record, Contact)
    disk.server.execute("CREATE TABLE effects (record text)")
    heroku = HerokuConnect()
    ids = heroku.create(Contact, 1)
    with running_crew():  # the rows that a worker stores when it starts have their room from now on
        wait_until(lambda: calls == ids)
    ids += heroku.create(Contact, 2)
    disk.fill()
    with pytest.raises(psycopg.errors.DiskFull):  # existing pages have room for some positions
        while True:
            disk.server.execute(
                "INSERT INTO hc_signals_position (consumer, shard, shards, seen, floor_id, floor_xid, lost) "
                "VALUES ('default', 7, 1, '1:1:', 0, '1', 0)"
            )
    with running_crew():
        wait_until(lambda: len(calls) > len(ids))
        disk.make_room()
        wait_until(lambda: disk.server.execute("SELECT count(*) FROM effects") == [(3,)])
        heroku.create(Contact, 1)
        wait_until(lambda: disk.server.execute("SELECT count(*) FROM effects") == [(4,)])
    assert disk.server.execute("SELECT count(DISTINCT record) FROM effects") == [(4,)]
