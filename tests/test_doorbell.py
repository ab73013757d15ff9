"""Several sleepers at one bell: threads of a process, processes, and a process that dies while it holds the lock."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection

from hc_signals.delivery.pulse import Pulse
from hc_signals.postgres.locks import BELL
from hc_signals.testing import HerokuConnect
from hc_signals.worker.bell_connection import BellConnection
from hc_signals.worker.doorbell import Doorbell
from tests.conftest import IS_OURS, as_the_app

pytestmark = pytest.mark.django_db(transaction=True)


class Sleeper(threading.Thread):
    """Sleeps at a bell again and again; counts its reads of the log and how many times it woke."""

    def __init__(self, bell: Doorbell, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.bell, self.stopping = bell, stopping
        self.reads = self.nights = 0
        self.read_in = -1
        self.something_waits = False
        bell.sleepers_of_test = [*getattr(bell, "sleepers_of_test", []), self]  # type: ignore[attr-defined]
        self.start()

    def run(self) -> None:
        while not self.stopping.is_set():
            self.bell.sleep(self.read, lambda: 600.0, Pulse())
            self.nights += 1
        connection.close()

    def read(self) -> bool:
        self.reads += 1
        self.read_in = self.nights
        return self.something_waits

    @property
    def is_asleep(self) -> bool:
        return self.read_in == self.nights and self.bell._has_listener


@pytest.fixture
def stopping() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def bell(stopping: threading.Event) -> Iterator[Callable[[], Doorbell]]:
    bells: list[Doorbell] = []

    def make() -> Doorbell:
        bells.append(Doorbell("default", stopping.is_set))
        return bells[-1].__enter__()

    yield make
    stopping.set()
    for each in bells:
        for sleeper in getattr(each, "sleepers_of_test", []):
            sleeper.join(timeout=60)  # a sleeper that is awake would reconnect after the exit
        each.__exit__(None, None, None)


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def ring() -> None:
    as_the_app("SELECT public.hc_signals_ring()")


def lock_holders() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s "
            f"AND mode = 'ExclusiveLock' AND granted AND {IS_OURS}",
            BELL,
        )
        return [row[0] for row in cursor.fetchall()]


def test_notification_wakes_all_threads_of_all_processes(bell: Any, stopping: threading.Event) -> None:
    one, other = bell(), bell()
    sleepers = [Sleeper(one, stopping), Sleeper(one, stopping), Sleeper(other, stopping)]
    for _ in range(3):
        wait_until(lambda: all(sleeper.is_asleep for sleeper in sleepers))
        before = [sleeper.nights for sleeper in sleepers]
        ring()
        wait_until(lambda b=before: all(s.nights > n for s, n in zip(sleepers, b, strict=True)))
    assert len(lock_holders()) <= 1


def test_thread_that_wakes_leaves_the_bell_to_the_other(bell: Any, stopping: threading.Event) -> None:
    shared = bell()
    first = Sleeper(shared, stopping)
    wait_until(lambda: first.is_asleep)
    second = Sleeper(shared, stopping)
    wait_until(lambda: second.reads == 1)
    first.something_waits = True
    ring()
    wait_until(lambda: first.nights > 3)  # it is busy now: never asleep for long
    before = second.nights
    wait_until(lambda: second.reads > before)
    ring()
    wait_until(lambda: second.nights > before)


def test_sleeper_woken_during_its_read_does_not_listen(bell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would use the connection while another thread takes the lock again."""
    shared, listeners, listen = bell(), set(), Doorbell._listen

    def listen_as(self: Doorbell, seconds: float) -> None:
        listeners.add(threading.current_thread().name)
        listen(self, seconds)

    def sleep_once(read: Callable[[], bool]) -> None:
        shared.sleep(read, lambda: 600.0, Pulse())
        connection.close()

    monkeypatch.setattr(Doorbell, "_listen", listen_as)
    first = threading.Thread(target=sleep_once, args=[lambda: False], name="first")
    first.start()
    wait_until(lambda: listeners)

    def read() -> bool:
        ring()
        first.join(timeout=10)
        return False

    sleep_once(read)
    assert listeners == {"first"}


def test_sleeper_that_wakes_by_itself_notifies_other_processes(bell: Any, stopping: threading.Event) -> None:
    """Writers that found the lock free did not notify."""
    one, other = bell(), bell()
    holder = Sleeper(one, stopping)
    wait_until(lambda: holder.is_asleep and one._lock.is_held)
    guest = Sleeper(other, stopping)
    wait_until(lambda: guest.is_asleep)
    assert not other._lock.is_held
    nights = guest.nights
    with one._guard:  # as when the holder has found something in the log
        one._end_sleep(notify=True)
    wait_until(lambda: guest.nights > nights)


def test_lock_of_a_dead_holder_is_taken_by_a_sleeper(bell: Any, stopping: threading.Event) -> None:
    guest_bell = bell()
    with psycopg.connect(**guest_bell._connection.params, autocommit=True) as dying:
        dying.execute("SELECT pg_advisory_lock(%s, %s)", BELL)
        guest = Sleeper(guest_bell, stopping)
        wait_until(lambda: guest.is_asleep)
        reads = guest.reads
        as_the_app(f"SELECT pg_terminate_backend({dying.info.backend_pid})")
        wait_until(lambda: guest.reads > reads and guest_bell._lock.is_held)


def test_writer_does_not_notify_while_the_worker_is_awake(bell: Any, captured: HerokuConnect) -> None:
    heard = bell()
    assert not lock_holders()
    with psycopg.connect(**heard._connection.params, autocommit=True) as listener:
        listener.execute("LISTEN hc_signals")
        ring()
        assert list(listener.notifies(timeout=0.2)) == []


def test_doorbell_reconnects_when_its_session_is_terminated(bell: Any, stopping: threading.Event) -> None:
    only = bell()
    sleeper = Sleeper(only, stopping)
    wait_until(lambda: sleeper.is_asleep)
    as_the_app(f"SELECT pg_terminate_backend({only._connection.raw.info.backend_pid})")
    wait_until(lambda: sleeper.nights >= 1 and sleeper.is_asleep and only._lock.is_held)
    nights = sleeper.nights
    ring()
    wait_until(lambda: sleeper.nights > nights)


def test_pings_run_no_query_and_lose_no_notification(
    bell: Any, stopping: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BellConnection, "PING_EVERY", 0.0)
    monkeypatch.setattr(Doorbell, "SLICE", 0.01)
    only = bell()
    sleeper = Sleeper(only, stopping)
    wait_until(lambda: sleeper.is_asleep)
    last_query = f"SELECT query_start FROM pg_stat_activity WHERE pid = {only._connection.raw.info.backend_pid}"
    with connection.cursor() as cursor:
        cursor.execute(last_query)
        before = cursor.fetchone()
        for _ in range(3):
            heard_at = only.state().heard_at
            wait_until(lambda then=heard_at: only.state().heard_at > then)
        cursor.execute(last_query)
        assert cursor.fetchone() == before
    for _ in range(50):
        nights = sleeper.nights
        ring()
        wait_until(lambda n=nights: sleeper.nights > n and sleeper.is_asleep)


def test_doorbell_reconnects_when_listen_is_lost(
    bell: Any, stopping: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BellConnection, "PING_TIMEOUT", 0.5)
    monkeypatch.setattr(BellConnection, "PING_EVERY", 0.05)
    monkeypatch.setattr(BellConnection, "NOTIFY_EVERY", 0.1)
    only = bell()
    only._connection.raw.execute("UNLISTEN *")
    sleeper = Sleeper(only, stopping)
    wait_until(lambda: only.state().reconnects)
    wait_until(lambda: sleeper.is_asleep)
    ring()
    wait_until(lambda: sleeper.nights > 1)


def test_worker_polls_when_listen_is_swallowed(stopping: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BellConnection, "PING_TIMEOUT", 0.05)
    monkeypatch.setattr(BellConnection, "PING_AGAIN", 0.1)
    monkeypatch.setattr(BellConnection, "POLL_PAUSES", (0.01, 0.05))
    bell = Doorbell("default", stopping.is_set)
    monkeypatch.setattr(bell._connection, "receive", lambda seconds: False)
    with bell:
        assert not bell.state().listens
        sleeper = Sleeper(bell, stopping)
        wait_until(lambda: sleeper.reads > 2)
        assert not lock_holders(), "behind a pooler a session lock would stay with other clients"
        stopping.set()
        sleeper.join()


def test_watchdog_ignores_a_released_doorbell(bell: Any) -> None:
    """No thread waits for the answer. The watchdog would break the connection during a long backlog."""

    def ring_once() -> None:
        ring()
        connection.close()

    one = bell()
    ringer = threading.Timer(0.1, ring_once)
    ringer.start()
    one.sleep(lambda: False, lambda: 60.0, Pulse())
    ringer.join()
    wait_until(lambda: not lock_holders())
    assert one._connection.raw.info.transaction_status.name == "ACTIVE"
    assert one.awaited is None
    asleep: list[Any] = []
    one.sleep(lambda: not asleep.append(one.awaited), lambda: 60.0, Pulse())
    assert asleep == [one._connection.raw]
