"""Receivers of one page write in few subtransactions: more than 64 slow the reads of every other session."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from example.crm.models import Account, Seen
from example.crm.receivers import keep_ledger

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.delivery.replay import Replay
from hc_signals.models import Delivery, Position
from hc_signals.worker.loop import Worker
from tests.conftest import another, as_heroku_connect, deliver

pytestmark = pytest.mark.usefixtures("captured", "no_ledger")

CHANGES = 150
_OVERFLOWED = """
SELECT subxact_overflowed FROM pg_stat_get_backend_idset() id, pg_stat_get_backend_subxact(id)
WHERE pg_stat_get_backend_pid(id) = %s
"""


@pytest.fixture
def no_ledger() -> Iterator[None]:
    """Leave out the example's own receiver, which writes too."""
    signals.record_changed.disconnect(keep_ledger)
    yield
    signals.record_changed.connect(keep_ledger)


def insert_accounts(count: int = CHANGES) -> None:
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name) SELECT 'A' || g, 'n' || g FROM generate_series(1, %s) g", [count]
    )


def write(event: Any) -> None:
    Seen.objects.create(event_id=f"mine {event.event_id}", sequence_number=0, entity_name="", change_type="")


class Receiver:
    """Does something for each event; notes the changes, and whether the snapshots of other sessions overflow."""

    def __init__(self, act: Callable[[Any], Any]) -> None:
        self.act, self.changes, self.overflowed = act, list[int](), set[bool]()

    def __call__(self, event: Any, **kwargs: Any) -> None:
        self.act(event)
        self.changes.append(event.replay_id)
        is_shown = connection.connection.info.server_version >= 160000  # earlier servers do not show it
        if is_shown and len(self.changes) % 5 == 0:
            with another() as cursor:
                cursor.execute(_OVERFLOWED, [connection.connection.info.backend_pid])
                self.overflowed.add(bool(cursor.fetchone()[0]))


def pages_of(deliver_all: Callable[[], Any]) -> int:
    """Return how many positions were appended: one for each page."""
    before = Position.objects.count()
    deliver_all()
    return Position.objects.count() - before


def _in_a_block(event: Any) -> None:
    with transaction.atomic():
        write(event)


def _past_django(event: Any) -> None:
    sql = "INSERT INTO crm_seen (event_id, sequence_number, entity_name, change_type) VALUES (%s, 0, '', '')"
    connection.connection.execute(sql, [f"mine {event.event_id}"])


@pytest.mark.fault(
    "receivers write for very many changes, while another transaction stays open",
    outcome="a page has too few subtransactions to slow other sessions",
)
@pytest.mark.parametrize("act", [write, _in_a_block])
def test_writing_receivers_do_not_slow_other_sessions(connect: Any, act: Any) -> None:
    receiver = Receiver(act)
    connect(signals.record_created, receiver, Account)
    insert_accounts()
    assert deliver() == CHANGES
    assert receiver.changes == sorted(receiver.changes) and len(receiver.changes) == CHANGES
    assert True not in receiver.overflowed
    assert Seen.objects.filter(event_id__startswith="mine ").count() == CHANGES


def test_receivers_that_only_read_share_one_page(connect: Any) -> None:
    connect(signals.record_created, lambda event, **kwargs: Account.objects.filter(pk=0).exists(), Account)
    insert_accounts()
    assert pages_of(deliver) == 2  # it opens the window, and ends it


def test_pages_of_writing_receivers_are_as_long_as_they_may_be(connect: Any) -> None:
    connect(signals.record_created, Receiver(write), Account)
    insert_accounts()
    assert pages_of(deliver) <= CHANGES / 60 + 3


def test_writes_that_are_rolled_back_shorten_no_page(connect: Any) -> None:
    def write_and_fail(event: Any, **kwargs: Any) -> None:
        write(event)
        raise ValueError("not yet")

    connect(signals.record_created, write_and_fail, Account)
    insert_accounts()
    assert pages_of(deliver) == 2
    assert Delivery.objects.count() == CHANGES


def test_many_due_retries_leave_room_for_new_changes(connect: Any) -> None:
    is_broken = [True]

    def fail_at_first(event: Any) -> None:
        if is_broken:
            raise ValueError("not yet")
        write(event)

    receiver = Receiver(fail_at_first)
    connect(signals.record_created, receiver, Account)
    insert_accounts()
    deliver(RETRY_SECONDS=0.0001)
    assert Delivery.objects.count() == CHANGES
    is_broken.clear()
    as_heroku_connect("INSERT INTO salesforce.account (sfid, name) SELECT 'B' || g, 'n' FROM generate_series(1, 10) g")
    shard = Worker("default", Conf()).shards[0]
    shard.deliver_page()
    assert shard.delivered == 10
    assert 0 < Delivery.objects.count() < CHANGES
    deliver()
    assert Delivery.objects.count() == 0
    assert len(receiver.changes) == CHANGES + 10
    assert True not in receiver.overflowed


def test_replays_do_not_slow_other_sessions(connect: Any) -> None:
    insert_accounts()
    deliver()
    receiver = Receiver(write)
    connect(signals.record_created, receiver, Account)
    run = Replay("default", Conf(), models=[Account]).start(None)
    while not run.finished:
        run.page()
    assert len(receiver.changes) == CHANGES
    assert True not in receiver.overflowed


def test_statements_past_django_count_once(connect: Any) -> None:
    receiver = Receiver(_past_django)
    connect(signals.record_created, receiver, Account)
    insert_accounts()
    assert deliver() == CHANGES
    assert Seen.objects.filter(event_id__startswith="mine ").count() == CHANGES
    assert True not in receiver.overflowed
