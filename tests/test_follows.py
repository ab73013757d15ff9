"""The code follows the models: a recorded run is accepted, and each wrong reader or sleeper is refused by its rule."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from example.crm.models import Account

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.delivery.pulse import Pulse
from hc_signals.delivery.shard import Shard
from hc_signals.log import claims, layout, positions, window
from hc_signals.log.claims import Claim
from hc_signals.log.position import Position
from hc_signals.postgres.locks import BELL
from hc_signals.testing import HerokuConnect
from hc_signals.worker.bell_connection import BellConnection
from hc_signals.worker.bell_lock import BellLock
from hc_signals.worker.doorbell import Doorbell
from hc_signals.worker.loop import Worker
from specs.follows.check import check
from specs.follows.report import PROOFS, Report
from tests.chaos import mutations
from tests.chaos.recorder import RecordedConnection, Recorder, record_end, record_worker
from tests.conftest import ROOT

pytestmark = pytest.mark.django_db(transaction=True)
REPLACED = (
    *(claims, layout, positions, window, Claim, Shard, Position),
    *(mutations, BaseDatabaseWrapper, BellConnection, BellLock, Doorbell),
)
"""Modules and classes in which recorder and mutations replace functions."""


class Play:
    """A worker whose steps are recorded, and two writers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        RecordedConnection.recorder = Recorder(directory / "writers.jsonl")
        self.a, self.b = self.connect(), self.connect()
        self.number = 0

    def connect(self, kind: Any = RecordedConnection) -> Any:
        given = connection.get_connection_params()
        params = {key: value for key, value in given.items() if key not in ("cursor_factory", "context")}
        return kind.connect(**params)

    def start(self, wrong: str, conf: Conf) -> Worker:
        """Record this process as the worker, with a mutation, and return the worker."""
        if wrong:
            getattr(mutations, wrong)()
        self.conf = conf
        self.recorder = self.new_recorder("worker")
        record_worker(self.recorder)
        return Worker("default", conf, [Account])

    def new_recorder(self, process: str) -> Recorder:
        about = {"consumer": self.conf.CONSUMER, "shards": self.conf.SHARDS, "atomic": str(self.conf.ATOMIC)}
        return Recorder(self.directory / f"{process}.jsonl", **about)

    def restart(self) -> Worker:
        """Record the next steps as those of another process, and return its worker."""
        self.recorder.step = self.new_recorder("next").step  # type: ignore[method-assign]
        return Worker("default", self.conf, [Account])

    def write(self, writer: Any, count: int = 1, *, commit: bool = True) -> None:
        """Create records, as Heroku Connect."""
        for _ in range(count):
            self.number += 1
            writer.execute("SET xmlbinary = 'hex'")
            writer.execute("INSERT INTO salesforce.account (sfid) VALUES (%s)", [f"{self.number:018d}"])
        if commit:
            writer.commit()

    def close(self) -> None:
        """End the writers."""
        for writer in (self.a, self.b):
            writer.close()

    def end(self) -> Report:
        """Check the record."""
        self.close()
        with self.connect(psycopg.Connection) as other:
            record_end(other, self.directory)
        return check(self.directory)


@pytest.fixture
def play(
    captured: HerokuConnect, disconnected: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Play]:
    before = [(owner, name, value) for owner in REPLACED for name, value in vars(owner).items() if callable(value)]
    before.append((Position, "begins_late", Position.begins_late))
    monkeypatch.setattr(RecordedConnection, "changes", "salesforce.account")
    monkeypatch.setattr(BellConnection, "PING_EVERY", 0.0)
    signals.record_changed.receivers = []
    signals.record_changed.sender_receivers_cache.clear()
    played = Play(tmp_path)
    yield played
    played.close()
    connection.__dict__.pop("recorded_transaction", None)
    for owner, name, value in before:
        if vars(owner)[name] is not value:
            setattr(owner, name, value)


def commits_late(play: Play, wrong: str = "", conf: Conf = Conf()) -> None:  # noqa: B008  (frozen)
    """A transaction above the last finished one stays open while a window is opened and closed, and commits late."""
    worker = play.start(wrong, conf)
    play.write(play.b)
    worker.deliver_once()
    play.write(play.a, 2, commit=False)
    worker.deliver_once()
    play.write(play.b)
    worker.deliver_once()
    play.a.commit()
    play.write(play.b)
    worker.deliver_once()


def opens_while_writers_write(play: Play, wrong: str) -> None:
    """Changes are committed between the reads that open a window."""
    read_standing, newest_id, is_writing = positions.read_standing, mutations._newest_id, True

    def write_between() -> None:
        if is_writing:
            play.write(play.b, 2)

    def standing(shard: Any) -> Any:
        found = read_standing(shard)
        write_between()
        return found

    def newest(using: str) -> int:
        write_between()
        return newest_id(using)

    positions.read_standing, mutations._newest_id = standing, newest
    worker = play.start(wrong, Conf(ATOMIC=False))
    worker.deliver_once()
    is_writing = False
    worker.deliver_once()


def writes_between_pages(play: Play, wrong: str) -> None:
    """A window has several pages, and a change is committed between them."""
    worker = play.start(wrong, Conf(BATCH_SIZE=1))
    play.write(play.b, 3)
    worker.prepare()
    worker.shards[0].deliver_page()
    play.write(play.b)
    worker.shards[0].deliver_page()
    worker.deliver_once()
    worker.deliver_once()


def other_worker_delivers() -> None:
    """Deliver a page of the shard in another session, if the claim is free."""

    def work() -> None:
        with suppress(Exception):
            Worker("default", Conf(), [Account]).shards[0].deliver_page()
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=20)


def second_worker_during_a_page(play: Play, wrong: str) -> None:
    """Another worker begins a page of the same shard while a receiver of the first runs."""
    worker = play.start(wrong, Conf())
    play.write(play.b)
    worker.prepare()

    calls = [False, True]

    def receive(**kwargs: Any) -> None:
        if calls.pop():
            other_worker_delivers()

    signals.record_changed.connect(receive, sender=Account, weak=False)
    worker.shards[0].deliver_page()


def second_worker_before_the_claim(play: Play, wrong: str) -> None:
    """Another worker delivers a page after the first one has read the position, if it reads it before the claim."""
    worker = play.start(wrong, Conf())
    play.write(play.b)
    worker.prepare()
    read_standing = positions.read_standing

    def standing(shard: Any) -> Any:
        positions.read_standing = read_standing
        found = read_standing(shard)
        other_worker_delivers()
        return found

    positions.read_standing = standing
    worker.shards[0].deliver_page()


def session_ends_during_the_claim(play: Play) -> None:
    """The first worker is frozen after it has read the position; its session is ended, and another worker delivers."""
    worker = play.start("", Conf())
    play.write(play.b)
    worker.prepare()
    standing_of = positions.standing_of

    def freeze(*read: Any) -> Any:
        positions.standing_of = standing_of
        with play.connect(psycopg.Connection) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.connection.info.backend_pid])
        other_worker_delivers()
        return standing_of(*read)

    positions.standing_of = freeze
    with suppress(DatabaseError):
        worker.shards[0].deliver_page()
    connection.close()
    worker.deliver_once()


def delivers_without_atomic(play: Play, wrong: str) -> None:
    commits_late(play, wrong, Conf(ATOMIC=False))


def other_layout(play: Play, wrong: str) -> None:
    """A worker with another number of shards takes over; the first one goes on."""
    worker = play.start(wrong, Conf())
    play.write(play.b)
    worker.deliver_once()
    other = Worker("default", Conf(SHARDS=2), [Account])
    other.deliver_once()
    play.write(play.b)
    worker.shards[0].deliver_page()
    other.deliver_once()


def loses_a_change(play: Play, wrong: str) -> None:
    """A writer cannot log its change, and its transaction stays open."""
    worker = play.start(wrong, Conf())
    with play.connect(psycopg.Connection) as other:
        other.execute("LOCK TABLE ONLY public.hc_signals_change IN SHARE MODE")
        play.write(play.a, commit=False)
        other.rollback()
    play.write(play.b)
    worker.deliver_once()
    play.a.rollback()
    play.write(play.b)
    worker.deliver_once()


def _sleep(worker: Worker, bell: Doorbell, after_read: Callable[[], None]) -> None:
    """Sleep at the bell once; ``after_read`` is called before the sleeper listens."""

    def pause() -> float:
        after_read()
        return 600.0

    bell.sleep(worker._is_waiting, pause, Pulse())


class FewSlices(Doorbell):
    """Stops after some waits, and pings in each of them."""

    SLICE = 0.02

    def __init__(self) -> None:
        self.left = 20
        super().__init__("default", self.is_over)

    def is_over(self) -> bool:
        self.left -= 1
        return self.left < 0


def change_before_listening(play: Play, wrong: str) -> None:
    """A change is committed after the second read, before the sleeper listens."""
    worker = play.start(wrong, Conf())
    worker.deliver_once()
    with FewSlices() as bell:
        _sleep(worker, bell, lambda: play.write(play.b))
        worker.deliver_once()


def change_before_the_lock(play: Play, wrong: str) -> None:
    """A change is committed after the last page, before the bell's lock is taken."""
    worker = play.start(wrong, Conf())
    worker.deliver_once()
    with FewSlices() as bell:
        play.write(play.b)
        _sleep(worker, bell, lambda: None)
        worker.deliver_once()


def sleeps_beside_the_holder(play: Play, wrong: str) -> None:
    """Another process holds the bell's lock."""
    worker = play.start(wrong, Conf())
    worker.deliver_once()
    with play.connect(psycopg.Connection) as holder, FewSlices() as bell:
        holder.execute("SELECT pg_advisory_lock(%s, %s)", BELL)
        _sleep(worker, bell, lambda: None)


class Crash(KeyboardInterrupt):
    """The worker dies: any other exception would be stored as a failure of the receiver."""


def everything(play: Play, without: str = "") -> None:
    """Play all that a run must have to prove something."""
    worker = play.start("", Conf())
    play.write(play.a, 2, commit=without == "late commits")
    play.write(play.b)
    worker.deliver_once()
    play.write(play.a)
    play.write(play.b)

    def die(**kwargs: Any) -> None:
        raise Crash

    signals.record_changed.connect(die, sender=Account, weak=False)
    if without != "takeovers":
        with suppress(Crash):
            worker.deliver_once()
    signals.record_changed.disconnect(die, sender=Account)
    worker = play.restart()
    worker.deliver_once()
    with FewSlices() as bell:
        play.write(play.b, commit=without != "races at falling asleep")
        bell.sleep(worker._is_waiting, lambda: 600.0, Pulse())
    play.b.commit()
    worker.deliver_once()


WRONG = [
    ("id_cursor", commits_late, "reader: nothing_lost: close_window"),
    ("xmin_watermark", commits_late, "reader: nothing_lost: close_window"),
    ("floor_from_xmax", commits_late, "reader: nothing_lost: next_floor_xid"),
    ("late_ones_ignored", commits_late, "reader: nothing_lost: find_first_id"),
    ("newest_after_target", opens_while_writers_write, "reader: nothing_lost: next_floor_xid"),
    ("ceiling_before_target", opens_while_writers_write, "reader: nothing_lost: ceiling_id"),
    ("fresh_target", writes_between_pages, "reader: nothing_lost: is_next"),
    ("no_claim", second_worker_during_a_page, "handover: nothing_twice: claim"),
    ("standing_before_claim", second_worker_before_the_claim, "handover: nothing_twice: copy_position"),
    ("position_first", commits_late, "handover: layout_stays: append_position"),
    ("effects_first", commits_late, "handover: nothing_twice: commit_effects"),
    ("position_outside_claim", delivers_without_atomic, "handover: layout_stays: append_position"),
    ("layout_not_checked", other_layout, "handover: nothing_twice: refused"),
    ("count_without_locks", loses_a_change, "gap: no_silent_loss: hc_signals_lost"),
    ("no_second_read", change_before_the_lock, "doorbell: bell_never_missed: second_read"),
    ("clear_after_read", change_before_listening, "doorbell: bell_never_missed: clear_after_read"),
    ("lock_not_watched", sleeps_beside_the_holder, "doorbell: bell_never_missed: lock_not_watched"),
]


@pytest.mark.parametrize(("wrong", "scenario", "rule"), WRONG, ids=[name for name, _, _ in WRONG])
def test_checker_refuses_wrong_code(play: Play, wrong: str, scenario: Any, rule: str) -> None:
    scenario(play, wrong)
    report = play.end()
    assert [refusal.rule for refusal in report.refusals.values()] == [rule], report


@pytest.mark.parametrize("scenario", sorted({each for _, each, _ in WRONG}, key=lambda each: each.__name__))
def test_checker_accepts_the_code(play: Play, scenario: Any) -> None:
    scenario(play, "")
    report = play.end()
    assert not report.refusals, report
    assert report.steps > 5


def test_checker_accepts_a_claim_that_was_lost_while_it_was_read(play: Play) -> None:
    session_ends_during_the_claim(play)
    report = play.end()
    assert (report.refusals, report.changes) == ({}, 1), report


def test_checker_accepts_a_run_that_proves_something(play: Play) -> None:
    everything(play)
    report = play.end()
    assert report.is_accepted, report
    assert str(report).endswith("follows: accepted")


@pytest.mark.parametrize("name", PROOFS)
def test_checker_refuses_a_run_that_proves_nothing(play: Play, name: str) -> None:
    everything(play, without=name)
    report = play.end()
    assert (report.missing, report.refusals) == ([name], {}), report
    assert f"the run proves nothing: it has no {name}" in str(report)


def test_docs_name_the_rule_of_each_wrong_variant() -> None:
    rows = [f"| {wrong.replace('_', ' ')} | {rule} |" for wrong, _, rule in WRONG]
    assert "\n".join(["|---|---|", *rows, ""]) in (ROOT / "docs" / "specs.md").read_text()


def test_every_wrong_reader_is_refused() -> None:
    named = {name for name, value in vars(mutations).items() if getattr(value, "__module__", "") == mutations.__name__}
    assert {name for name in named if not name.startswith("_")} == {wrong for wrong, _, _ in WRONG}


def test_checker_has_nothing_of_the_product() -> None:
    """The checker would repeat a fault of the code that it uses."""
    for path in (ROOT / "specs").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (hc_signals|tests|django|psycopg)", path.read_text(), re.MULTILINE)
