"""A real hc_listen process: woken by the doorbell, killed, stopped, misconfigured."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connection
from example.crm.models import Account, Seen

from hc_signals.postgres.locks import BELL
from hc_signals.testing import HerokuConnect
from tests.conftest import IS_OURS, another, as_heroku_connect, as_the_app

ROOT = Path(__file__).parent.parent


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "example" / "manage.py"), *arguments],
        env=on_test_database(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def on_test_database(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment of a process that works on the test database."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}",
        "TEST_DATABASE": connection.settings_dict["NAME"],
        **environment,
    }


RUN_EACH = """
import json, os, sys
import django
from django.core.management import execute_from_command_line

django.setup()
said = []
for arguments in json.loads(sys.argv[1]):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        execute_from_command_line(["manage.py", *arguments])
        sys.exit()
    os.close(writer)
    with open(reader) as output:
        text = output.read()
    said.append([text, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])])
print(json.dumps(said))
"""


def run_each(commands: list[list[str]], **environment: str) -> list[tuple[str, int]]:
    """Run command lines, each in a process of its own that has Django set up already: that takes most of the time.

    Return what each one prints, and its exit code.
    """
    done = subprocess.run(
        [sys.executable, "-c", RUN_EACH, json.dumps(commands)],
        env=on_test_database(environment),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return [(text, code) for text, code in json.loads(done.stdout)]


@pytest.fixture
def listener() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def launch(*arguments: str) -> subprocess.Popen[str]:
        started.append(start("hc_listen", *arguments))
        return started[-1]

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def asleep() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s "
            f"AND mode = 'ExclusiveLock' AND granted AND {IS_OURS}",
            BELL,
        )
        return bool(cursor.fetchone()[0])


def insert(count: int) -> None:
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name) SELECT 'S' || g || '-' || (SELECT count(*) FROM "
        "salesforce.account), 'n' FROM generate_series(1, %s) g",
        [count],
    )


@pytest.mark.usefixtures("captured")
def test_sleeping_worker_is_woken_and_sigterm_ends_it(listener: Callable[..., subprocess.Popen[str]]) -> None:
    process = listener("--poll-interval", "600")  # no fallback poll can help
    for round_number in range(1, 4):
        wait_until(asleep)
        insert(2)
        wait_until(lambda n=round_number: Seen.objects.count() == 2 * n)  # type: ignore[misc]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0


@pytest.mark.usefixtures("captured")
def test_sigterm_ends_a_process_with_endless_threads() -> None:
    """Python would wait for a thread that a receiver has started."""
    insert(1)
    process = start("hc_listen", ENDLESS_THREAD="1")
    try:
        wait_until(lambda: Seen.objects.count() == 1)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "ended, although threads of the project still run: endless." in said
    finally:
        process.kill()
        process.communicate()


WAIT_AT_1000 = """
CREATE SEQUENCE public.seen_number;
CREATE FUNCTION public.wait_at_1000() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('public.seen_number') = 1000 THEN
        PERFORM pg_advisory_xact_lock(1000);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER wait_at_1000 BEFORE INSERT ON public.crm_seen FOR EACH ROW EXECUTE FUNCTION public.wait_at_1000()
"""


@pytest.mark.usefixtures("captured")
def test_sigkill_loses_nothing_and_doubles_nothing(listener: Callable[..., subprocess.Popen[str]]) -> None:
    """The worker is killed in the middle of a page: its receiver's thousandth write waits for a lock of the test."""
    insert(3000)
    as_the_app(WAIT_AT_1000)
    try:
        with another("SELECT pg_advisory_xact_lock(1000)"):
            process = listener("--batch-size", "50")
            wait_until(waits_for_the_lock)
            process.kill()
            process.wait()
            assert 0 < Seen.objects.count() < 1000
        listener("--batch-size", "50")
        wait_until(lambda: Seen.objects.count() >= 3000)
        assert Seen.objects.values("event_id").distinct().count() == Seen.objects.count() == 3000
    finally:
        as_the_app("DROP FUNCTION public.wait_at_1000 CASCADE; DROP SEQUENCE public.seen_number")


def waits_for_the_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {IS_OURS}")
        return bool(cursor.rowcount)


@pytest.mark.usefixtures("captured")
def test_worker_goes_on_when_its_backend_is_terminated(listener: Callable[..., subprocess.Popen[str]]) -> None:
    process = listener("--poll-interval", "600")
    wait_until(asleep)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    insert(5)
    wait_until(lambda: Seen.objects.count() == 5)
    wait_until(asleep)
    insert(5)
    wait_until(lambda: Seen.objects.count() == 10)
    assert process.poll() is None


MISTAKES: list[tuple[list[str], int, str]] = [
    (["hc_listen"], 1, "run `manage.py hc_triggers install` first"),
    (["hc_listen", "--database", "nope"], 1, "'nope' doesn't exist"),
    (["hc_listen", "--batch-size", "0"], 1, "HC_SIGNALS['BATCH_SIZE'] is 0"),
    (["hc_listen", "--batch-size", "x"], 2, "invalid int value"),
    (["hc_triggers", "install", "crm.Nope"], 1, "There is no model 'crm.Nope'"),
    (["hc_listen", "--poll-interval", "-1"], 1, "HC_SIGNALS['POLL_INTERVAL'] is -1.0"),
    (["hc_listen", "--start-at", "soon"], 2, "'soon' is not a time"),
    (["hc_consumers", "start", "new", "--at", "2099-01-01"], 2, "lies in the future"),
    (["hc_consumers", "remove", "nope"], 1, "There is no consumer 'nope'; known: none."),
    (["hc_triggers", "status", "--check"], 1, "run `manage.py hc_triggers install`"),
    (["hc_triggers", "install", "crm.Seen"], 1, "'crm.Seen' is not a connected model"),
    (["hc_triggers", "explode"], 2, "invalid choice: 'explode'"),
    (["hc_triggers", "install", "--database", "nope"], 1, "'nope' doesn't exist"),
    (["hc_simulate", "--actions", "poll,dance"], 2, "'dance' is unknown"),
    (["hc_simulate", "--rate", "0"], 2, "0 is out of range"),
    (["hc_simulate", "--database", "nope"], 1, "'nope' doesn't exist"),
]


@pytest.mark.usefixtures("heroku")
def test_mistakes_are_answered_in_one_sentence() -> None:
    outcomes = run_each([arguments for arguments, _, _ in MISTAKES])
    for (arguments, code, words), (output, found) in zip(MISTAKES, outcomes, strict=True):
        assert words in output, arguments
        assert "Traceback" not in output, arguments
        assert found == code, arguments


def test_unreachable_server_is_reported_in_one_sentence() -> None:
    commands = [["hc_listen", "--no-wait"], ["hc_triggers", "status"], ["hc_simulate", "--create-only"]]
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        outcomes = run_each(commands, DATABASE_URL=url, TEST_DATABASE="x")
    for command, (output, code) in zip(commands, outcomes, strict=True):
        assert "Connection refused" in output, command
        assert "Traceback" not in output, command
        assert code == 1, command


@pytest.mark.usefixtures("captured")
def test_wrong_setting_is_reported_with_the_right_one() -> None:
    process = start("hc_listen", "--once", WRONG_SETTING="BATCHSIZE")
    output, _ = process.communicate(timeout=60)
    assert "HC_SIGNALS has the unknown key 'BATCHSIZE'; did you mean 'BATCH_SIZE'?" in output
    assert process.returncode == 1


@pytest.mark.usefixtures("heroku")
def test_missing_log_is_reported_before_any_change() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE public.hc_signals_change RENAME TO hc_signals_gone")
    try:
        for output, code in run_each([["hc_listen"], ["hc_triggers", "install"]]):
            assert "run `manage.py migrate hc_signals` first" in output
            assert code == 1
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'hc\\_signals\\_%'")
            assert cursor.fetchone() == (0,)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE public.hc_signals_gone RENAME TO hc_signals_change")


def test_once_delivers_and_exits(captured: HerokuConnect) -> None:
    captured.create(Account, 7)
    process = start("hc_listen", "--once")
    output, _ = process.communicate(timeout=60)
    assert "7 changes delivered" in output
    assert process.returncode == 0
    assert Seen.objects.count() == 7


def test_log_holds_no_record_contents(captured: HerokuConnect) -> None:
    captured.insert(Account, name="Top Secret Ltd")
    process = start("hc_listen", "--once", "-v", "3", FAILING_RECEIVER="1")
    output, _ = process.communicate(timeout=60)
    assert "failed on CREATE of crm.Account" in output
    assert "Secret" not in output


def test_simulator_plays_for_a_while_and_logs(heroku: HerokuConnect) -> None:
    process = start("hc_simulate", "--duration", "3", "--rate", "200", "--batch", "20", "--seed", "3")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    lines = [line for line in output.splitlines() if "records written" in line]
    assert len(lines) >= 2, "progress and summary"
    assert lines[-1].endswith("stopped")
