"""Receivers of one page are isolated from one another, whatever their first query is."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.models import Change, Delivery
from tests.conftest import as_heroku_connect, deliver

pytestmark = pytest.mark.usefixtures("captured")


def insert_accounts(count: int) -> None:
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name) SELECT 'A' || g, 'n' || g FROM generate_series(1, %s) g", [count]
    )


def seen(event: Any) -> None:
    Seen.objects.create(event_id=f"mine {event.event_id}", sequence_number=0, entity_name="", change_type="")


def seen_changes() -> set[int]:
    found = Seen.objects.filter(event_id__startswith="mine ").values_list("event_id", flat=True)
    return {int(event_id.split()[1].split("-")[0]) for event_id in found}


def log_ids() -> list[int]:
    return list(Change.objects.values_list("id", flat=True))


def _by_orm(event: Any) -> None:
    seen(event)


def _many(event: Any) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO crm_seen (event_id, sequence_number, entity_name, change_type) VALUES (%s, 0, '', '')",
            [[f"mine {event.event_id}"], [f"mine {event.event_id} again"]],
        )


def _after_a_streamed_read(event: Any) -> None:
    list(Account.objects.iterator(chunk_size=2))
    seen(event)


def _in_a_block(event: Any) -> None:
    with transaction.atomic():
        seen(event)


def _after_several_statements(event: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 7; SELECT 8")
        assert cursor.fetchone() == (7,)
        assert cursor.nextset()
        assert cursor.fetchone() == (8,)
    seen(event)


def _after_an_error_that_it_survives(event: Any) -> None:
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 / 0")
    seen(event)


@pytest.mark.parametrize(
    "write",
    [_by_orm, _many, _after_a_streamed_read, _in_a_block, _after_several_statements, _after_an_error_that_it_survives],
)
def test_a_failing_receiver_takes_back_its_own_writes_and_nobody_elses(
    connect: Any, write: Callable[[Any], None]
) -> None:
    def every_other_fails(instance: Account, event: Any, **kwargs: Any) -> None:
        write(event)
        if instance.name in ("n2", "n4"):
            raise RuntimeError

    connect(signals.record_created, every_other_fails, Account)
    insert_accounts(5)
    assert deliver() == 5
    first, _, third, _, fifth = sorted(log_ids())
    assert seen_changes() == {first, third, fifth}
    assert Delivery.objects.count() == 2


class _Unsendable:
    pass


@pytest.mark.parametrize("params", [[_Unsendable()], [1, 2, 3], ["nul \x00"]])
def test_a_first_query_that_cannot_be_sent_harms_nobody(connect: Any, params: list[Any]) -> None:
    def first_fails(instance: Account, event: Any, **kwargs: Any) -> None:
        if instance.name != "n2":
            seen(event)
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s", params)

    connect(signals.record_created, first_fails, Account)
    insert_accounts(3)
    assert deliver() == 3
    assert len(seen_changes()) == 2
    assert Delivery.objects.count() == 1


def test_a_receiver_that_tries_another_way_after_a_query_that_cannot_be_sent_is_still_isolated(connect: Any) -> None:
    def second_way(event: Any, **kwargs: Any) -> None:
        with connection.cursor() as cursor, pytest.raises(Exception, match=r"."):
            cursor.execute("SELECT %s", [_Unsendable()])
        seen(event)
        raise RuntimeError

    connect(signals.record_created, second_way, Account)
    insert_accounts(2)
    assert deliver() == 2
    assert not seen_changes()
    assert Delivery.objects.count() == 2


def test_a_writing_receiver_costs_no_round_trip_of_ours(connect: Any) -> None:
    connect(signals.record_created, lambda event, **kwargs: seen(event), Account)

    insert_accounts(20)
    with CaptureQueriesContext(connection) as captured:
        assert deliver() == 20
    sent = [query["sql"] for query in captured]
    # The example's own receiver writes as well; and one message reads the images.
    assert sum("SAVEPOINT hc_signals_" in sql or "crm_seen" in sql for sql in sent) == 41


def test_savepoints_do_not_pile_up(connect: Any) -> None:
    depths: list[int] = []

    def look(event: Any, **kwargs: Any) -> None:
        seen(event)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND pid = pg_backend_pid()")
            depths.append(cursor.fetchone()[0])

    connect(signals.record_created, look, Account)
    insert_accounts(20)
    deliver()
    # The transaction's own id, and one of each subtransaction that has written and still goes on.
    assert len(depths) == 20
    assert max(depths) <= 3
