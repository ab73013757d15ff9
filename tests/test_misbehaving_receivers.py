"""Receivers that break the rules: each fails alone, and no other receiver, record or worker is affected."""

import asyncio
import functools
import os
import signal
import sys
import threading
import time
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gevent.timeout
import psycopg
import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.models.functions import Now
from django.dispatch import receiver as django_receiver
from example.crm.models import Account, Seen
from func_timeout import FunctionTimedOut

from hc_signals import signals
from hc_signals.delivery import project_code
from hc_signals.delivery.isolation import careful
from hc_signals.management.interruption import interruptible
from hc_signals.models import Delivery
from hc_signals.receivers import on_change
from tests.conftest import another, as_heroku_connect, as_the_app, deliver, running_crew
from tests.server import own
from tests.test_isolation import insert_accounts, seen, seen_changes
from tests.test_worker_process import wait_until

pytestmark = pytest.mark.usefixtures("captured")


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin like a new process, which knows of no receiver that has broken a page."""
    monkeypatch.setattr(careful, "_in_advance", set())
    monkeypatch.setattr(careful, "_breaks", Counter())


def deliver_through(**conf: Any) -> None:
    """Deliver all committed changes like a worker, which reconnects when its connection is lost."""
    for _ in range(4):
        try:
            with interruptible():  # as in a command of ours: a KeyboardInterrupt is no Ctrl-C
                deliver(**conf)
            return
        except OperationalError:
            connection.close()
    pytest.fail("the connection was lost again and again")


class Calls:
    """Connect a receiver that writes and misbehaves at the second of three changes, and another one that writes."""

    def __init__(self, connect: Any, misbehave: Callable[[], Any], *, writes: bool = True) -> None:
        self.names: list[str] = []

        def innocent(instance: Account, event: Any, **kwargs: Any) -> None:
            self.names.append(str(instance.name))
            seen(event)

        def misbehaves(instance: Account, event: Any, **kwargs: Any) -> None:
            if writes:
                Seen.objects.create(
                    event_id=f"hers {event.event_id}", sequence_number=0, entity_name="", change_type=""
                )
            if instance.name == "n2":
                misbehave()

        connect(signals.record_created, innocent, Account)
        connect(signals.record_created, misbehaves, Account)

    def delivered(self) -> None:
        """Deliver three changes, then another one: one call fails, and every other effect is there exactly once."""
        insert_accounts(3)
        deliver_through()
        assert len(seen_changes()) == 3
        as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('B', 'later')")
        deliver_through()
        assert len(seen_changes()) == 4
        assert Seen.objects.filter(event_id__startswith="hers").count() == 3
        assert Delivery.objects.get().attempt == 1


def _raiser(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


class _Bare(BaseException):
    pass


@pytest.mark.fault(
    "a receiver raises an exception that no program catches: timeouts of gevent and func_timeout, exception groups, "
    "SystemExit, KeyboardInterrupt without a Ctrl-C",
    outcome="it fails alone, and its delivery is stored",
)
@pytest.mark.parametrize(
    "error",
    [
        _Bare("bare"),
        gevent.timeout.Timeout(1),
        FunctionTimedOut(),
        BaseExceptionGroup("several", [_Bare(), ValueError()]),
        GeneratorExit(),
        CancelledError(),
        SystemExit(3),
        KeyboardInterrupt(),
        BaseExceptionGroup("several", [KeyboardInterrupt()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_fails_its_receiver_alone(connect: Any, error: BaseException) -> None:
    Calls(connect, _raiser(error)).delivered()


def test_ctrl_c_still_ends_a_process_without_our_handler(connect: Any) -> None:
    connect(signals.record_created, lambda **kwargs: _raiser(KeyboardInterrupt())(), Account)
    insert_accounts(1)
    with pytest.raises(KeyboardInterrupt):
        deliver()
    assert not Delivery.objects.exists()


def _sql(statement: str) -> Callable[[], None]:
    def execute() -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    return execute


_held: list[Any] = []
"""References that keep objects from the garbage collector."""


def _begins_a_copy() -> None:
    _held.append(connection.cursor().copy("COPY crm_seen FROM STDIN"))
    _held[-1].__enter__()


@pytest.fixture(autouse=True)
def held() -> Iterator[None]:
    """Close what is held, without warnings, and the connection, which a failed test leaves as it is."""
    yield
    connection.close()
    while _held:
        with suppress(Exception):
            _held.pop().__exit__(ValueError, ValueError(), None)


def _passes_django_by(statement: str) -> Callable[[], None]:
    return lambda: connection.connection.execute(statement)


def _changes_the_rows() -> None:
    connection.connection.row_factory = psycopg.rows.dict_row


def _changes_the_cursors() -> None:
    connection.connection.cursor_factory = psycopg.ServerCursor


def _leaves_an_alarm() -> None:
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the alarm has interrupted other code"))
    signal.setitimer(signal.ITIMER_REAL, 0.001)


def _leaves_a_block_open() -> None:
    transaction.atomic().__enter__()


def _leaves_the_rollback_mark() -> None:
    transaction.atomic().__enter__()
    transaction.set_rollback(True)


def _closes_all_cursors_and_commits() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ROLLBACK")
        cursor.execute("BEGIN")


def _commits_by_the_driver() -> None:
    connection.connection.commit()


def _turns_autocommit_off() -> None:
    connection.set_autocommit(False)


def _turns_autocommit_on() -> None:
    connection.set_autocommit(True)


def _leaves_a_cursor_that_fails_at_the_commit() -> None:
    _sql("DECLARE late CURSOR WITH HOLD FOR SELECT 1 / (3 - g) FROM generate_series(1, 5) g")()
    raise RuntimeError


def _violates_at_the_commit() -> None:
    _sql(
        "INSERT INTO django_admin_log (action_time, object_repr, action_flag, change_message, user_id) "
        "VALUES (now(), '', 1, '', 4711)"
    )()


@pytest.mark.fault(
    "a receiver executes COMMIT, ROLLBACK or PREPARE TRANSACTION, in any way",
    outcome="refused or rolled back; it fails alone, its delivery is stored, no other receiver writes twice",
)
@pytest.mark.parametrize(
    "misbehave",
    [
        _sql("COMMIT"),
        _sql("COMMIT AND CHAIN"),
        _sql("ROLLBACK"),
        _sql("ROLLBACK AND CHAIN"),
        _sql(f"PREPARE TRANSACTION '{own('hers')}'"),
        _closes_all_cursors_and_commits,
        _commits_by_the_driver,
        _passes_django_by("COMMIT"),
    ],
    ids=["commit", "chain", "rollback", "rollback_chain", "prepare", "rollback_begin", "driver", "past_django"],
)
def test_ended_transaction_fails_its_receiver_alone(connect: Any, misbehave: Callable[[], Any]) -> None:
    Calls(connect, misbehave).delivered()


def test_ended_transaction_repeats_no_committed_write(connect: Any) -> None:
    """If COMMIT had committed a part of the page, writes would be there twice."""
    calls = Calls(connect, _sql("COMMIT"))
    calls.delivered()
    assert Counter(calls.names)["n1"] <= 2, "an effect outside the database happens once more at most"
    written = Seen.objects.filter(event_id__startswith="mine ").count()
    assert written == 4


@pytest.mark.fault(
    "a receiver leaves a COPY, a cursor WITH HOLD, a block of `atomic()`, a violated constraint, a `row_factory` or an "
    "alarm behind",
    outcome="it fails alone, and its delivery is stored",
)
@pytest.mark.parametrize(
    "misbehave",
    [
        _sql("COPY crm_seen TO STDOUT"),
        _sql("COPY crm_seen FROM STDIN"),
        _begins_a_copy,
        _leaves_a_block_open,
        _leaves_the_rollback_mark,
        _turns_autocommit_on,
        _leaves_a_cursor_that_fails_at_the_commit,
        _violates_at_the_commit,
        connection.close,
        connections.close_all,
        _changes_the_rows,
        _changes_the_cursors,
        _leaves_an_alarm,
    ],
    ids=lambda misbehave: misbehave.__name__,
)
def test_left_state_fails_its_receiver_alone(connect: Any, misbehave: Callable[[], Any]) -> None:
    Calls(connect, misbehave).delivered()


@pytest.fixture
def no_alarm_handler() -> Iterator[None]:
    """Leave SIGALRM to the system, which ends the process, as in a worker whose project uses no alarm."""
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class QuickCalls:
    """Two receivers that run no query, and one in between that misbehaves at the second of three changes."""

    def __init__(self, connect: Any, misbehave: Callable[[], Any]) -> None:
        self.names: dict[str, list[str]] = {"first": [], "last": []}

        def first(instance: Account, **kwargs: Any) -> None:
            self.names["first"].append(str(instance.name))

        def misbehaves(instance: Account, **kwargs: Any) -> None:
            if instance.name == "n2":
                misbehave()

        def last(instance: Account, **kwargs: Any) -> None:
            self.names["last"].append(str(instance.name))

        for receiver in (first, misbehaves, last):
            connect(signals.record_created, receiver, Account)
        self.misbehaving = f"{__name__}.QuickCalls.__init__.<locals>.misbehaves"

    def delivered(self, *, is_once: bool) -> None:
        """Deliver three changes; the one call fails, the others have been made, and only once if ``is_once``."""
        insert_accounts(3)
        deliver_through()
        assert [each.receiver for each in Delivery.objects.all()] == [self.misbehaving]
        for names in self.names.values():
            assert (names if is_once else sorted(set(names))) == ["n1", "n2", "n3"]


def test_alarm_of_a_quick_call_is_found_at_its_call(connect: Any, no_alarm_handler: None) -> None:
    """It has run no query. Its handler would interrupt the next receiver."""
    QuickCalls(connect, _leaves_an_alarm).delivered(is_once=True)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0


@pytest.mark.parametrize("pause", [0.0, 0.005])
def test_alarm_without_handler_fails_its_receiver_alone(connect: Any, no_alarm_handler: None, pause: float) -> None:
    """Its signal would end the process, perhaps while it delivers something else."""

    def leaves_an_alarm() -> None:
        signal.alarm(100)
        time.sleep(pause)

    QuickCalls(connect, leaves_an_alarm).delivered(is_once=False)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0


def test_alarm_from_before_the_page_stays(connect: Any, no_alarm_handler: None) -> None:
    signal.alarm(100)
    calls = QuickCalls(connect, lambda: None)
    insert_accounts(3)
    deliver_through()
    assert calls.names["last"] == ["n1", "n2", "n3"]
    assert not Delivery.objects.exists()
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0.0


def _leaves_a_wrapper() -> None:
    connection.execute_wrappers.append(lambda execute, *args: pytest.fail("another receiver has the wrapper"))


@pytest.mark.parametrize(
    "misbehave",
    [
        lambda: transaction.set_rollback(True),
        lambda: transaction.atomic(savepoint=False).__enter__(),
        _changes_the_rows,
        connection.close,
    ],
    ids=["rollback mark", "block", "row_factory", "close"],
)
def test_quick_call_that_leaves_state_fails_alone(connect: Any, misbehave: Callable[[], Any]) -> None:
    """It has run no query, so nothing but the check after the call can find what it has left."""
    QuickCalls(connect, misbehave).delivered(is_once=False)


def test_wrapper_that_a_quick_call_leaves_is_removed(connect: Any) -> None:
    QuickCalls(connect, _leaves_a_wrapper)
    connect(signals.record_created, lambda event, **kwargs: seen(event), Account)
    insert_accounts(3)
    deliver_through()
    assert len(seen_changes()) == 3
    assert not Delivery.objects.exists()


def test_failed_quick_call_keeps_others_on_commit_hooks(connect: Any) -> None:
    ran: list[str] = []

    def hooks(instance: Account, **kwargs: Any) -> None:
        transaction.on_commit(lambda: ran.append(str(instance.name)))

    def hooks_and_fails(instance: Account, **kwargs: Any) -> None:
        transaction.on_commit(lambda: ran.append("of a failed call"))
        raise ValueError

    connect(signals.record_created, hooks, Account)
    connect(signals.record_created, hooks_and_fails, Account)
    insert_accounts(3)
    deliver_through()
    assert ran == ["n1", "n2", "n3"]


INSERT = "INSERT INTO crm_seen (event_id, sequence_number, entity_name, change_type)"


def _copies(name: str) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY{INSERT[11:]} FROM STDIN") as copy:
        copy.write_row((name, 0, "", ""))


def _streams(name: str) -> None:
    with connection.cursor() as cursor:
        list(cursor.stream(f"{INSERT} VALUES (%s, 0, '', '') RETURNING 1", [name]))


def _asks_psycopg(name: str) -> None:
    connection.connection.execute(f"{INSERT} VALUES (%s, 0, '', '')", [name])


@pytest.mark.parametrize("write", [_copies, _streams, _asks_psycopg])
def test_failed_receivers_writes_past_django_are_rolled_back(connect: Any, write: Callable[[str], None]) -> None:
    """Django's execute wrappers do not get them; they are the receiver's first statements all the same."""

    def writes(instance: Account, event: Any, **kwargs: Any) -> None:
        write(f"hers {instance.name}")
        if instance.name == "n2":
            raise ValueError

    connect(signals.record_created, lambda event, **kwargs: seen(event), Account)
    connect(signals.record_created, writes, Account)
    insert_accounts(3)
    assert deliver() == 3
    found = Seen.objects.filter(event_id__startswith="hers").order_by("event_id")
    assert list(found.values_list("event_id", flat=True)) == ["hers n1", "hers n3"]
    assert len(seen_changes()) == 3


@pytest.mark.parametrize(
    "misbehave",
    [
        _raiser(_Bare()),
        _sql("COPY crm_seen TO STDOUT"),
        _begins_a_copy,
        _sql("BEGIN"),
        _leaves_a_block_open,
        _sql("SET SESSION AUTHORIZATION pg_monitor"),
        _sql("SET search_path = pg_catalog"),
        _sql("SELECT pg_terminate_backend(pg_backend_pid())"),
        _changes_the_rows,
        _turns_autocommit_off,
        _passes_django_by("SET search_path = pg_catalog"),
    ],
    ids=[
        "bare",
        "copy_to",
        "copy_open",
        "begin",
        "block",
        "authorization",
        "search_path",
        "terminated",
        "rows",
        "autocommit",
        "past_django",
    ],
)
def test_receiver_fails_alone_without_a_transaction(connect: Any, misbehave: Callable[[], Any]) -> None:
    """With ATOMIC = False its earlier writes stay; everything else is as in a transaction."""
    Calls(connect, misbehave, writes=False)
    insert_accounts(3)
    deliver_through(ATOMIC=False)
    assert len(seen_changes()) == 3
    assert Delivery.objects.get().attempt == 1


def test_crew_outlives_a_copy_left_open(connect: Any) -> None:
    """Run a real worker's threads: they close the connection, and stop when they are asked to."""
    Calls(connect, _begins_a_copy)
    insert_accounts(3)
    with running_crew():
        wait_until(lambda: Delivery.objects.exists() and len(seen_changes()) == 3)


@contextmanager
def role_setting(name: str, value: str) -> Iterator[None]:
    """Give new sessions of the test's role this setting, for the length of the block."""
    role = f'ALTER ROLE CURRENT_USER IN DATABASE "{connection.settings_dict["NAME"]}"'
    as_the_app(f"{role} SET {name} = '{value}'")
    connection.close()
    try:
        yield
    finally:
        connection.close()
        as_the_app(f"{role} RESET {name}")
        connection.close()


@pytest.mark.fault(
    "a receiver that has used the database sleeps for longer than `idle_in_transaction_session_timeout`",
    outcome="the server ends the session; this receiver fails, and not the next one",
)
@pytest.mark.parametrize("asks_afterwards", [False, True])
def test_idle_timeout_fails_the_receiver_that_slept(connect: Any, asks_afterwards: bool) -> None:
    def sleep() -> None:
        time.sleep(0.5)
        if asks_afterwards:
            Seen.objects.exists()

    with role_setting("idle_in_transaction_session_timeout", "200ms"):
        Calls(connect, sleep).delivered()
    assert "it was not called again" in Delivery.objects.get().error


def test_receivers_without_queries_are_not_timed(connect: Any) -> None:
    """They may take longer than idle_in_transaction_session_timeout, alone or together."""
    connect(signals.record_created, lambda **kwargs: time.sleep(0.3), Account)
    insert_accounts(2)
    with role_setting("idle_in_transaction_session_timeout", "200ms"):
        assert deliver() == 2
    assert not Delivery.objects.exists()


def test_statement_timeout_is_the_receivers_and_not_ours(connect: Any) -> None:
    def slow(instance: Account, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('statement_timeout'), pg_sleep(%s)", [0.4 * (instance.name == "n2")])
            assert cursor.fetchone()[0] == "200ms"

    connect(signals.record_created, slow, Account)
    insert_accounts(3)
    with role_setting("statement_timeout", "200ms"):
        assert deliver() == 3
    assert "statement timeout" in Delivery.objects.get().error


@pytest.mark.fault(
    "`statement_timeout`, `lock_timeout`, `idle_in_transaction_session_timeout` or `transaction_timeout` are short for "
    "the role",
    outcome="they apply to receivers; our own statements in a page have none",
)
@pytest.mark.parametrize("has_receiver", [False, True])
def test_lock_timeout_does_not_end_a_page(connect: Any, has_receiver: bool) -> None:
    """The position waits for a lock for longer than the project's lock_timeout."""
    found: list[str] = []

    def reads(**kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            found.append(cursor.fetchone()[0])

    connect(signals.record_created, reads if has_receiver else lambda **kwargs: None, Account)
    deliver()  # a new consumer stores its first position, which is no page
    insert_accounts(1)
    with role_setting("lock_timeout", "100ms"), another("LOCK public.hc_signals_position IN SHARE MODE") as other:
        release = threading.Timer(0.4, lambda: other.execute("ROLLBACK"))
        release.start()
        try:
            assert deliver() == 1
        finally:
            release.join()
    assert found == ["100ms"] * has_receiver


def test_transaction_timeout_is_each_receivers_own(connect: Any) -> None:
    """Together they take longer than the timeout. The receiver that alone takes longer fails."""
    if connection.pg_version < 17_00_00:
        pytest.skip("transaction_timeout came with PostgreSQL 17")

    def sleeps() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1)")

    connect(signals.record_created, lambda **kwargs: _sql("SELECT pg_sleep(0.2)")(), Account)
    with role_setting("transaction_timeout", "500ms"):
        Calls(connect, sleeps).delivered()


@pytest.mark.fault(
    "a receiver forks, and its child returns into the worker's loop",
    outcome="the child ends at once; its parent's connections are untouched",
)
def test_child_that_returns_ends_at_once(connect: Any) -> None:
    children: list[int] = []

    def forks(instance: Account, event: Any, **kwargs: Any) -> None:
        seen(event)
        if (child := os.fork()) == 0:
            if instance.name == "n2":
                sys.exit(7)
            return
        children.append(child)

    connect(signals.record_created, forks, Account)
    insert_accounts(3)
    assert deliver() == 3
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 7, 0]
    assert len(seen_changes()) == 3
    assert not Delivery.objects.exists()


def test_raising_hook_stops_no_other_hook(connect: Any) -> None:
    hooks: list[str] = []

    def hooked(instance: Account, event: Any, **kwargs: Any) -> None:
        transaction.on_commit(lambda: hooks.append(str(instance.name)))
        if instance.name == "n2":
            transaction.on_commit(_raiser(_Bare()))

    connect(signals.record_created, hooked, Account)
    insert_accounts(3)
    assert deliver() == 3
    assert hooks == ["n1", "n2", "n3"]


@pytest.mark.fault(
    "an `on_commit` hook leaves a setting, its role, a transaction, a COPY or a closed connection behind",
    outcome="the connection is closed; no later receiver, hook or page is affected",
)
@pytest.mark.parametrize(
    "misbehave",
    [
        _sql("SET search_path = pg_catalog"),
        _sql("SET ROLE pg_monitor"),
        _sql("SET default_transaction_read_only = on"),
        _sql("BEGIN"),
        _sql("COPY crm_seen TO STDOUT"),
        _passes_django_by("SET search_path = pg_catalog"),
        _leaves_a_block_open,
        _turns_autocommit_off,
        _changes_the_rows,
        connection.close,
    ],
)
def test_hook_leaves_nothing_behind(connect: Any, caplog: Any, misbehave: Callable[[], Any]) -> None:
    found: list[Any] = []

    def hooked(instance: Account, event: Any, **kwargs: Any) -> None:
        seen(event)
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('search_path'), current_user")
            found.append(cursor.fetchone())
        if instance.name == "n1":
            transaction.on_commit(misbehave)
            transaction.on_commit(_sql(f"{INSERT} VALUES ('next hook', 0, '', '')"))

    connect(signals.record_created, hooked, Account)
    insert_accounts(1)
    assert deliver() == 1
    assert len(seen_changes()) == 1
    as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('B', 'later')")
    assert deliver() == 1
    assert len(seen_changes()) == 2
    assert len(set(found)) == 1
    assert Seen.objects.filter(event_id="next hook").exists()
    assert not Delivery.objects.exists()


def test_threads_of_receivers_have_connections_of_their_own(connect: Any) -> None:
    def in_a_thread(event: Any, **kwargs: Any) -> None:
        def work() -> None:
            seen(event)
            connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    connect(signals.record_created, in_a_thread, Account)
    insert_accounts(2)
    assert deliver() == 2
    assert len(seen_changes()) == 2


def test_retry_of_the_same_kind_fails_alone_again(connect: Any) -> None:
    Calls(connect, _sql("COMMIT")).delivered()
    Delivery.objects.update(next_attempt_at=Now())
    deliver_through()
    assert Delivery.objects.get().attempt == 2
    assert len(seen_changes()) == 4


def test_tasks_left_behind_fail_their_receiver(connect: Any) -> None:
    """Python cancels them when the receiver's event loop ends."""

    async def leaves_a_task(instance: Account, **kwargs: Any) -> None:
        if instance.name == "n2":
            held_tasks.append(asyncio.get_running_loop().create_task(asyncio.sleep(10)))

    held_tasks: list[Any] = []
    connect(signals.record_created, leaves_a_task, Account)
    insert_accounts(3)
    assert deliver() == 3
    assert "The receiver left 1 task(s) running" in Delivery.objects.get().error


def _passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(**kwargs: Any) -> Any:
        return function(**kwargs)

    return call


class _Awaited:
    """Django takes its objects for plain functions."""

    def __init__(self, received: list[str]) -> None:
        self._received = received

    async def __call__(self, instance: Account, **kwargs: Any) -> None:
        self._received.append(str(instance.name))


@pytest.mark.usefixtures("disconnected")
@pytest.mark.parametrize("connect", [on_change(Account), django_receiver(signals.record_created, sender=Account)])
@pytest.mark.parametrize("make", [_Awaited, lambda received: _passed_on(_Awaited(received).__call__)])
def test_hidden_coroutines_are_awaited(make: Any, connect: Any) -> None:
    """Django does not see that they are asynchronous: its own send() would never run them."""
    received: list[str] = []
    receiver = connect(make(received))
    insert_accounts(2)
    assert deliver() == 2
    assert received == ["n1", "n2"]
    assert receiver, "Django keeps a weak reference"


def test_generator_is_an_error(connect: Any) -> None:
    def forgets_that_yield_makes_it_a_generator(**kwargs: Any) -> Iterator[None]:
        yield

    connect(signals.record_created, forgets_that_yield_makes_it_a_generator, Account)
    insert_accounts(1)
    assert deliver() == 1
    assert "its code has not run" in Delivery.objects.get().error


def test_relies_on_fork_hooks_of_python() -> None:
    """`project_code` counts forks by ``os.register_at_fork``: a child must see another count."""
    before = project_code._forks
    if (child := os.fork()) == 0:
        os._exit(project_code._forks - before)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
