"""Hypothesis steps writers and sleepers in any order: no sleeper stays asleep with a change to deliver.

There is no poll and no timeout: only a notification wakes a sleeper. Each is the real ``Doorbell`` in a thread of its
own, which stops before each step until the machine lets it go on.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection
from hypothesis import strategies as st

from hc_signals.delivery.pulse import Pulse
from hc_signals.postgres.locks import BELL
from hc_signals.worker.bell_connection import CHANNEL
from hc_signals.worker.bell_lock import BellLock
from hc_signals.worker.doorbell import Doorbell
from tests.machines.machine import (
    Schedule,
    ScheduledMachine,
    machine_settings,
    new_connection,
    repeat,
    run,
    scheduled,
    schedules_of,
)
from tests.server import own

WAKE_TIMEOUT = 1.0
INSERT = "INSERT INTO public.hc_signals_change (table_name, operation, origin) VALUES ('machine', 'UPDATE', 'app')"
writers, sleepers = st.integers(0, 2), st.integers(0, 1)


class Ended(Exception):
    """The sleeper's thread is to end."""


class SteppedBell(Doorbell):
    """A doorbell that waits for its turn before it takes the lock, before its last read and in its sleep.

    Args:
        deliver: delivers all changes; returns whether there was any.
    """

    SLICE = 0.005
    BUSY_PAUSES = (0.001, 0.001)
    lock_class: type["SteppedLock"]

    def __init__(self, deliver: Callable[[], bool]) -> None:
        super().__init__("default", self.is_stopping)
        self._lock = self.lock_class(self)
        self.at, self.deliver = "start", deliver
        self.ending = self.has_looked = False
        self._go, self._arrived = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        self._arrived.acquire()

    def step(self) -> None:
        """Let the thread reach its next turn."""
        self._go.release()
        assert self._arrived.acquire(timeout=60), f"the sleeper is stuck after {self.at!r}"

    def step_to(self, at: str) -> None:
        """Step until its next turn is this one."""
        while self.at != at:
            self.step()

    def end(self) -> None:
        """End the thread."""
        self.ending = True
        self._go.release()
        self._thread.join(timeout=60)

    def turn(self, at: str) -> None:
        self.at = at
        self._arrived.release()
        self._go.acquire()
        if self.ending:
            raise Ended

    def is_stopping(self) -> bool:
        self.turn("asleep" if self.has_looked else "locked")
        return False

    def look(self) -> bool:
        """Read once more before sleeping."""
        self.turn("look")
        self.has_looked = True
        return self.deliver()

    def _loop(self) -> None:
        try:
            with self:
                while True:
                    self.turn("read")
                    self.has_looked = False
                    if not self.deliver():
                        self.sleep(self.look, lambda: 1e9, Pulse())
        except Ended:
            pass
        finally:
            connection.close()
            self.at = "ended"
            self._arrived.release()


class SteppedLock(BellLock):
    """The lock of a stepped bell, which waits for its turn before it is taken."""

    def __init__(self, bell: SteppedBell) -> None:
        super().__init__(bell._connection)
        self.turn = bell.turn

    def take(self) -> bool:
        self.turn("lock")
        return super().take()


SteppedBell.lock_class = SteppedLock


class Sleeper:
    """One process, which delivers to a consumer of its own."""

    def __init__(self, machine: "BellMachine") -> None:
        self.machine = machine
        self.delivered = machine.visible()
        self.bell = machine.bell_class(self.deliver)
        self.bell.step()

    @property
    def missing(self) -> int:
        """How many committed changes it has yet to deliver."""
        return self.machine.visible() - self.delivered

    def deliver(self) -> bool:
        before, self.delivered = self.delivered, self.machine.visible()
        return self.delivered > before

    def fall_asleep(self) -> None:
        """Let it come as far as it can: asleep, and not woken by what has rung so far."""
        asleep = 0
        for _ in range(20):
            self.bell.step()
            asleep += self.bell.at == "asleep"
            if asleep == 3:
                return


class BellMachine(ScheduledMachine):
    """Transactions that log and ring, and two who sleep: only one of them can have the lock."""

    connections: list[Any] = []
    reader: Any = None
    bell_class = SteppedBell
    count = 2

    def __init__(self) -> None:
        super().__init__()
        self.depth = [0, 0, 0]
        """Of each writer: 0 outside a transaction, else 1 and its savepoints."""
        self.prepared: list[str] = []
        self.sleepers = [Sleeper(self) for _ in range(self.count)]

    def visible(self) -> int:
        ((count,),) = self.reader.execute("SELECT count(*) FROM public.hc_signals_change").fetchall()
        return int(count)

    def ring(self, writer: Any) -> None:
        writer.execute("SELECT public.hc_signals_ring()")

    @scheduled(number=writers)
    def log(self, number: int) -> None:
        """What the capture trigger does: log, then ring."""
        if not self.depth[number]:
            self.connections[number].execute("BEGIN")
            self.depth[number] = 1
        self.connections[number].execute(INSERT)
        self.ring(self.connections[number])

    @scheduled(number=writers)
    def savepoint(self, number: int) -> None:
        if self.depth[number]:
            self.connections[number].execute(f"SAVEPOINT s{self.depth[number]}")
            self.depth[number] += 1

    @scheduled(number=writers)
    def roll_back_to_savepoint(self, number: int) -> None:
        """Gives back a share of the lock that was taken since."""
        if self.depth[number] > 1:
            self.depth[number] -= 1
            self.connections[number].execute(f"ROLLBACK TO SAVEPOINT s{self.depth[number]}")

    @scheduled(number=writers, keep=st.sampled_from([True, True, False]))
    def end(self, number: int, keep: bool) -> None:
        if self.depth[number]:
            self.connections[number].execute("COMMIT" if keep else "ROLLBACK")
            self.depth[number] = 0

    @scheduled(number=writers)
    def prepare(self, number: int) -> None:
        """The share of the lock outlives the connection's transaction; who has rung may not."""
        if self.depth[number] and len(self.prepared) < 2:
            name = own(f"bell {time.monotonic_ns()}")
            self.depth[number] = 0
            try:
                self.connections[number].execute(f"PREPARE TRANSACTION '{name}'")
                self.prepared.append(name)
            except (psycopg.errors.FeatureNotSupported, psycopg.errors.ObjectNotInPrerequisiteState):
                self.connections[number].execute("ROLLBACK")

    @scheduled()
    def commit_prepared(self) -> None:
        if self.prepared:
            self.reader.execute(f"COMMIT PREPARED '{self.prepared.pop()}'")

    @scheduled(number=sleepers, steps=st.integers(1, 3))
    def step(self, number: int, steps: int) -> None:
        for _ in range(steps):
            self.sleepers[number % self.count].bell.step()

    @scheduled(number=sleepers)
    def fall_asleep(self, number: int) -> None:
        self.sleepers[number % self.count].fall_asleep()

    @scheduled()
    def look_after_all(self) -> None:
        """End every transaction: whatever was committed is delivered without a further ring."""
        for number in range(3):
            self.end(number, True)
        while self.prepared:
            self.commit_prepared()
        deadline = time.monotonic() + WAKE_TIMEOUT
        while late := [sleeper for sleeper in self.sleepers if sleeper.missing]:
            assert time.monotonic() < deadline, f"asleep, with {late[0].missing} to deliver"
            for sleeper in self.sleepers:
                sleeper.bell.step()

    def teardown(self) -> None:
        try:
            self.look_after_all()
        finally:
            for sleeper in self.sleepers:
                sleeper.bell.end()
            for writer in self.connections:
                writer.execute("ROLLBACK")


@pytest.fixture
def machine(heroku: Any) -> Iterator[type[BellMachine]]:
    """The machine with three connections to write on; a writer that holds nothing says ROLLBACK without a warning."""
    opened = [new_connection() for _ in range(4)]
    for one in opened:
        one.execute("SET client_min_messages = error")
    yield type("Machine", (BellMachine,), {"connections": opened[:3], "reader": opened[3]})
    for one in opened:
        one.close()


@pytest.mark.parametrize("schedule", schedules_of("BellMachine"))
def test_schedule_passes(machine: type[BellMachine], schedule: Schedule) -> None:
    """``make schedule FILE=…`` runs one that a failure has written."""
    assert repeat(machine, schedule) == ""


def test_no_worker_sleeps_through_a_change(machine: type[BellMachine]) -> None:
    run(machine, machine_settings(examples=40, steps=30))


class BellWithoutLook(SteppedBell):
    """Reads, and then falls asleep: what was committed in between has not rung."""

    def look(self) -> bool:
        self.turn("look")
        self.has_looked = True
        return False


class FlagInTable(SteppedLock):
    """Says in a table that the process sleeps."""

    def take(self) -> bool:
        self.turn("lock")
        self._set("true")
        return True

    def release(self, *, notify: bool) -> None:
        self._set("false")

    def _set(self, value: str) -> None:
        assert self._connection.raw is not None
        self._connection.raw.execute(f"UPDATE machine_asleep SET asleep = {value}")


class BellWithFlag(SteppedBell):
    lock_class = FlagInTable


def _ring_by_flag(self: BellMachine, writer: Any) -> None:
    writer.execute(f"SELECT pg_notify('{CHANNEL}', '') FROM machine_asleep WHERE asleep")


def _ring_at_once(self: BellMachine, writer: Any) -> None:
    """Rings from another connection, before the commit."""
    ((shared,),) = writer.execute("SELECT pg_try_advisory_xact_lock_shared(%s, %s)", BELL).fetchall()
    if not shared:
        self.reader.execute(f"SELECT pg_notify('{CHANNEL}', '')")


def _commit_between_read_and_lock(machine: BellMachine) -> None:
    """A change that need not ring is committed before the sleeper has the lock."""
    machine.sleepers[0].bell.step_to("lock")
    machine.log(0)
    machine.end(0, True)
    machine.fall_asleep(0)


def _commit_after_falling_asleep(machine: BellMachine) -> None:
    """A writer checks the bell while no process sleeps, and commits while one tries to."""
    machine.sleepers[0].bell.step_to("lock")
    machine.log(0)
    machine.fall_asleep(0)
    machine.end(0, True)


def _commit_after_a_ring(machine: BellMachine) -> None:
    """A ring goes out long before the change can be seen."""
    machine.fall_asleep(0)
    machine.log(0)
    machine.fall_asleep(0)
    machine.end(0, True)


@pytest.mark.parametrize(
    ("schedule", "wrong"),
    [
        (_commit_between_read_and_lock, {"bell_class": BellWithoutLook}),
        (_commit_after_falling_asleep, {"bell_class": BellWithFlag, "ring": _ring_by_flag}),
        (_commit_after_a_ring, {"ring": _ring_at_once}),
    ],
    ids=["reads_then_sleeps", "flag_in_a_table", "rings_before_the_commit"],
)
def test_machine_finds_each_wrong_doorbell(
    machine: type[BellMachine], schedule: Callable[[BellMachine], None], wrong: dict[str, Any]
) -> None:
    machine.count = 1
    right = machine()
    schedule(right)
    right.teardown()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE machine_asleep AS SELECT false AS asleep")
    try:
        other: BellMachine = type("Wrong", (machine,), wrong)()
        schedule(other)
        with pytest.raises(AssertionError, match="asleep, with 1 to deliver"):
            other.teardown()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE machine_asleep")
