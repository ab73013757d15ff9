"""Retry and discard by hand, beside a running worker: no delivery is stranded, and the order is kept."""

import threading
from typing import Any

import pytest
from django.db import connection, transaction

from hc_signals import signals
from hc_signals.delivery import interventions
from hc_signals.log.claims import lock_all
from hc_signals.log.position import LogShard
from hc_signals.models import Delivery
from hc_signals.testing import HerokuConnect
from tests.conftest import IS_OURS, deliver
from tests.sfdc.models import User
from tests.test_worker_process import wait_until


class Receiver:
    def __init__(self) -> None:
        self.failing = {"a", "b", "c"}
        self.done: list[str] = []

    def __call__(self, instance: Any, **kwargs: Any) -> None:
        if instance.username in self.failing:
            raise ValueError("no")
        self.done.append(instance.username)


@pytest.fixture
def receiver(heroku: HerokuConnect, captured: HerokuConnect, connect: Any) -> Receiver:
    """One record whose changes a, b and c each fail: the first is retried, the others are parked behind it."""
    found = Receiver()
    connect(signals.record_changed, found, User)
    (sfid,) = captured.insert(User, username="a")
    captured.update(User, sfid, username="b")
    captured.update(User, sfid, username="c")
    deliver()
    assert states() == ["retry", "parked", "parked"]
    return found


def states() -> list[str]:
    return list(Delivery.objects.order_by("id").values_list("state", flat=True))


def nth(number: int) -> Any:
    return Delivery.objects.filter(pk=Delivery.objects.order_by("id")[number].pk)


def make_due() -> None:
    Delivery.objects.filter(state="retry").update(next_attempt_at="2000-01-01T00:00Z")


def test_retried_dead_delivery_keeps_the_order(receiver: Receiver) -> None:
    nth(0).update(attempt=9)
    make_due()
    deliver()  # a is dead, so b is called, fails and is retried later
    assert states() == ["dead", "retry", "parked"]
    with transaction.atomic():
        assert interventions.retry(nth(0)) == 1
    receiver.failing = {"b"}
    deliver()
    assert receiver.done == ["a"]
    assert states() == ["retry", "parked"], "c still waits for b"
    receiver.failing = set()
    make_due()
    deliver()
    assert receiver.done == ["a", "b", "c"]


def test_discarding_one_of_two_retried_keeps_the_order(receiver: Receiver) -> None:
    nth(1).update(state="retry", next_attempt_at="2999-06-01T00:00Z")
    with transaction.atomic():
        interventions.discard(nth(0))
    assert states() == ["retry", "parked"]
    assert Delivery.objects.filter(next_attempt_at__year=2999).exists()


def test_discarding_a_parked_delivery_releases_no_other(receiver: Receiver) -> None:
    with transaction.atomic():
        assert interventions.discard(nth(1)) == 1
    assert states() == ["retry", "parked"]


def test_discarding_releases_the_same_consumers_deliveries(receiver: Receiver) -> None:
    deliver(CONSUMER="other")
    Delivery.objects.filter(receiver__endswith="keep_ledger").delete()
    assert states() == ["retry", "parked", "parked"] * 2
    with transaction.atomic():
        interventions.discard(nth(3))
    assert states() == ["retry", "parked", "parked", "retry", "parked"]


def discard_all() -> None:
    try:
        with transaction.atomic():
            interventions.discard(Delivery.objects.filter(state="retry"))
    finally:
        connection.close()


def waits_for_a_claim() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {IS_OURS}")
        return bool(cursor.rowcount)


def test_delivery_parked_during_a_discard_is_released(receiver: Receiver) -> None:
    thread = threading.Thread(target=discard_all)
    with transaction.atomic(), connection.cursor() as cursor:
        # Like a worker that has read that the record waits, and parks the next change behind it.
        lock_all([LogShard("default", "default")])
        cursor.execute("DELETE FROM public.hc_signals_delivery WHERE state = 'parked'")
        thread.start()
        wait_until(waits_for_a_claim)
        cursor.execute(
            "INSERT INTO public.hc_signals_delivery (consumer, receiver, signal, sender, state, attempt, error, "
            "change_id, xid, captured_at, table_name, operation, origin, record_key, record_id, new) "
            "SELECT consumer, receiver, signal, sender, 'parked', 0, '', change_id, xid, captured_at, table_name, "
            "operation, origin, record_key, record_id, new FROM public.hc_signals_delivery"
        )
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert states() == ["retry"]


def test_pieces_leave_workers_room(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is a transaction: none of them holds the shards of the workers to the end."""
    monkeypatch.setattr(interventions, "PIECE", 1)
    pieces: list[list[int]] = []

    def discard(chosen: Any) -> int:
        assert connection.in_atomic_block
        pieces.append(list(chosen.values_list("pk", flat=True)))
        return interventions.discard(chosen)

    ids = list(Delivery.objects.order_by("id").values_list("id", flat=True))
    done = interventions.in_pieces(discard, Delivery.objects.all(), seconds=-1)
    assert done == (1, 2, ids[0])
    assert interventions.in_pieces(discard, Delivery.objects.all()) == (2, 0, ids[2])
    assert pieces == [[each] for each in ids]


def test_pieces_skip_deliveries_stored_during_the_call(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a receiver that keeps failing would keep the call going."""
    monkeypatch.setattr(interventions, "PIECE", 1)
    calls = 0

    def store_another(chosen: Any) -> int:
        nonlocal calls
        calls += 1
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO public.hc_signals_delivery (consumer, receiver, signal, sender, state, attempt, error, "
                "change_id, xid, captured_at, table_name, operation, origin) SELECT consumer, receiver, signal, "
                "sender, state, attempt, error, change_id, xid, captured_at, table_name, operation, origin "
                "FROM public.hc_signals_delivery LIMIT 1"
            )
        return 1

    done = interventions.in_pieces(store_another, Delivery.objects.all())
    assert (calls, done.done, done.left) == (3, 3, 0)
