"""hc_listen waits until a standby is promoted, at its start and while it is running."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection
from example.crm.models import Seen

from hc_signals.log.schema import Cause
from hc_signals.log.tail import Place, read, start_at
from hc_signals.log.tail import start as start_tail
from hc_signals.postgres.moments import now
from hc_signals.testing import HerokuConnect
from tests.conftest import another
from tests.server import Server, Standby, installation
from tests.test_trouble import WorkerProcess
from tests.test_worker_process import asleep, insert, start, wait_until

LATE = "INSERT INTO salesforce.account (sfid, name) VALUES ('late', 'late')"


@contextmanager
def on(standby: Standby) -> Iterator[None]:
    """Make the standby the default database for a block."""
    host = connection.settings_dict["HOST"]
    connection.close()
    connection.settings_dict["HOST"] = str(standby.directory)
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["HOST"] = host


@pytest.fixture
def pair(transactional_db: None) -> Iterator[tuple[Server, Standby]]:
    """A primary with capture as the default database of the test, and its standby."""
    primary = Server(installation())
    before = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict |= {"HOST": str(primary.directory), "PORT": "", "NAME": "postgres", "USER": "postgres"}
    standby = None
    try:
        HerokuConnect().create_tables()
        call_command("migrate", verbosity=0)
        call_command("hc_triggers", "install", stdout=StringIO())
        standby = Standby(primary)
        yield primary, standby
    finally:
        connection.close()
        connection.settings_dict |= before
        for server in (primary, standby):
            with suppress(Exception):
                if server:
                    server.stop()


@pytest.mark.fault("`hc_listen` reaches a standby that is promoted later", outcome="delivered after the promotion")
def test_worker_waits_until_a_standby_is_promoted(pair: tuple[Server, Standby]) -> None:
    primary, standby = pair
    both = f"postgresql://postgres@/postgres?host={primary.directory},{standby.directory}"
    first = WorkerProcess("--poll-interval", "600", DATABASE_URL=both, TEST_DATABASE="postgres")
    second = WorkerProcess(DATABASE_URL=standby.url, TEST_DATABASE="postgres")
    try:
        wait_until(asleep)
        insert(1)
        wait_until(lambda: Seen.objects.count() == 1)
        wait_until(lambda: second.says("The start waits for the server: The database 'default' is a follower"))
        process = start("hc_listen", "--no-wait", DATABASE_URL=standby.url, TEST_DATABASE="postgres")
        output, _ = process.communicate(timeout=60)
        assert (process.returncode, output.count("\n")) == (1, 1)
        assert "The database 'default' is a follower: LISTEN does not work there; use the leader's URL." in output
        standby.catch_up()
        connection.close()
        primary.halt()
        wait_until(lambda: first.says("The doorbell waits for the server: cannot execute LISTEN during recovery"))
        assert not first.is_well()
        standby.promote()
        connection.settings_dict |= {"HOST": str(standby.directory)}
        wait_until(lambda: first.says("The doorbell works again after"))
        wait_until(lambda: second.says("The start works again after"))
        insert(2)
        wait_until(lambda: Seen.objects.count() == 3)
        wait_until(lambda: first.is_well() and second.is_well())
        assert first.stop() == second.stop() == 0
    finally:
        connection.close()
        first.kill()
        second.kill()


def test_changes_are_read_on_a_follower(pair: tuple[Server, Standby]) -> None:
    """Also those of a transaction that was open at a read. A follower's own snapshot would call it finished."""
    _, standby = pair
    insert(1)
    with another(f"SET LOCAL xmlbinary = 'hex'; {LATE}"):  # rolled back
        insert(1)
        standby.catch_up()
        with on(standby):
            place = start_tail("default")
    with another(f"SET LOCAL xmlbinary = 'hex'; {LATE}") as cursor:
        for _ in range(2):
            insert(1)
            standby.catch_up()
            with on(standby):
                reading = read("default", place)
                assert [found.new and found.new["name"] for found in reading.changes] == ["n"]
                assert len(read("default", start_at("default", now() - timedelta(hours=1))).changes) > 1
                place = Place.of_token(reading.place.token())
        cursor.execute("COMMIT")
        standby.catch_up()
        with on(standby):
            reading = read("default", place)
            assert [found.new and found.new["name"] for found in reading.changes] == ["late"]
            assert read("default", reading.place).changes == []
    standby.promote()
    with on(standby):
        assert read("default", reading.place).missed == (Cause.FAILED_OVER,)
