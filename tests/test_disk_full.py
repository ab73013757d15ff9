"""The disk of the log is full while Heroku Connect writes or a worker delivers; later it has room again."""

import os
import shutil
import subprocess
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
from tests.test_worker_process import wait_until

UNPRIVILEGED_UID = 65534
"""User id of the servers that root starts: see tests.server."""

_OURS = """
SELECT c.oid::regclass::text, c.relkind = 'i' FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relname LIKE 'hc\\_signals\\_%' AND c.relkind IN ('r', 'i')
"""


def small_disk() -> list[str]:
    """Return the command that gives a server a disk of 8 MB, below "small"; other processes do not see it.

    It needs no rights: the server's processes get their own user namespace, and in it their user name.
    """
    user = UNPRIVILEGED_UID if os.geteuid() == 0 else os.geteuid()
    script = (
        "mkdir -p small && mount -t tmpfs -o size=8m,mode=700 tmpfs small && mkdir small/space && "
        f'exec unshare --user --map-user={user} --map-group={user} "$@"'
    )
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def can_have_small_disk() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class SmallDisk:
    """A small disk that a test can fill and empty."""

    def __init__(self, server: Server) -> None:
        self.server, self.file = server, server.directory / "small" / "filler"

    def fill(self) -> None:
        with pytest.raises(psycopg.errors.DiskFull):
            self.server.execute(f"COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO '{self.file}'")

    def make_room(self) -> None:
        self.server.execute(f"COPY (SELECT 1) TO PROGRAM 'rm {self.file}'")


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
        server.execute(f"CREATE TABLESPACE small LOCATION '{server.directory}/small/space'")
        for name, is_index in server.execute(_OURS):
            server.execute(f"ALTER {'INDEX' if is_index else 'TABLE'} {name} SET TABLESPACE small")
        yield SmallDisk(server)
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
