"""The server's clock goes back and forward, and its transaction ids pass 2**32: no change is lost, no worker stops."""

import os
import time
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture import table_state
from hc_signals.capture.repairing import Repairs
from hc_signals.conf import Conf
from hc_signals.log.rotation import rotate
from hc_signals.log.schema import BUCKET_SECONDS
from hc_signals.models import Change, Delivery
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.clock import FAKETIME, Clock
from tests.conftest import deliver, running_crew
from tests.server import Server, has, installation
from tests.test_worker_process import wait_until


@pytest.fixture
def events(connect: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All delivered events, in order; the example's receivers, which need tables of their own, get none."""
    monkeypatch.setattr(signals.record_changed, "receivers", [])
    found: list[Any] = []
    connect(signals.record_changed, lambda event, **kwargs: found.append(event), Account)
    connect(signals.gap_detected, lambda event, **kwargs: found.append(event), Account)
    return found


def own_database(server: Server) -> Iterator[Server]:
    """Make a new database of the server, with capture, the default one for the length of the test."""
    before = dict(connection.settings_dict)
    connection.close()
    server.execute("CREATE DATABASE own")
    connection.settings_dict |= {"HOST": str(server.directory), "PORT": "", "NAME": "own", "USER": "postgres"}
    try:
        HerokuConnect().create_tables()
        call_command("migrate", "hc_signals", verbosity=0)
        call_command("hc_triggers", "install", stdout=StringIO())
        yield server
    finally:
        connection.close()
        connection.settings_dict |= before
        server.execute("DROP DATABASE own")


@pytest.fixture(scope="module")
def faketime_server() -> Iterator[tuple[Server, Callable[[float], None]]]:
    """A server, and a function that sets its clock some seconds after the right time."""
    if FAKETIME is None:
        pytest.skip("libfaketime is not installed")
    with Clock() as clock:
        server = Server(installation(), environment=clock.environment)
        yield server, clock.set_to
        server.stop()


@pytest.fixture
def set_clock(
    transactional_db: None, faketime_server: tuple[Server, Callable[[float], None]]
) -> Iterator[Callable[[float], None]]:
    """A default database whose clock can be set."""
    server, set_to = faketime_server
    set_to(0)
    for _ in own_database(server):
        yield set_to


def buckets() -> set[int]:
    return set(Change.objects.values_list("bucket", flat=True))


@pytest.mark.fault("the server's clock goes back 12 hours, forward 5 days, and back", outcome="delivered, in order")
def test_no_jump_of_the_clock_loses_a_change(set_clock: Callable[[float], None], events: list[Any]) -> None:
    heroku, account = HerokuConnect(), 0
    for offset in (0, -12 * 3600, 5 * 86400, 0):
        heroku.create(Account, 2)
        set_clock(offset)
        rotate("default", 72)  # undelivered changes stay, however old they seem
        heroku.create(Account, 1)
        assert deliver() == 3
        account += 3
        assert len(events) == account
    set_clock(9 * 86400)
    rotate("default", 72)
    assert not buckets(), "all changes are delivered and old"
    assert [event.replay_id for event in events] == sorted({event.replay_id for event in events})
    assert {event.change_type for event in events} == {"CREATE"}


def test_writers_pass_the_border_of_buckets(set_clock: Callable[[float], None], events: list[Any]) -> None:
    heroku, count = HerokuConnect(), 0
    set_clock(BUCKET_SECONDS - time.time() % BUCKET_SECONDS - 0.5)
    while len(buckets()) < 2:
        heroku.create(Account, 1)
        count += 1
    assert deliver() == count == len(events)


def test_retry_is_on_time_after_the_clock_goes_back(
    set_clock: Callable[[float], None], events: list[Any], connect: Any
) -> None:
    def fails_once(event: Any, **kwargs: Any) -> None:
        if event.attempt == 1:
            raise RuntimeError

    connect(signals.record_created, fails_once, Account)
    HerokuConnect().create(Account, 1)
    deliver(RETRY_SECONDS=60)
    set_clock(-12 * 3600)
    with running_crew(RETRY_SECONDS=60, RETRY_MAX_SECONDS=60):
        wait_until(lambda: not Delivery.objects.exists())


def test_drift_check_ignores_times_in_the_future(set_clock: Callable[[float], None]) -> None:
    """Otherwise rows changed before that time would not be read again."""
    repairs = Repairs("default", Conf(), connected_models())
    repairs.run()
    before = table_state.read("default")["salesforce.account"].good_at
    set_clock(-12 * 3600)
    repairs.run()
    after = table_state.read("default")["salesforce.account"].good_at
    assert before and after and (before - after).total_seconds() > 11 * 3600


@pytest.fixture
def server() -> Iterator[Server]:
    own = Server(installation())
    yield own
    own.stop()


@pytest.mark.fault("transaction ids pass 2**32, or jump far beyond", outcome="delivered, in order")
@pytest.mark.usefixtures("transactional_db")
def test_transaction_ids_beyond_32_bits_are_delivered(server: Server, events: list[Any]) -> None:
    if not has(installation(), "pg_resetwal"):
        pytest.skip("the server's package has no pg_resetwal, and that of another version refuses")
    for _ in own_database(server):
        heroku = HerokuConnect()
        heroku.create(Account, 2)
        assert deliver() == 2
        heroku.create(Account, 1)
        _set_xid(server, 2**32 - 10)
        for count in (1 + 20, 20):
            for _ in range(20):
                heroku.create(Account, 1)
            assert deliver() == count
        _reset(server, "-e", "3")
        for count in (20, 20):
            for _ in range(20):
                heroku.create(Account, 1)
            assert deliver() == count
        xids = [int(event.transaction_key) for event in events]
        assert xids[2] < 2**32 - 10 <= xids[3] < 2**32 < xids[22] < 3 * 2**32 < xids[-1]
        assert len(events) == 83
        assert [event.replay_id for event in events] == sorted({event.replay_id for event in events})
        rotate("default", 0)
        assert not buckets()


def _set_xid(server: Server, xid: int) -> None:
    """Set the id of the next transaction, as if all ids before it had been used."""
    connection.close()
    server.run("vacuumdb", "--all", "--freeze", "--quiet", "-U", "postgres", "-h", str(server.directory))
    statuses = server.directory / "data" / "pg_xact" / "0FFF"
    owner = (server.directory / "data").stat()
    _reset(server, "-x", str(xid), lambda: (statuses.write_bytes(bytes(262_144)), os.chown(statuses, owner.st_uid, -1)))


def _reset(server: Server, option: str, value: str, before_start: Callable[[], object] = lambda: None) -> None:
    connection.close()
    server.halt("fast")
    server.run("pg_resetwal", option, value, "-D", "data")
    before_start()
    server.start()
