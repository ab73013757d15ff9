"""Writers and a reader stepped by Hypothesis in any order: nothing lost, nothing twice, each record in order, no stall.

More than the few fixed examples: ``MACHINE_EXAMPLES=2000 pytest tests/test_reader_machine.py``.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from example.crm.models import Account
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.delivery.waiting import waiting_shards
from hc_signals.log.changelog import ChangeLog
from hc_signals.worker.loop import Worker
from tests.chaos import mutations
from tests.machine import machine_settings, new_connection
from tests.server import own

RECORDS = ["A", "B", "C"]
MANY_PAGES = 150
"""More than it takes to deliver whatever one example writes."""
Told = tuple[str, str, int]
"""Record, change type and value: one line of a ledger."""
Written = list[tuple[Told, int | None]]
"""What a transaction wrote, each with the value that the record had before."""

writers = st.integers(0, 2)
records = st.sampled_from(RECORDS)
kinds = st.sampled_from(["update", "rekey", "delete"])


class Crash(KeyboardInterrupt):
    """The reader's process dies, by a Ctrl-C: any other exception would be kept as the receiver's failure."""


class WriterModel:
    """One connection, what it has written in its open transaction, and the levels of its savepoints."""

    def __init__(self) -> None:
        self.connection = new_connection()
        self.levels: list[Written] = []

    def begin(self) -> None:
        if not self.levels:
            self.connection.execute("BEGIN")
            self.levels = [[]]

    def end(self, sql: str) -> Written:
        """End the transaction; return what it had written."""
        self.connection.execute(sql)
        written = [change for level in self.levels for change in level]
        self.levels = []
        return written


class ReaderMachine(RuleBasedStateMachine):
    """Transactions of every kind on a few records, and a reader that is asked for a page now and then."""

    resharding = True
    connections: list[WriterModel] = []
    two_phase = False

    def __init__(self) -> None:
        super().__init__()
        with connection.cursor() as cursor:  # DELETE, because TRUNCATE takes longer than a whole example
            for table in ("salesforce.account", "hc_signals_change", "hc_signals_position", "machine_ledger"):
                cursor.execute(f"DELETE FROM {table}")
        self.values: dict[str, int | None] = dict.fromkeys(RECORDS)
        self.locked: dict[str, Any] = {}
        self.prepared: dict[str, Written] = {}
        self.truth: dict[str, list[Told]] = defaultdict(list)
        self.number = 0
        self.shards, self.size, self.calls_left, self.stop_after = 1, 3, -1, -1
        self.worker = self.new_worker()
        signals.record_changed.connect(self.receive, sender=Account, weak=False)

    # -- writers

    @rule(number=writers, chosen=st.lists(records, min_size=1, max_size=3), kind=kinds)
    def change(self, number: int, chosen: list[str], kind: str) -> None:
        """Create, change or delete records, if nobody else has their locks."""
        writer = self.connections[number]
        for record in chosen:
            if self.locked.get(record, writer) is writer:
                self.change_one(writer, record, kind)

    @rule(number=writers, record=records, kind=kinds)
    def change_at_once(self, number: int, record: str, kind: str) -> None:
        """The commonest transaction of all: one change, committed."""
        if not self.connections[number].levels and record not in self.locked:
            self.change(number, [record], kind)
            self.end(number, True)

    def change_one(self, writer: WriterModel, record: str, kind: str) -> None:
        writer.begin()
        self.locked[record] = writer
        self.number += 1
        before = self.values[record]
        if before is None:
            self.note(writer, "CREATE", record, self.number)
            sql = "INSERT INTO salesforce.account (numberofemployees, sfid) VALUES (%s, %s)"
        elif kind == "delete":
            self.note(writer, "DELETE", record, before)
            sql = "DELETE FROM salesforce.account WHERE %s > 0 AND sfid = %s"
        else:
            sql = "UPDATE salesforce.account SET numberofemployees = %s WHERE sfid = %s"
            if kind == "rekey":
                self.note(writer, "DELETE", record, before)
                sql = sql.replace("SET", "SET id = nextval('salesforce.account_id_seq'),")
            self.note(writer, "CREATE" if kind == "rekey" else "UPDATE", record, self.number)
        writer.connection.execute(sql, [self.number, record])

    def note(self, writer: WriterModel, operation: str, record: str, value: int) -> None:
        writer.levels[-1].append(((record, operation, value), self.values[record]))
        self.values[record] = None if operation == "DELETE" else value

    @rule(number=writers)
    def take_xid(self, number: int) -> None:
        """Get a transaction id long before anything is written; or be a stranger who never writes here."""
        self.connections[number].begin()
        self.connections[number].connection.execute("SELECT pg_current_xact_id()")

    @rule(number=writers)
    def savepoint(self, number: int) -> None:
        writer = self.connections[number]
        if writer.levels:
            writer.connection.execute(f"SAVEPOINT s{len(writer.levels)}")
            writer.levels.append([])

    @rule(number=writers)
    def roll_back_to_savepoint(self, number: int) -> None:
        writer = self.connections[number]
        if len(writer.levels) > 1:
            self.take_back(writer.levels.pop())
            writer.connection.execute(f"ROLLBACK TO SAVEPOINT s{len(writer.levels)}")

    @rule(number=writers, keep=st.sampled_from([True, True, True, False]))
    def end(self, number: int, keep: bool) -> None:
        """Commit, or roll back."""
        writer = self.connections[number]
        if writer.levels:
            self.settle(writer, writer.end("COMMIT" if keep else "ROLLBACK"), keep)

    @rule(number=writers)
    def prepare(self, number: int) -> None:
        """End the first phase of a two-phase commit; the locks stay."""
        writer = self.connections[number]
        if writer.levels and self.two_phase:
            self.number += 1
            name = own(f"machine {self.number}")
            self.prepared[name] = writer.end(f"PREPARE TRANSACTION '{name}'")
            for record in [record for record, holder in self.locked.items() if holder is writer]:
                self.locked[record] = name

    @rule(keep=st.booleans())
    def end_prepared(self, keep: bool) -> None:
        """End the second phase, from another connection."""
        if self.prepared:
            name, written = self.prepared.popitem()
            with connection.cursor() as cursor:
                cursor.execute(f"{'COMMIT' if keep else 'ROLLBACK'} PREPARED '{name}'")
            self.settle(name, written, keep)

    def settle(self, holder: Any, written: Written, keep: bool) -> None:
        if keep:
            for told, _ in written:
                self.truth[told[0]].append(told)
        else:
            self.take_back(written)
        self.locked = {record: other for record, other in self.locked.items() if other is not holder}

    def take_back(self, written: Written) -> None:
        for (record, _, _), before in reversed(written):
            self.values[record] = before

    # -- the reader

    @rule(shard=st.integers(0, 2), crash=st.integers(-1, 3), stop=st.integers(-1, 2))
    def page(self, shard: int, crash: int, stop: int) -> None:
        """Deliver one page of one shard; its process may die within it, or be asked to stop."""
        self.calls_left, self.stop_after = crash, stop
        try:
            self.worker.shards[shard % self.shards].deliver_page()
        except Crash:
            self.worker = self.new_worker()
        self.calls_left = self.stop_after = -1
        self.worker.stopping.clear()

    @rule(size=st.integers(1, 5))
    def restart(self, size: int) -> None:
        """Another process, with pages of another size."""
        self.size = size
        self.worker = self.new_worker()

    @rule(shards=st.integers(1, 3), crash=st.integers(-1, 3))
    def reshard(self, shards: int, crash: int) -> None:
        """Another number of shards; whoever brings it may die on the way."""
        if not self.resharding:
            return
        self.shards, self.calls_left = shards, crash
        for _ in range(2):
            self.worker = self.new_worker()
            try:
                self.worker.prepare()
                break
            except Crash:
                self.calls_left = -1
        self.calls_left = -1

    @rule()
    def drain(self) -> None:
        """Whoever else is open: what is committed is seen to wait, and when nothing waits any more it is delivered."""
        for _ in range(MANY_PAGES):
            waiting = waiting_shards("default", self.worker.conf)[0]
            if not waiting:
                break
            for shard in waiting:
                self.worker.shards[shard].deliver_page()
        self.compare()
        assert not waiting, "something waits for ever"

    def new_worker(self) -> Worker:
        return Worker("default", Conf(SHARDS=self.shards, BATCH_SIZE=self.size), [Account])

    def receive(self, event: Any, instance: Any, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO machine_ledger (record, operation, value) VALUES (%s, %s, %s)",
                [event.record_id, event.change_type, instance.number_of_employees],
            )
        if self.calls_left == 0:
            raise Crash
        if self.stop_after == 0:
            self.worker.stopping.set()
        self.calls_left, self.stop_after = self.calls_left - 1, self.stop_after - 1

    def compare(self) -> None:
        """The ledger is what was committed, record by record."""
        got: dict[str, list[Told]] = defaultdict(list)
        with connection.cursor() as cursor:
            cursor.execute("SELECT record, operation, value::integer FROM machine_ledger ORDER BY id")
            for told in cursor.fetchall():
                got[told[0]].append(told)
        for record in RECORDS:
            wanted, found = Counter(self.truth[record]), Counter(got[record])
            assert not wanted - found, f"lost: {wanted - found}"
            assert not found - wanted, f"twice, or never committed: {found - wanted}"
            assert self.truth[record] == got[record], "out of order"

    def teardown(self) -> None:
        try:
            while self.prepared:
                self.end_prepared(True)
            for number in range(len(self.connections)):
                self.end(number, True)
            self.drain()
        finally:
            signals.record_changed.disconnect(self.receive, sender=Account)
            for writer in self.connections:
                if writer.levels:
                    writer.end("ROLLBACK")


@pytest.fixture
def machine(captured: Any) -> Iterator[type[ReaderMachine]]:
    """The machine on fresh tables, with three connections to write on."""
    connections = [WriterModel() for _ in range(3)]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE machine_ledger (id serial, record text, operation text, value numeric)")
        cursor.execute("SHOW max_prepared_transactions")
        two_phase = cursor.fetchone()[0] != "0"
    receivers = list(signals.record_changed.receivers)
    yield type("Machine", (ReaderMachine,), {"connections": connections, "two_phase": two_phase})
    signals.record_changed.receivers = receivers  # a schedule that was cut short leaves its own
    signals.record_changed.sender_receivers_cache.clear()
    for writer in connections:
        writer.connection.close()
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE machine_ledger")


def test_no_schedule_loses_doubles_inverts_or_stalls(machine: type[ReaderMachine]) -> None:
    run_state_machine_as_test(machine, settings=machine_settings(examples=25, steps=40))


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the reader wrong, in the way of that name, for one test."""
    for name in ("open_window", "page", "close_window"):
        monkeypatch.setattr(ChangeLog, name, getattr(ChangeLog, name))  # put back afterwards
    return lambda name: getattr(mutations, name)()


def _commit_late(machine: ReaderMachine) -> None:
    """The lower id commits after the higher one was read."""
    machine.change(0, ["A"], "update")
    machine.change_at_once(1, "B", "update")
    machine.drain()
    machine.end(0, True)
    machine.drain()


def _commit_beside_a_stranger(machine: ReaderMachine) -> None:
    """Somebody who has written elsewhere stays open."""
    machine.take_xid(0)
    machine.change_at_once(1, "A", "update")
    machine.drain()


def _change_with_an_old_xid(machine: ReaderMachine) -> None:
    """The lower transaction id changes the record after the higher one."""
    machine.take_xid(0)
    machine.change_at_once(1, "A", "update")
    machine.change(0, ["A"], "update")
    machine.end(0, True)
    machine.drain()


def _stay_open_above_xmax(machine: ReaderMachine) -> None:
    """Open while the window closes: a transaction above the last that had finished then."""
    machine.change_at_once(0, "A", "update")
    machine.change(1, ["B", "C"], "update")
    machine.drain()
    machine.end(1, True)
    machine.drain()


@pytest.mark.parametrize(
    ("schedule", "name", "finding"),
    [
        (_commit_late, "id_cursor", "lost"),
        (_commit_beside_a_stranger, "xmin_watermark", "lost"),
        (_change_with_an_old_xid, "xmin_watermark", "out of order"),
        (_stay_open_above_xmax, "floor_from_xmax", "lost"),
    ],
)
def test_a_reader_known_to_be_wrong_is_found_out(
    machine: type[ReaderMachine],
    wrong: Callable[[str], None],
    schedule: Callable[[ReaderMachine], None],
    name: str,
    finding: str,
) -> None:
    right = machine()
    schedule(right)
    right.teardown()
    wrong(name)
    with pytest.raises(AssertionError, match=finding):
        schedule(machine())


def test_the_machine_finds_a_wrong_reader_by_itself(machine: Any, wrong: Callable[[str], None]) -> None:
    wrong("xmin_watermark")
    machine.resharding = False
    with pytest.raises(AssertionError, match="lost"):
        run_state_machine_as_test(machine, settings=machine_settings(examples=400, steps=40, shrink=False))
