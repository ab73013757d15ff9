"""Receiver calls that end the worker's process: the next processes find them, and store and skip them."""

import subprocess
from pathlib import Path

import pytest
from django.db import connection
from example.crm.models import Account, Seen

from hc_signals.delivery import fatal_calls
from hc_signals.models import Delivery
from hc_signals.testing import HerokuConnect
from tests.conftest import as_the_app
from tests.test_worker_process import start, wait_until

KILLED = -9


def end_of_worker(calls: Path, *arguments: str) -> int:
    """Run a worker once; return its exit code."""
    process: subprocess.Popen[str] = start("hc_listen", "--once", *arguments, FATAL_CALLS=str(calls))
    process.communicate(timeout=60)
    return process.returncode


def rows(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM public.hc_signals_{table}")
        return int(cursor.fetchone()[0])


@pytest.mark.fault(
    "a receiver's call ends the worker's process: killed, out of memory, `os._exit()`",
    outcome="after the third time it is skipped and its delivery is dead; everything else is delivered",
)
def test_call_that_ends_the_process_is_made_three_times(captured: HerokuConnect, tmp_path: Path) -> None:
    captured.create(Account, 3)
    captured.insert(Account, name="fatal")
    captured.create(Account, 3)
    calls = tmp_path / "calls"

    codes = [end_of_worker(calls) for _ in range(4)]

    assert codes == [KILLED, KILLED, KILLED, 0]
    assert calls.read_text().split() == ["1", "1", "1"]
    assert Seen.objects.count() == 7
    kept = Delivery.objects.get()
    assert (kept.receiver, kept.state) == ("tests.sfdc.apps._end_process", "dead")
    assert "has ended 3 times during this call" in kept.error
    assert (rows("run"), rows("call")) == (0, 0)


def test_retry_that_ends_the_process_is_made_three_times(captured: HerokuConnect, tmp_path: Path) -> None:
    captured.insert(Account, name="fatal")
    calls = tmp_path / "calls"
    while end_of_worker(calls) == KILLED:
        pass
    as_the_app("UPDATE public.hc_signals_delivery SET state = 'retry', next_attempt_at = now()")

    codes = [end_of_worker(calls) for _ in range(4)]

    assert codes == [KILLED, KILLED, KILLED, 0]
    assert calls.read_text().split() == ["1"] * 3 + ["2"] * 3
    assert Delivery.objects.get().state == "dead"


def test_bulk_call_that_ends_the_process_is_split(captured: HerokuConnect, tmp_path: Path) -> None:
    captured.create(Account, 2)
    captured.insert(Account, name="fatal in bulk")
    calls = tmp_path / "calls"

    codes = [end_of_worker(calls) for _ in range(4)]

    assert codes == [KILLED, KILLED, KILLED, 0]
    assert calls.read_text().splitlines() == ["bulk of 3"] * 3
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now()")
    codes = [end_of_worker(calls) for _ in range(4)]
    assert codes == [KILLED, KILLED, KILLED, 0]
    assert calls.read_text().splitlines()[3:] == ["bulk of 1"] * 3
    assert list(Delivery.objects.values_list("state", flat=True)) == ["dead"]


def test_process_killed_between_calls_fails_no_call(captured: HerokuConnect, tmp_path: Path) -> None:
    """After a process was killed between calls, calls are marked for a while: no failure is stored, no mark stays."""
    as_the_app("INSERT INTO public.hc_signals_run (run, consumer, is_locked) VALUES ('gone', 'default', true)")
    captured.create(Account, 5)

    assert end_of_worker(tmp_path / "calls", "--batch-size", "2") == 0

    assert Seen.objects.count() == 5
    assert (Delivery.objects.count(), rows("run"), rows("call")) == (0, 0, 0)


@pytest.mark.usefixtures("captured")
def test_running_process_is_not_counted_as_dead() -> None:
    as_the_app("INSERT INTO public.hc_signals_run (run, consumer, is_locked) VALUES ('other', 'default', true)")
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock_shared(%s, hashtext('other'))", [fatal_calls.RUNS])
        assert fatal_calls.take_dead_runs("default", "default") == 0
    finally:
        other.close()
    wait_until(lambda: fatal_calls.take_dead_runs("default", "default") == 1)  # the server ends the session in a moment
    assert fatal_calls.take_dead_runs("default", "default") == 0, "counted by one process"


def test_well_behaved_receivers_are_not_marked(captured: HerokuConnect, tmp_path: Path) -> None:
    captured.create(Account, 3)
    as_the_app("ALTER TABLE public.hc_signals_call RENAME TO hc_signals_gone")
    try:
        assert end_of_worker(tmp_path / "calls") == 0
    finally:
        as_the_app("ALTER TABLE public.hc_signals_gone RENAME TO hc_signals_call")
    assert Seen.objects.count() == 3
