"""hc_replay sends past changes again, in order, to chosen receivers; no position moves, no delivery is stuck."""

import io
import os
import shlex
import signal
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.capture.install import install_capture
from hc_signals.conf import Conf
from hc_signals.delivery.replay import Replay, ReplayRun
from hc_signals.exceptions import ReplayError
from hc_signals.log.past import _PAGE
from hc_signals.log.rotation import rotate
from hc_signals.models import Change, Delivery, Position
from hc_signals.postgres.locks import BELL
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import IS_OURS, as_the_app, deliver
from tests.sfdc.models import Everything, EverythingProxy, Note, User
from tests.test_rotation import age
from tests.test_worker_process import wait_until

LEDGER = "example.crm.receivers.keep_ledger"


class Listener:
    """A receiver that records its events. With ``fails`` it raises; ``first`` is called before."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.fails = False
        self.first: Callable[[], Any] = lambda: None

    def __call__(self, event: Any = None, events: Any = (), **kwargs: Any) -> None:
        self.first()
        if self.fails:
            raise ValueError("no")
        self.events += events or [event]

    @property
    def received(self) -> list[tuple[str, str]]:
        return [(event.change_type, event.instance.username) for event in self.events]


class Early(Listener):
    """Connected to a signal that is sent before the others."""


PATH = "tests.test_replay.Listener"
EARLY = "tests.test_replay.Early"


@pytest.fixture
def listener(captured: HerokuConnect, connect: Any) -> Listener:
    """A receiver that has got three changes of one user."""
    found = Listener()
    connect(signals.record_changed, found, User)
    (sfid,) = captured.insert(User, username="a")
    captured.update(User, sfid, username="b")
    captured.update(User, sfid, username="c")
    deliver()
    assert found.received == [("CREATE", "a"), ("UPDATE", "b"), ("UPDATE", "c")]
    return found


def replay(*arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("hc_replay", *arguments, stderr=out, stdout=out, **options)
    return out.getvalue()


def a_replay(model: Any = User) -> ReplayRun:
    replay = Replay("default", Conf(RETRY_SECONDS=0.0001, BATCH_SIZE=100), [model], [PATH, EARLY])
    return replay.start(Change.objects.earliest("id").captured_at)


def in_a_thread(work: Callable[[], Any]) -> None:
    """Run something on another connection, and wait for it."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = Thread(target=run)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive()


def positions() -> list[int]:
    return list(Position.objects.values_list("id", flat=True))


def states() -> list[tuple[str, int]]:
    return list(Delivery.objects.values_list("state", "attempt"))


def test_chosen_receiver_gets_all_changes_again_in_order(listener: Listener) -> None:
    before, seen = positions(), Seen.objects.count()
    first = list(listener.events)
    output = replay("--since", "1h", "--receiver", PATH)
    assert "hc_replay: 3 of 3 (100%)" in output
    again = listener.events[3:]
    assert listener.received[3:] == listener.received[:3]
    assert [(e.replay_id, e.event_id, e.previous, e.attempt) for e in again] == [
        (e.replay_id, e.event_id, e.previous, e.attempt) for e in first
    ]
    assert [e.replayed for e in first + again] == [False] * 3 + [True] * 3
    assert positions() == before
    assert Seen.objects.count() == seen, "another receiver was not called"
    assert deliver() == 0


def test_replay_to_all_receivers_needs_a_confirmation(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    Seen.objects.all().delete()
    with pytest.raises(CommandError, match="or say --yes") as error:
        replay("--since", "1h")
    assert error.value.returncode == 2
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    with pytest.raises(CommandError, match="Nothing was replayed"):
        replay("--since", "1h")
    assert Seen.objects.count() == 0
    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    assert f"  {LEDGER}\n" in replay("--since", "1h")
    assert Seen.objects.count() == 3
    Seen.objects.all().delete()
    replay("--since", "1h", "--yes")
    assert Seen.objects.count() == 3


def test_bounds_are_ids_times_and_models(listener: Listener, captured: HerokuConnect) -> None:
    captured.create(Account, 4)
    deliver()
    ids = [event.replay_id for event in listener.events]
    replay("--from", ids[1], "--until", ids[1], "--receiver", PATH)
    assert listener.received[3:] == [("UPDATE", "b")]
    age(2, count=2)
    replay("--since", "1h", "--receiver", PATH)
    assert listener.received[4:] == [("UPDATE", "c")]
    replay("--since", "3h", "--until", "1h", "--receiver", PATH)
    assert listener.received[5:] == [("CREATE", "a"), ("UPDATE", "b")]
    Seen.objects.all().delete()
    assert "4 of 4" in replay("--since", "3h", "--model", "crm.Account", "--yes")
    assert Seen.objects.count() == 4


def test_later_commits_are_not_replayed(listener: Listener, captured: HerokuConnect) -> None:
    late = connection.copy()
    try:
        late.set_autocommit(False)
        with late.cursor() as cursor:
            cursor.execute("SET LOCAL xmlbinary = 'hex'; INSERT INTO salesforce.user (sfid) VALUES ('late')")
        captured.insert(User, username="before")
        found = a_replay()
        late.commit()
    finally:
        late.close()
    captured.insert(User, username="after")
    assert found.page() == 4
    assert found.finished
    assert listener.received[-1] == ("CREATE", "before")


def test_proxies_bulk_receivers_and_gaps_are_replayed(captured: HerokuConnect, connect: Any, settings: Any) -> None:
    settings.HC_SIGNALS = {"RELOAD_AWARE": False}
    install_capture(Everything, "default")
    received: list[Any] = []
    connect(signals.record_created, lambda instance, **kwargs: received.append(type(instance)), EverythingProxy)
    connect(signals.records_changed, lambda events, **kwargs: received.append(len(events)), Everything)
    connect(signals.gap_detected, lambda event, **kwargs: received.append((event.cause, event.replayed)), Everything)
    captured.create(Everything, 2)
    as_the_app("SET xmlbinary = 'hex'; TRUNCATE salesforce.everything__c; SET xmlbinary = 'base64'")
    replay("--since", "1h", "--yes", "--model", "sfdc.Everything")
    assert received == [EverythingProxy, EverythingProxy, ("truncate", True), 2]


@pytest.mark.parametrize("atomic", [True, False])
def test_failure_and_what_is_parked_are_retried_as_replayed(listener: Listener, settings: Any, atomic: bool) -> None:
    settings.HC_SIGNALS = {"ATOMIC": atomic}
    in_transaction: list[bool] = []
    listener.first = lambda: in_transaction.append(connection.in_atomic_block)
    listener.fails = True
    replay("--since", "1h", "--receiver", PATH)
    assert states() == [("retry", 1), ("parked", 0), ("parked", 0)]
    assert in_transaction == [atomic]
    listener.fails = False
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp()")
    for _ in range(3):
        deliver()
    assert listener.received[3:] == listener.received[:3]
    assert [(e.replayed, e.attempt) for e in listener.events[3:]] == [(True, 2), (True, 1), (True, 1)]
    assert states() == []


def test_waiting_deliveries_go_first(listener: Listener, captured: HerokuConnect) -> None:
    listener.fails = True
    captured.update(User, listener.events[0].record_id, username="d")
    deliver()
    replay("--since", "1h", "--receiver", PATH)
    assert states() == [("retry", 1)] + [("parked", 0)] * 4
    listener.fails = False
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp() WHERE state = 'retry'")
    deliver()
    assert [name for _, name in listener.received[3:]] == ["d", "a", "b", "c", "d"]


def test_nothing_is_stranded_if_the_worker_finishes_the_first(
    listener: Listener, captured: HerokuConnect, connect: Any
) -> None:
    """The replay has read that the record waits. Before it parks, the worker delivers the earlier delivery."""
    listener.fails = True
    captured.update(User, listener.events[0].record_id, username="d")
    deliver(RETRY_SECONDS=0.0001)
    other = Early()
    connect(signals.record_created, other, User)

    def worker_retries() -> None:
        other.first = lambda: None
        listener.fails = False
        in_a_thread(deliver)
        assert states() == []

    other.first = worker_retries
    assert a_replay().page() == 4
    assert states()[0] == ("retry", 0), "the first delivery of the record is due"
    deliver()
    assert [name for _, name in listener.received[3:]] == ["d", "a", "b", "c", "d"]
    assert states() == []


def test_two_failures_of_one_record_stay_in_order(listener: Listener, captured: HerokuConnect, connect: Any) -> None:
    """The worker stores a failure of the record between the replay's query and the replay's own failure."""
    other = Early()
    connect(signals.record_created, other, User)

    def fail() -> None:
        captured.update(User, listener.events[0].record_id, username="d")
        deliver(RETRY_SECONDS=100.0)

    def worker_fails() -> None:
        other.first = lambda: None
        listener.fails = True
        in_a_thread(fail)

    found = a_replay()
    other.first = worker_fails
    assert found.page() == 3
    assert states() == [("retry", 1), ("parked", 1), ("parked", 0), ("parked", 0)]


def test_replay_survives_a_deadlock_with_the_worker(listener: Listener, captured: HerokuConnect, connect: Any) -> None:
    """The worker holds the shard and waits for a row that a replayed receiver wrote; the replay waits for the shard."""
    note = Note.objects.create(text="")
    early = Early()
    connect(signals.record_created, early, User)
    workers: list[Thread] = []

    def write() -> None:
        Note.objects.filter(pk=note.pk).update(text="x")

    def work() -> None:
        try:
            captured.create(User)
            deliver(RETRY_SECONDS=0.0001)
        finally:
            connections.close_all()

    def begin() -> None:
        write()
        early.first = write
        listener.fails = True
        workers.append(Thread(target=work))
        workers[0].start()
        wait_until(waiting_for_a_row)

    early.first = begin
    assert a_replay().page() == 3
    workers[0].join(timeout=60)
    assert not workers[0].is_alive()
    listener.fails, early.first = False, lambda: None
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp() WHERE state = 'retry'")
    for _ in range(3):
        deliver(RETRY_SECONDS=0.0001)
    assert states() == []
    assert [name for kind, name in listener.received if name in "abc"] == ["a", "b", "c"] * 2
    assert len(listener.events) == 7


def waiting_for_a_row() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted AND {IS_OURS}")
        return bool(cursor.fetchone()[0])


def test_replay_wakes_a_worker_for_stored_failures(listener: Listener) -> None:
    with connection.cursor() as cursor:
        cursor.execute("LISTEN hc_signals")
    listener.fails = True
    sleeper = connection.copy()
    try:
        with sleeper.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s, %s)", BELL)
        a_replay().page()
    finally:
        sleeper.close()
    with connection.cursor() as cursor:
        cursor.execute("UNLISTEN hc_signals")
    assert len(list(connection.connection.notifies(timeout=60, stop_after=1))) == 1


def test_on_delete_is_not_replayed_unless_named(captured: HerokuConnect, connect: Any, settings: Any) -> None:
    settings.HC_SIGNALS = {"APPLY_ON_DELETE": True}
    (sfid,) = captured.insert(User, username="a")
    captured.delete(User, sfid)
    captured.insert(User, sf_id=sfid, username="a")
    deliver(APPLY_ON_DELETE=True)
    Note.objects.create(set_null_id=sfid, text="x")
    replay("--since", "1h", "--yes")
    assert Note.objects.get().set_null_id == sfid
    replay("--since", "1h", "--receiver", "hc_signals.delivery.on_delete.apply_on_delete")
    assert Note.objects.get().set_null_id is None


def test_replay_is_interrupted_and_continued(captured: HerokuConnect, connect: Any) -> None:
    before = signal.getsignal(signal.SIGINT)
    captured.create(Account, 20)
    deliver()
    Seen.objects.all().delete()
    calls = []

    def interrupts(**kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGINT)

    connect(signals.record_created, interrupts, Account)
    out = io.StringIO()
    with pytest.raises(SystemExit) as exit_:
        call_command("hc_replay", "--since", "1h", "--yes", "--model", "crm.Account", stderr=out)
    assert exit_.value.code == 130
    assert Seen.objects.count() == 7
    captured.create(Account, 1)
    rest = shlex.split(out.getvalue().partition("go on with: ")[2])
    assert rest[:4] == ["python", "manage.py", "hc_replay", "--from"]
    replay(*rest[3:])
    assert Seen.objects.count() == Seen.objects.values("event_id").distinct().count() == 20
    assert signal.getsignal(signal.SIGINT) is before


def test_page_is_one_transaction_and_bounded_in_time(captured: HerokuConnect) -> None:
    captured.create(Account, 3)
    replay = Replay("default", Conf(MAX_TRANSACTION_SECONDS=0.000001), [Account])
    found = replay.start(Change.objects.earliest("id").captured_at)
    assert found.count(10) == 3
    assert [found.page(), found.page(), found.page(), found.finished] == [1, 1, 1, True]
    assert found.page() == 0


def test_emptied_log_says_where_it_begins(listener: Listener, captured: HerokuConnect) -> None:
    first = listener.events[0].replay_id
    age(84, count=3)
    captured.insert(User, username="young")
    deliver()
    young = listener.events[-1].replay_id
    assert len(rotate("default", 72)) == 1
    for arguments in (["--since", "4d"], ["--from", first]):
        with pytest.raises(CommandError, match=f"no longer holds all of these changes: it reaches back to {young}"):
            replay(*arguments, "--receiver", PATH)
    replay("--since", "1h", "--receiver", PATH)
    replay("--from", young, "--receiver", PATH)
    assert listener.received[4:] == [("CREATE", "young")] * 2


def test_log_that_is_emptied_under_the_replay_is_an_error(listener: Listener, captured: HerokuConnect) -> None:
    age(84, count=3)
    captured.insert(User, username="young")
    deliver()
    found = a_replay()
    assert len(rotate("default", 72)) == 1
    with pytest.raises(ReplayError, match="were emptied from the log while they were replayed"):
        found.page()


def test_failure_is_stored_after_its_change_left_the_log(listener: Listener) -> None:
    """With ATOMIC = False no lock keeps the bucket until the receiver has failed."""
    age(84, count=3)
    emptied: list[int] = []
    listener.fails, listener.first = True, lambda: in_a_thread(lambda: emptied.extend(rotate("default", 72)))
    replay = Replay("default", Conf(ATOMIC=False, RETRY_SECONDS=0.0001), [User], [PATH])
    found = replay.start(Change.objects.earliest("id").captured_at)
    assert found.page() == 3
    assert len(emptied) == 1
    assert not Change.objects.exists()
    assert states() == [("retry", 1), ("parked", 0), ("parked", 0)]
    listener.fails, listener.first = False, lambda: None
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp() WHERE state = 'retry'")
    for _ in range(3):
        deliver()
    assert listener.received[3:] == [("CREATE", "a"), ("UPDATE", "b"), ("UPDATE", "c")]
    assert [dict(event.previous) for event in listener.events[4:]] == [{"username": "a"}, {"username": "b"}]


def test_replay_reads_the_buckets_of_its_time(listener: Listener) -> None:
    found = a_replay()
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {_PAGE}", {**found._past._params, "after": 0, "limit": 10})
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert 1 <= len({word for word in plan.split() if word.startswith("hc_signals_change_")}) <= 4, plan


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        ([], "say --since or --from", 2),
        (["--since", "1h", "--from", "000000000000-000000000000001"], "not allowed with", 2),
        (["--since", "2999-01-01"], "lies in the future", 2),
        (["--since", "soon"], "is not a time", 2),
        (["--from", "7"], "'7' is not a replay id; expected one like", 2),
        (["--since", "1h", "--until", "2h"], "--until lies before the start", 2),
        (["--from", "000000000000-000000000000001"], "is of another database, or from before a restore", 1),
        (["--since", "1h", "--until", "000000000000-000000000000001"], "is of another database", 1),
        (["--from", "EPOCH-000000999999999"], "is ahead of the log, which ends at EPOCH-", 1),
        (["--since", "1h", "--model", "crm.Nope"], "There is no model 'crm.Nope'", 1),
        (["--since", "1h", "--receiver", "tests.Listener"], "did you mean tests.test_replay.Listener", 1),
        (["--since", "1h", "--receiver", "nonsense"], "connected: example.crm", 1),
        (["--since", "1h", "--model", "crm.Account", "--receiver", PATH], "is connected to a signal of the chosen", 1),
        (["--since", "1h", "--database", "nope"], "'nope' doesn't exist", 1),
    ],
)
def test_mistakes(listener: Listener, arguments: list[str], message: str, code: int) -> None:
    epoch = listener.events[0].replay_id.partition("-")[0]
    arguments = [argument.replace("EPOCH", epoch) for argument in arguments]
    with pytest.raises(CommandError, match=message.replace("EPOCH", epoch)) as error:
        replay("--yes", *arguments)
    assert getattr(error.value, "returncode", 1) == code or "Error:" in str(error.value)
    assert len(listener.events) == 3


def test_replay_refuses_a_restored_database(listener: Listener) -> None:
    as_the_app("UPDATE public.hc_signals_control SET database_oid = 1")
    with pytest.raises(CommandError, match="let `hc_listen --once` take it over"):
        replay("--since", "1h", "--yes")
    deliver()
    assert "3 of 3" in replay("--since", "1h", "--yes")


def test_replay_is_of_every_connected_model() -> None:
    assert Replay("default", Conf(), connected_models()).known_receivers() >= {LEDGER}
