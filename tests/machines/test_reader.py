"""Hypothesis steps writers and a worker in any order: no change is lost, repeated, out of order or stuck.

For more than the few fixed examples: ``MACHINE_EXAMPLES=2000 pytest tests/machines/test_reader.py``.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from example.crm.models import Account
from hypothesis import strategies as st

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.delivery.failures import waiting_shards
from hc_signals.log import window
from hc_signals.log.claims import Claim
from hc_signals.worker.loop import Worker
from tests.chaos import mutations
from tests.machines.machine import (
    KNOWN,
    Schedule,
    ScheduledMachine,
    machine_settings,
    new_connection,
    repeat,
    run,
    scheduled,
    schedules_of,
    steps_of,
)
from tests.server import own

RECORDS = ["A", "B", "C"]
MANY_PAGES = 150
"""More pages than any example needs."""
Line = tuple[str, str, int]
"""A line of a ledger: record, change type and value."""
Written = list[tuple[Line, int | None]]
"""The lines that a transaction wrote, each with the value that the record had before."""

writers = st.integers(0, 2)
records = st.sampled_from(RECORDS)
kinds = st.sampled_from(["update", "rekey", "delete"])


class Crash(KeyboardInterrupt):
    """The worker's process dies, by a Ctrl-C: any other exception would be stored as a failure of the receiver."""


class WriterModel:
    """One connection, and the lines of its open transaction by level of savepoint."""

    def __init__(self) -> None:
        self.connection = new_connection()
        self.levels: list[Written] = []

    def begin(self) -> None:
        if not self.levels:
            self.connection.execute("BEGIN")
            self.levels = [[]]

    def end(self, sql: str) -> Written:
        """End the transaction; return the lines that it had written."""
        self.connection.execute(sql)
        written = [change for level in self.levels for change in level]
        self.levels = []
        return written


class ReaderMachine(ScheduledMachine):
    """Transactions of every kind on a few records, and a worker that delivers a page now and then."""

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
        self.truth: dict[str, list[Line]] = defaultdict(list)
        self.number = 0
        self.shards, self.size, self.calls_left, self.stop_after = 1, 3, -1, -1
        self.worker = self.new_worker()
        signals.record_changed.connect(self.receive, sender=Account, weak=False)

    # -- writers

    @scheduled(number=writers, chosen=st.lists(records, min_size=1, max_size=3), kind=kinds)
    def change(self, number: int, chosen: list[str], kind: str) -> None:
        """Create, change or delete records that no other transaction has locked."""
        writer = self.connections[number]
        for record in chosen:
            if self.locked.get(record, writer) is writer:
                self.change_one(writer, record, kind)

    @scheduled(number=writers, record=records, kind=kinds)
    def change_at_once(self, number: int, record: str, kind: str) -> None:
        """The most common transaction: one change, committed."""
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

    @scheduled(number=writers)
    def take_xid(self, number: int) -> None:
        """Draw a transaction id long before the first write, or without any."""
        self.connections[number].begin()
        self.connections[number].connection.execute("SELECT pg_current_xact_id()")

    @scheduled(number=writers)
    def savepoint(self, number: int) -> None:
        writer = self.connections[number]
        if writer.levels:
            writer.connection.execute(f"SAVEPOINT s{len(writer.levels)}")
            writer.levels.append([])

    @scheduled(number=writers)
    def roll_back_to_savepoint(self, number: int) -> None:
        writer = self.connections[number]
        if len(writer.levels) > 1:
            self.take_back(writer.levels.pop())
            writer.connection.execute(f"ROLLBACK TO SAVEPOINT s{len(writer.levels)}")

    @scheduled(number=writers, keep=st.sampled_from([True, True, True, False]))
    def end(self, number: int, keep: bool) -> None:
        """Commit, or roll back."""
        writer = self.connections[number]
        if writer.levels:
            self.finish(writer, writer.end("COMMIT" if keep else "ROLLBACK"), keep)

    @scheduled(number=writers)
    def prepare(self, number: int) -> None:
        """End the first phase of a two-phase commit; the locks stay."""
        writer = self.connections[number]
        if writer.levels and self.two_phase:
            self.number += 1
            name = own(f"machine {self.number}")
            self.prepared[name] = writer.end(f"PREPARE TRANSACTION '{name}'")
            for record in [record for record, holder in self.locked.items() if holder is writer]:
                self.locked[record] = name

    @scheduled(keep=st.booleans())
    def end_prepared(self, keep: bool) -> None:
        """End the second phase, from another connection."""
        if self.prepared:
            name, written = self.prepared.popitem()
            with connection.cursor() as cursor:
                cursor.execute(f"{'COMMIT' if keep else 'ROLLBACK'} PREPARED '{name}'")
            self.finish(name, written, keep)

    def finish(self, holder: Any, written: Written, keep: bool) -> None:
        if keep:
            for line, _ in written:
                self.truth[line[0]].append(line)
        else:
            self.take_back(written)
        self.locked = {record: other for record, other in self.locked.items() if other is not holder}

    def take_back(self, written: Written) -> None:
        for (record, _, _), before in reversed(written):
            self.values[record] = before

    # -- the worker

    @scheduled(shard=st.integers(0, 2), crash=st.integers(-1, 3), stop=st.integers(-1, 2))
    def page(self, shard: int, crash: int, stop: int) -> None:
        """Deliver one page of one shard; the process may die on the way, or be stopped."""
        self.calls_left, self.stop_after = crash, stop
        try:
            self.worker.shards[shard % self.shards].deliver_page()
        except Crash:
            self.worker = self.new_worker()
        self.calls_left = self.stop_after = -1
        self.worker.stopping.clear()

    @scheduled(size=st.integers(1, 5))
    def restart(self, size: int) -> None:
        """Start another process, with pages of another size."""
        self.size = size
        self.worker = self.new_worker()

    @scheduled(shards=st.integers(1, 3), crash=st.integers(-1, 3))
    def reshard(self, shards: int, crash: int) -> None:
        """Change the number of shards; the worker that does it may die on the way."""
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

    @scheduled()
    def drain(self) -> None:
        """Deliver while shards have changes: after that all that is committed must be delivered, whatever is open."""
        for _ in range(MANY_PAGES):
            waiting = waiting_shards("default", self.worker.conf)[0]
            if not waiting:
                break
            for shard in waiting:
                self.worker.shards[shard].deliver_page()
        self.compare()
        assert not waiting, "a shard waits forever"

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
        """Compare the ledger with the committed changes, record by record."""
        got: dict[str, list[Line]] = defaultdict(list)
        with connection.cursor() as cursor:
            cursor.execute("SELECT record, operation, value::integer FROM machine_ledger ORDER BY id")
            for line in cursor.fetchall():
                got[line[0]].append(line)
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
    """Return the machine on empty tables, with three connections for writers."""
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


@pytest.mark.parametrize("schedule", schedules_of("ReaderMachine"))
def test_schedule_passes(machine: type[ReaderMachine], schedule: Schedule) -> None:
    """``make schedule FILE=…`` runs one that a failure has written."""
    assert repeat(machine, schedule) == ""


def test_no_schedule_loses_doubles_inverts_or_stalls(machine: type[ReaderMachine]) -> None:
    run(machine, machine_settings(examples=25, steps=40))


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the worker's reading wrong, in the way of that name, for one test."""
    for name in ("open_window", "page", "close_window"):
        monkeypatch.setattr(Claim, name, getattr(Claim, name))  # put back afterwards
    monkeypatch.setattr(window, "read_page", window.read_page)
    return lambda name: getattr(mutations, name)()


@pytest.mark.parametrize(
    ("schedule", "name", "finding"),
    [
        ("commit_late", "id_cursor", "lost"),
        ("commit_beside_an_open_transaction", "xmin_watermark", "lost"),
        ("change_with_an_old_xid", "xmin_watermark", "out of order"),
        ("stay_open_above_xmax", "floor_from_xmax", "lost"),
    ],
)
def test_schedule_finds_each_wrong_reader(
    machine: type[ReaderMachine], wrong: Callable[[str], None], schedule: str, name: str, finding: str
) -> None:
    wrong(name)
    assert repeat(machine, steps_of(KNOWN / f"{schedule}.json")) == finding


@pytest.mark.parametrize("name", ["xmin_watermark", "floor_from_xmax"])
def test_failure_has_a_short_schedule_that_repeats_it(
    machine: Any, wrong: Callable[[str], None], tmp_path: Path, name: str
) -> None:
    wrong(name)
    machine.resharding, file = False, tmp_path / "schedule.json"
    with pytest.raises(AssertionError) as failure:
        run(machine, machine_settings(examples=400, steps=40, shrink=False), file)
    schedule = steps_of(file)
    assert len(schedule) < 20
    assert any(f"repeats it: {len(schedule)} steps" in note for note in failure.value.__notes__)
    kinds = {repeat(machine, schedule) for _ in range(100)}
    assert kinds in ({"lost"}, {"out of order"})
