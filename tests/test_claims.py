"""A claim that ends during a receiver's call: its worker stops delivering."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, connection
from example.crm.models import Account
from example.crm.receivers import keep_ledger

from hc_signals import signals
from hc_signals.log import claims
from hc_signals.models import Position
from hc_signals.testing import HerokuConnect
from tests.conftest import another, deliver

NAMES = ["a", "b", "c"]


def elsewhere(deliver: Callable[[], Any] = lambda: deliver(ATOMIC=False)) -> None:
    """Deliver in another thread, as another worker does."""

    def work() -> None:
        try:
            deliver()
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.fixture
def calls(captured: HerokuConnect, disconnected: None) -> list[str]:
    """Three changes, without the example's receivers, which write to the database."""
    signals.record_changed.disconnect(keep_ledger)
    captured.insert(Account, *({"name": name} for name in NAMES))
    return []


@pytest.mark.parametrize("atomic", [True, False])
def test_worker_with_a_lost_session_stops_delivering(calls: list[str], connect: Any, atomic: bool) -> None:
    """The worker was cut off or suspended, and another one may have delivered the same changes."""

    def slow(instance: Account, **kwargs: Any) -> None:
        calls.append(instance.name)
        if len(calls) == 1:
            with another(f"SELECT pg_terminate_backend({connection.connection.info.backend_pid}, 5000)"):
                time.sleep(0.3)  # as long as a slow service takes

    connect(signals.record_created, slow, Account)
    with pytest.raises((DatabaseError, InterfaceError)):
        deliver(ATOMIC=atomic)
    assert calls == ["a"]
    connection.close()
    assert deliver(ATOMIC=atomic) == 3


def test_receiver_that_closes_connections_keeps_the_claim(calls: list[str], connect: Any) -> None:
    """As ``close_old_connections()`` does outside a transaction."""

    def on_account(instance: Account, **kwargs: Any) -> None:
        calls.append(instance.name)
        if len(calls) <= 3:
            elsewhere()
            connection.close()

    connect(signals.record_created, on_account, Account)
    assert deliver(ATOMIC=False) == 3
    assert calls == NAMES
    assert deliver() == 0


def test_closed_connection_leaves_the_claim(calls: list[str], connect: Any) -> None:
    """The claim has a connection of its own, so no other worker can deliver in between."""

    def on_account(instance: Account, **kwargs: Any) -> None:
        calls.append(instance.name)
        if len(calls) == 1:
            connection.close()
            elsewhere()

    connect(signals.record_created, on_account, Account)
    assert deliver(ATOMIC=False) == 3
    assert calls == NAMES
    assert deliver(ATOMIC=False) == 0


def test_lost_claim_ends_the_page(calls: list[str], connect: Any) -> None:
    """Another worker may have the shard, although the connection of the receivers is open."""

    def slow(instance: Account, **kwargs: Any) -> None:
        calls.append(instance.name)
        if len(calls) == 1:
            with another() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND application_name = 'hc_listen default claim'"
                )
                assert cursor.fetchall() == [(True,)]
            elsewhere()
            time.sleep(0.3)

    connect(signals.record_created, slow, Account)
    with pytest.raises((DatabaseError, InterfaceError)):
        deliver(ATOMIC=False)
    assert calls == ["a", *NAMES]
    assert deliver(ATOMIC=False) == 0


def test_claim_holds_no_snapshot_and_no_id(calls: list[str], connect: Any) -> None:
    """A claim may be held as long as a receiver runs: VACUUM must not wait for it."""
    found: list[Any] = []

    def on_account(**kwargs: Any) -> None:
        with another() as cursor:
            cursor.execute(
                "SELECT state, backend_xid, backend_xmin FROM pg_stat_activity "
                "WHERE application_name = 'hc_listen default claim' AND datname = current_database()"
            )
            found.extend(cursor.fetchall())

    connect(signals.record_created, on_account, Account)
    assert deliver(ATOMIC=False) == 3
    assert found == [("idle in transaction", None, None)] * 3


_END_CLAIMS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE '%%claim%%'
"""


def test_worker_without_its_claim_stores_no_position(
    captured: HerokuConnect, disconnected: None, connect: Any, monkeypatch: Any
) -> None:
    """Its claim ends after its last check; a worker with one shard takes over; then the first one ends its page."""
    monkeypatch.setattr(claims, "CONFIRM_SECONDS", 60)  # the test takes longer than the 0.2 s that this needs
    captured.insert(Account, {"name": "a"})
    others: list[Any] = []

    def lose_the_claim(**kwargs: Any) -> None:
        if not others:
            others.append(None)
            with another(_END_CLAIMS):
                elsewhere(lambda: others.append(deliver(ATOMIC=False, SHARDS=1)))

    connect(signals.record_created, lose_the_claim, Account)
    with pytest.raises((InterfaceError, DatabaseError)):
        deliver(ATOMIC=False, SHARDS=2)
    assert others == [None, 1]
    assert Position.objects.latest("id").shards == 1
