"""Records what workers and writers of a chaos run do, one line of JSON per step: specs/follows.py checks the lines.

The product has nothing of it: :func:`record_worker` wraps some functions in the worker's process. Each process has a
file of its own, and each step is written at once, so it survives ``kill -9``. Times are nanoseconds of CLOCK_MONOTONIC,
which all processes of a machine share: ``t`` of the line; ``t0`` when the recorded call began. Whatever gives a lock
back or commits is recorded before it is sent, and its outcome afterwards.
"""

import functools
import itertools
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

_transactions = itertools.count(1)
_of_thread = threading.local()

_SHARES = """
SELECT pg_current_xact_id_if_assigned()::text, coalesce(bool_or(objid = 1), false), coalesce(bool_or(objid = 2), false)
FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND classid = 1212372819 AND objsubid = 2
AND mode = 'ShareLock' AND granted
"""
"""The writer's transaction; whether it shares BELL and UNTOLD of hc_signals/postgres/locks.py."""


class Recorder:
    """Appends the steps of one process to a file.

    Args:
        about: of the process, in each line's file: its first step.
    """

    def __init__(self, file: Path, **about: Any) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.step("process", **about)

    def step(self, name: str, **facts: Any) -> None:
        """Append one step."""
        line = {"t": time.monotonic_ns(), "step": name, "thread": threading.get_native_id(), **facts}
        os.write(self._file, (json.dumps(line, separators=(",", ":"), default=str) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _around(owner: Any, name: str, recorded: Callable[..., Any]) -> None:
    """Replace a function or method by ``recorded``, which gets the original as its first argument."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*args: Any, **named: Any) -> Any:
        return recorded(original, *args, **named)

    setattr(owner, name, call)


def record_worker(recorder: Recorder) -> None:
    """Record the steps of this worker process from now on. Install wrong readers before."""
    _record_reader(recorder)
    _record_transactions(recorder)
    _record_bell(recorder)


def _position(position: Any) -> dict[str, Any]:
    facts = {**vars(position)}
    facts.pop("gap")
    return facts


def _transaction(connection: Any) -> int | None:
    """Return the number of the connection's transaction, if it has claimed a shard."""
    return connection.__dict__.get("recorded_transaction")


def _record_reader(recorder: Recorder) -> None:
    from django.db import connections

    from hc_signals.delivery.shard import Shard
    from hc_signals.log import claims, layout, positions
    from hc_signals.log.claims import Claim

    def begin(original: Any, *args: Any, **named: Any) -> Any:
        _of_thread.began = time.monotonic_ns()
        return original(*args, **named)

    def connection_of(claim: Any) -> Any:
        return connections[claim.shard.using] if claim._held is None else claim._held._connection

    def claim(original: Any, self: Any, shard: Any, standing: Any, **named: Any) -> None:
        original(self, shard, standing, **named)
        connection = connection_of(self)
        if _transaction(connection) is None:
            connection.recorded_transaction = next(_transactions)
        self.recorded_transaction = _of_thread.transaction = _transaction(connection)
        recorder.step(
            "claim",
            t0=_of_thread.began,
            tx=self.recorded_transaction,
            **_shard(shard),
            position=None if standing.is_new else _position(standing.position),
            layout=standing.layout,
            newest_id=standing.newest_id,
            lost=standing.lost,
        )

    def open_window(original: Any, self: Any) -> Any:
        began = time.monotonic_ns()
        position = original(self)
        began = _of_thread.began if self.standing.now else began
        recorder.step(
            "open", t0=began, tx=self.recorded_transaction, **_shard(self.shard), position=_position(position)
        )
        return position

    def deliver(original: Any, self: Any, claim: Any, batch: Any, position: Any, *args: Any) -> Any:
        ids, window = [change.id for change in batch.changes], _position(position)
        facts = {**_shard(claim.shard), "position": window, "ids": ids, "more": batch.has_more}
        recorder.step("page", tx=claim.recorded_transaction, **facts)
        return original(self, claim, batch, position, *args)

    def report_gap(original: Any, self: Any, gap: Any, *args: Any) -> Any:
        recorder.step("gap", tx=_of_thread.transaction, **_shard(self.log), cause=gap["cause"])
        return original(self, gap, *args)

    def append(original: Any, shard: Any, position: Any, heard: Any, run: Any) -> Any:
        held = getattr(run, "__self__", None)
        connection = connections[run.args[0]] if held is None else held._connection
        recorder.step("store", tx=_transaction(connection), **_shard(shard), position=_position(position))
        return original(shard, position, heard, run)

    def forget_layout(original: Any, using: str, consumer: str, shards: int) -> None:
        recorder.step("forget", tx=_transaction(connections[using]), consumer=consumer, shards=shards)
        original(using, consumer, shards)

    _around(claims, "claim_with_page", begin)
    _around(positions, "read_standing", begin)
    _around(Claim, "__init__", claim)
    _around(Claim, "open_window", open_window)
    _around(Shard, "_deliver", deliver)
    _around(Shard, "_report_gap", report_gap)
    _around(positions, "append", append)
    _around(layout, "forget_layout", forget_layout)


def _shard(shard: Any) -> dict[str, Any]:
    return {"consumer": shard.consumer, "shard": shard.shard, "shards": shard.shards}


def _record_transactions(recorder: Recorder) -> None:
    """Record how the transactions end that have claimed a shard."""
    from django.db.backends.base.base import BaseDatabaseWrapper

    def end(connection: Any, how: str) -> None:
        if (number := connection.__dict__.pop("recorded_transaction", None)) is not None:
            recorder.step("ended", tx=number, how=how)

    def commit(original: Any, self: Any) -> None:
        if (number := _transaction(self)) is not None:
            recorder.step("commit", tx=number)
        try:
            original(self)
        except BaseException:
            end(self, "unknown")
            raise
        end(self, "committed")

    def undo(original: Any, self: Any) -> None:
        try:
            original(self)
        finally:
            end(self, "undone")

    _around(BaseDatabaseWrapper, "_commit", commit)
    _around(BaseDatabaseWrapper, "_rollback", undo)
    _around(BaseDatabaseWrapper, "close", undo)


def _elsewhere(is_waiting: Any) -> set[int]:
    """Return the shards that the worker does not wait for: another one has them."""
    return getattr(getattr(is_waiting, "__self__", None), "_elsewhere", set())


def _record_bell(recorder: Recorder) -> None:
    from hc_signals.worker.bell_connection import BellConnection
    from hc_signals.worker.bell_lock import BellLock
    from hc_signals.worker.doorbell import Doorbell

    def connect(original: Any, self: Any) -> None:
        original(self)
        recorder.step("bell.connected")

    def hang_up(original: Any, self: Any) -> None:
        recorder.step("bell.closed")
        original(self)

    def receive(original: Any, self: Any, seconds: float) -> Any:
        began = time.monotonic_ns()
        rung = original(self, seconds)
        if not getattr(_of_thread, "pings", False):
            recorder.step("bell.receive", t0=began, rung=rung)
        return rung

    def ping(original: Any, self: Any) -> Any:
        began, _of_thread.pings = time.monotonic_ns(), True
        try:
            rung = original(self)
        finally:
            _of_thread.pings = False
        recorder.step("bell.ping", t0=began, rung=bool(rung))
        return rung

    def take(original: Any, self: Any) -> Any:
        began = time.monotonic_ns()
        result = original(self)
        state = "held" if self.is_held else "other" if result else "refused"
        recorder.step("bell.try", t0=began, state=state)
        return result

    def release(original: Any, self: Any, *, notify: bool) -> None:
        if self.is_held:
            recorder.step("bell.release", notify=notify)
        original(self, notify=notify)

    def finish_release(original: Any, self: Any) -> None:
        began, is_releasing = time.monotonic_ns(), self.is_releasing
        original(self)
        if is_releasing:
            recorder.step("bell.released", t0=began)

    def sleep(original: Any, self: Any, is_waiting: Any, *args: Any) -> None:
        def read() -> Any:
            began, elsewhere = time.monotonic_ns(), sorted(_elsewhere(is_waiting))
            waiting = is_waiting()
            recorder.step("bell.read", t0=began, waiting=waiting, elsewhere=elsewhere)
            return waiting

        recorder.step("bell.sleep")
        try:
            original(self, read, *args)
        finally:
            recorder.step("bell.up")

    def listen(original: Any, self: Any, seconds: float) -> None:
        recorder.step("bell.wait", listens=True)
        original(self, seconds)

    def wait(original: Any, self: Any, seconds: float, rings: int) -> None:
        recorder.step("bell.wait", listens=False)
        original(self, seconds, rings)

    def wake(original: Any, self: Any) -> None:
        recorder.step("bell.wake")
        original(self)

    for owner, recorded in ((BellConnection, (connect, hang_up, receive)), (BellLock, (take, release, finish_release))):
        for each in recorded:
            _around(owner, each.__name__, each)
    _around(BellConnection, "_ping", ping)
    _around(BellConnection, "_sync", ping)
    _around(Doorbell, "sleep", sleep)
    _around(Doorbell, "_listen", listen)
    _around(Doorbell, "_wait_for_listener", wait)
    _around(Doorbell, "_wake_all", wake)


class RecordedConnection(psycopg.Connection[Any]):
    """The connection of a writer. After each of its statements it asks which of the bell's locks it shares."""

    recorder: Recorder
    changes = "chaos_change"
    """Statements with this text change connected tables."""
    prepared: dict[str, str] = {}
    """The transactions of two-phase commits, by name."""
    _xid: str | None = None
    _is_uncaptured = False
    """A change of the transaction is not in the log. The ledgers know of no lost change, so it is rolled back."""

    def execute(self, query: Any, params: Any = None, **named: Any) -> Any:
        """Execute a statement, and record a change or the end of a prepared transaction."""
        if self.changes in query:
            began = time.monotonic_ns()
            result = super().execute(query, params, **named)
            self._show("write", t0=began, t1=time.monotonic_ns())
            return result
        if self._is_uncaptured and query.startswith("PREPARE"):
            raise psycopg.errors.FeatureNotSupported
        words = query.replace("'", " ").split(maxsplit=2)
        if words[1:2] != ["PREPARED"]:
            result = super().execute(query, params, **named)
            if words[0] == "PREPARE" and self._xid is not None:
                self.prepared[words[2].strip()], self._xid = self._xid, None
            return result
        xid = self.prepared.pop(words[2].strip(), None)
        with self._ending(xid, "committed" if words[0] == "COMMIT" else "undone"):
            return super().execute(query, params, **named)

    def commit(self) -> None:
        """Commit, and record it."""
        if self._is_uncaptured:
            time.sleep(random.random() * 0.05)  # the worker must not report the gap yet
            self.rollback()
            return
        xid, self._xid = self._xid, None
        with self._ending(xid, "committed"):
            super().commit()

    def rollback(self) -> None:
        """Roll back, and record it."""
        xid, self._xid, self._is_uncaptured = self._xid, None, False
        is_failed = self.info.transaction_status != psycopg.pq.TransactionStatus.INTRANS
        with self._ending(xid, "failed" if is_failed else "undone"):
            super().rollback()

    @contextmanager
    def transaction(self, *args: Any, **named: Any) -> Iterator[Any]:
        """Make a savepoint, and record it if it is rolled back; without a transaction, make one of the block."""
        if self.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            try:
                yield
            except BaseException:
                self.rollback()
                raise
            self.commit()
            return
        began = time.monotonic_ns()
        try:
            with super().transaction(*args, **named) as block:
                yield block
        except psycopg.Error:
            raise
        except BaseException:
            self._show("back", t0=began)
            raise

    def _show(self, step: str, **times: int) -> None:
        xid, bell, untold = super().execute(_SHARES, [], prepare=False).fetchone() or (None, False, False)
        self._xid, self._is_uncaptured = xid or self._xid, self._is_uncaptured or untold
        self.recorder.step(step, xid=xid, bell=bell, untold=untold, **times)

    @contextmanager
    def _ending(self, xid: str | None, how: str) -> Iterator[None]:
        if xid is None:
            yield
            return
        self.recorder.step("end", xid=xid)
        try:
            yield
        except BaseException:
            self.recorder.step("end.seen", xid=xid, how="unknown")
            raise
        self.recorder.step("end.seen", xid=xid, how=how)


_LOG = """
COPY (
    SELECT id, xid, hashtextextended(table_name || ' ' || coalesce(record_id, record_key, ''), 0) & 9223372036854775807
    FROM public.hc_signals_change ORDER BY id
) TO STDOUT
"""
_POSITIONS = "SELECT consumer, shard, to_json(p) FROM public.hc_signals_newest_position p"


def record_end(connection: "psycopg.Connection[Any]", directory: Path) -> None:
    """Write what the database has at the end: the log and the positions."""
    with (directory / "log.txt").open("wb") as file, connection.cursor().copy(_LOG) as copy:
        for block in copy:
            file.write(block)
    recorder = Recorder(directory / "end.jsonl")
    for consumer, shard, position in connection.execute(_POSITIONS).fetchall():
        recorder.step("position", consumer=consumer, shard=shard, position=position)
    recorder.close()
