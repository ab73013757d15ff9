"""The server's JIT compiler compiles no statement of ours: that would take a second in each session."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from django.db import connection, transaction
from example.crm.models import Account

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.delivery.failures import waiting_shards
from hc_signals.observability.survey import Survey
from hc_signals.postgres import own_connections
from hc_signals.signals import record_changed
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, as_the_app, deliver, running_crew
from tests.test_nested_triggers import UPPER, customers_trigger
from tests.test_worker_process import asleep, wait_until


@pytest.fixture(autouse=True)
def jit(transactional_db: None) -> None:
    """Skip on a server without LLVM: the embedded server has none, those of distributions have it."""
    with connection.cursor() as cursor:
        cursor.execute("SET jit = on")
        cursor.execute("SELECT pg_jit_available()")
        (has_jit,) = cursor.fetchone()
        cursor.execute("RESET jit")
    if not has_jit:
        pytest.skip("the server has no JIT compiler (built without LLVM)")


class Plan(NamedTuple):
    """The plan of a statement that the server has run."""

    text: str
    place: str
    """Function and line that ran it; empty for a statement of the client."""
    is_compiled: bool


@contextlib.contextmanager
def explained() -> Iterator[list[Plan]]:
    """Yield a list of all statements that this session runs, also inside functions. The server would compile any."""
    plans: list[Plan] = []

    def note(diagnostic: Any) -> None:
        message = diagnostic.message_primary or ""
        if "plan:\n" in message:
            plans.append(Plan(message, diagnostic.context or "", "\nJIT:" in message))

    settings = {
        "auto_explain.log_min_duration": "0",
        "auto_explain.log_analyze": "on",
        "auto_explain.log_nested_statements": "on",
        "client_min_messages": "log",
        "jit_above_cost": "0",
    }
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("LOAD 'auto_explain'")
        for name, value in settings.items():
            cursor.execute(f"SET {name} = '{value}'")
    connection.connection.add_notice_handler(note)
    try:
        yield plans
    finally:
        connection.close()  # this ends the settings


def ours(plans: list[Plan]) -> list[Plan]:
    """Return the statements inside our functions, of writers and readers."""
    return [plan for plan in plans if "function hc_signals_" in plan.place.replace("public.", "")]


def compiled(run: Callable[[], Any]) -> list[str]:
    """Call ``run`` and return the compiled statements inside our functions."""
    with explained() as plans:
        run()
    assert ours(plans), "no function of ours was called: the test proves nothing"
    return [plan.text for plan in ours(plans) if plan.is_compiled]


def test_auto_explain_shows_compiled_statements(captured: HerokuConnect) -> None:
    with explained() as plans:
        as_the_app("SELECT count(*) FROM salesforce.account")
    assert [plan.is_compiled for plan in plans] == [True]


def test_statements_of_capture_are_not_compiled(captured: HerokuConnect) -> None:
    """Including nested changes, a reload, the fallback to whole rows and a loss."""
    customers_trigger(UPPER)

    def write() -> None:
        (sfid, *_) = captured.insert(Account, *[{"name": f"n{number}"} for number in range(12)])
        captured.update(Account, sfid, name="new")
        as_heroku_connect("UPDATE salesforce.account SET id = id + 1000")
        as_heroku_connect("DELETE FROM salesforce.account WHERE sfid <> %s", [sfid])
        as_heroku_connect("TRUNCATE salesforce.account")
        captured.insert(Account, name="back")
        for broken in ("DROP FUNCTION public.hc_signals_admit()", "DROP TABLE public.hc_signals_change CASCADE"):
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL xmlbinary = 'hex'")
                cursor.execute(broken)
                cursor.execute("DELETE FROM salesforce.account")
                transaction.set_rollback(True)

    assert compiled(write) == []


def test_statements_of_the_reader_are_not_compiled(captured: HerokuConnect, connect: Any) -> None:
    def fails(**kwargs: Any) -> None:
        raise ValueError

    connect(record_changed, lambda **kwargs: None, Account)
    connect(signals.record_created, fails, Account)
    deliver()
    (sfid,) = captured.insert(Account, name="one")
    captured.update(Account, sfid, name="two")
    assert compiled(lambda: deliver(RETRY_SECONDS=600)) == []
    assert compiled(lambda: waiting_shards("default", Conf())) == []
    assert compiled(lambda: Survey("default", Conf()).consumers) == []


def test_statements_of_a_page_are_not_compiled(captured: HerokuConnect, connect: Any) -> None:
    """Not even the receivers' and those between two receivers, if the server compiles every statement that it can."""
    for number in range(3):
        connect(record_changed, lambda n=number, **kwargs: Account.objects.filter(id=n).exists(), Account)  # type: ignore[misc]
    with explained() as plans:
        deliver()
        captured.insert(Account, {"name": "one"}, {"name": "two"})
        plans.clear()
        assert deliver() == 2
    assert ours(plans), "no function of ours was called: the test proves nothing"
    assert [plan.text for plan in plans if plan.is_compiled and "pg_backend_pid" not in plan.text] == []


def test_page_behind_a_pooler_is_not_compiled(captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    """There hc_listen sets nothing for the session, only for the transaction of a page."""
    monkeypatch.setattr(own_connections, "is_ours", lambda raw: False)
    with explained() as plans:
        deliver()
        captured.insert(Account, {"name": "one"}, {"name": "two"})
        plans.clear()
        assert deliver() == 2
    of_the_page = [plan for plan in plans if "hc_signals_claim" in plan.text or "crm_seen" in plan.text]
    assert len(of_the_page) > 2
    assert [plan.text for plan in of_the_page if plan.is_compiled] == []


JIT = {
    "defaults": "-c jit=on",
    "every statement": "-c jit=on -c jit_above_cost=0 -c jit_inline_above_cost=0 -c jit_optimize_above_cost=0",
}
OFF = "-c jit=off"
LATENCIES = 8
"""Changes per turn, each while the worker sleeps."""
TURNS = 12
"""Most turns of each kind; more than three only if the machine is busy."""


def milliseconds(monkeypatch: pytest.MonkeyPatch, received: list[float], options: str) -> list[float]:
    """Return the milliseconds from commit to receiver, of a worker whose sessions have these options."""
    connection.ensure_connection()  # the writer's session does not have them
    monkeypatch.setenv("PGOPTIONS", options)
    found = []
    with running_crew():
        for number in range(LATENCIES + 1):
            wait_until(asleep)
            received.clear()
            began = time.perf_counter()
            as_heroku_connect("UPDATE salesforce.account SET name = %s", [f"{options} {began}"])
            wait_until(lambda: bool(received))
            if number:  # the first change makes the plans of the session
                found.append((received[0] - began) * 1000)
    monkeypatch.delenv("PGOPTIONS")
    return found


def quiet_median(times: list[list[float]]) -> float:
    """Return the median of the fastest turn: other load slows some turns, and a compiled statement slows each one."""
    return min(statistics.median(turn) for turn in times)


@pytest.mark.parametrize("kind", JIT)
def test_jit_does_not_increase_latency(
    captured: HerokuConnect, connect: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A change takes no longer than with ``jit = off``. The turns alternate, so that other load affects both."""
    received: list[float] = []
    connect(record_changed, lambda **kwargs: received.append(time.perf_counter()), Account)
    captured.insert(Account, name="one")
    deliver()
    on: list[list[float]] = []
    off: list[list[float]] = []
    ratio = 0.0
    while len(on) < 3 or (1.2 < ratio < 3 and len(on) < TURNS):
        for options, times in ((JIT[kind], on), (OFF, off)) if len(on) % 2 else ((OFF, off), (JIT[kind], on)):
            times.append(milliseconds(monkeypatch, received, options))
        ratio = quiet_median(on) / quiet_median(off)
    assert ratio <= 1.2, f"{quiet_median(on):.1f} ms with JIT, {quiet_median(off):.1f} ms without"
