"""A real hc_listen process: woken by the doorbell, killed, stopped, misconfigured."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connection
from example.crm.models import Seen

from hc_signals.doorbell import LOCK
from tests.conftest import as_heroku_connect

ROOT = Path(__file__).parent.parent


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}",
        "TEST_DATABASE": connection.settings_dict["NAME"],
    }
    return subprocess.Popen(
        [sys.executable, str(ROOT / "example" / "manage.py"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


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


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def asleep() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s "
            "AND mode = 'ExclusiveLock' AND granted",
            LOCK,
        )
        return bool(cursor.fetchone()[0])


def insert(count: int) -> None:
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name) SELECT 'S' || g || '-' || (SELECT count(*) FROM "
        "salesforce.account), 'n' FROM generate_series(1, %s) g",
        [count],
    )


@pytest.mark.usefixtures("captured")
def test_a_sleeping_worker_is_rung_and_sigterm_ends_it(listener: Callable[..., subprocess.Popen[str]]) -> None:
    process = listener("--poll-interval", "600")  # no fallback poll can help
    for round_number in range(1, 4):
        wait_until(asleep)
        insert(2)
        wait_until(lambda n=round_number: Seen.objects.count() == 2 * n)  # type: ignore[misc]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0


@pytest.mark.usefixtures("captured")
def test_sigkill_loses_nothing_and_doubles_nothing(listener: Callable[..., subprocess.Popen[str]]) -> None:
    insert(3000)
    process = listener("--batch-size", "50")
    wait_until(lambda: Seen.objects.count() > 100)
    process.kill()
    process.wait()
    assert Seen.objects.count() < 3000, "the worker was done before it was killed: the test proves nothing"
    listener("--batch-size", "50")
    wait_until(lambda: Seen.objects.count() >= 3000)
    assert Seen.objects.values("event_id").distinct().count() == Seen.objects.count() == 3000


@pytest.mark.usefixtures("captured")
def test_a_terminated_backend_is_survived(listener: Callable[..., subprocess.Popen[str]]) -> None:
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


@pytest.mark.usefixtures("heroku")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["hc_listen"], 1, "run `manage.py hc_triggers install` first"),
        (["hc_listen", "--database", "nope"], 1, "'nope' doesn't exist"),
        (["hc_listen", "--batch-size", "0"], 1, "HC_SIGNALS['BATCH_SIZE'] is 0"),
        (["hc_listen", "--batch-size", "x"], 2, "invalid int value"),
        (["hc_triggers", "install", "crm.Nope"], 1, "There is no model 'crm.Nope'"),
        (["hc_triggers", "status", "--check"], 1, "run `manage.py hc_triggers install`"),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments: list[str], code: int, words: str) -> None:
    process = start(*arguments)
    output, _ = process.communicate(timeout=30)
    assert words in output
    assert "Traceback" not in output
    assert process.returncode == code
