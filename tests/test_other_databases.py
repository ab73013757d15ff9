"""Receivers that use another database of the project: a call leaves nothing open there, and lost connections end."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.models import Delivery
from hc_signals.testing import deliver_changes
from tests.conftest import deliver
from tests.test_isolation import insert_accounts

pytestmark = [
    pytest.mark.usefixtures("captured"),
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
]


@pytest.fixture(autouse=True, scope="module")
def alias(django_db_setup: None) -> Iterator[None]:
    """Add an alias for the same database: Django then has a second connection."""
    connections.settings["other"] = {**copy.deepcopy(connections.settings["default"]), "CONN_MAX_AGE": None}
    yield
    del connections["other"], connections.settings["other"]


@pytest.fixture
def other() -> Iterator[Any]:
    yield connections["other"]
    connections["other"].close()


def write(instance: Account) -> None:
    Seen.objects.using("other").create(
        event_id=f"other {instance.name}", sequence_number=0, entity_name="", change_type=""
    )


def written() -> list[str]:
    found = Seen.objects.filter(event_id__startswith="other").order_by("event_id")
    return list(found.values_list("event_id", flat=True))


def begins_a_block() -> None:
    transaction.atomic(using="other").__enter__()


def begins_past_django() -> None:
    connections["other"].ensure_connection()
    connections["other"].connection.execute("BEGIN")


def turns_autocommit_off() -> None:
    connections["other"].set_autocommit(False)


@pytest.mark.fault(
    "a receiver leaves a transaction open in another database of the project",
    outcome="rolled back; it fails alone, and later receivers' writes there are committed",
)
@pytest.mark.parametrize("begin", [begins_a_block, begins_past_django, turns_autocommit_off])
@pytest.mark.parametrize("atomic", [True, False])
def test_transaction_left_open_fails_its_receiver_alone(
    connect: Any, other: Any, begin: Callable[[], None], atomic: bool
) -> None:
    def leaves(instance: Account, **kwargs: Any) -> None:
        if instance.name == "n1":
            begin()
            Seen.objects.using("other").create(event_id="lost", sequence_number=0, entity_name="", change_type="")

    connect(signals.record_created, leaves, Account)
    connect(signals.record_created, lambda instance, **kwargs: write(instance), Account)
    insert_accounts(2)
    assert deliver(ATOMIC=atomic) == 2
    assert written() == ["other n1", "other n2"]
    assert not Seen.objects.filter(event_id="lost").exists()
    assert "a transaction open in another database (other)" in Delivery.objects.get().error


@pytest.mark.fault(
    "the connection to another database of the project is lost",
    outcome="one call fails and is retried; the next one has a new connection",
)
def test_lost_connection_fails_one_call(connect: Any, other: Any) -> None:
    def uses_both(instance: Account, **kwargs: Any) -> None:
        if instance.name == "n2":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [other.connection.info.backend_pid])
        write(instance)

    connect(signals.record_created, uses_both, Account)
    insert_accounts(4)
    assert deliver() == 4
    assert written() == ["other n1", "other n3", "other n4"]
    assert Delivery.objects.count() == 1


def test_old_connections_are_closed_after_a_page(connect: Any, other: Any) -> None:
    """As after a request: CONN_MAX_AGE is how long Django keeps a connection."""
    sessions: list[int] = []

    def notes(instance: Account, **kwargs: Any) -> None:
        other.ensure_connection()
        sessions.append(other.connection.info.backend_pid)

    connect(signals.record_created, notes, Account)
    for age, expected in ((None, 1), (0, 2)):
        other.close()
        connections.settings["other"]["CONN_MAX_AGE"] = other.settings_dict["CONN_MAX_AGE"] = age
        sessions.clear()
        insert_accounts(4)
        deliver(BATCH_SIZE=2)
        Account.objects.all()._raw_delete("default")  # type: ignore[attr-defined]
        assert len(set(sessions)) == expected


def test_transactions_of_a_test_stay_open(connect: Any, other: Any) -> None:
    connect(signals.record_created, lambda instance, **kwargs: write(instance), Account)
    insert_accounts(1)
    with transaction.atomic(using="other"):
        assert deliver_changes() == 1
        assert Seen.objects.using("other").filter(event_id="other n1").exists()
        transaction.set_rollback(True, using="other")
    assert written() == []
