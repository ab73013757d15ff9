"""hc_status as somebody reads it at three in the morning: a healthy system and broken ones, line by line."""

import ast
import json
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture import pausing, table_state, triggers
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import Rereading
from hc_signals.conf import Conf
from hc_signals.models import Delivery
from hc_signals.observability.findings import PROBLEMS
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import IS_OURS, as_heroku_connect, as_the_app, deliver
from tests.server import own
from tests.test_worker_process import asleep, listener, start, wait_until  # noqa: F401  (a fixture)

ROOT = Path(__file__).parent.parent
RUNBOOK = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


@pytest.fixture
def status(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run it; return what it printed, and at the end how it ended."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        try:
            call_command("hc_status", "--no-color", *arguments)
            end = "exit 0"
        except CommandError as error:
            end = f"exit {error.returncode}"
        return capsys.readouterr().out + end

    return run


@pytest.fixture
def worker(captured: HerokuConnect, listener: Callable[..., Any]) -> Iterator[Any]:  # noqa: F811
    connection.close()  # an earlier test may have delivered on it, as a worker does
    process = listener("--poll-interval", "600")
    wait_until(asleep)
    yield process


def lines(text: str, verdict: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(verdict)]


@pytest.mark.usefixtures("worker")
def test_a_healthy_system(status: Callable[..., str]) -> None:
    text = status()
    assert text.endswith("All is well.\nexit 0")
    first, *found, _, _ = text.splitlines()
    assert first.startswith("hc_status of 'default', ")
    assert all(line.startswith("ok ") for line in found), text
    assert [line.split()[1] for line in found] == [
        "server",
        *["capture"] * len(connected_models()),
        *["receivers"] * len(connected_models()),
        *["consumer", "bell", "connections", "deliveries", "gaps", "log", "writes", "writes"],
    ]
    assert "ok    consumer    default: 1 worker(s), nothing to deliver" in found
    assert any("1 listening connection(s), 'hc_listen default bell' is asleep" in line for line in found)


@pytest.mark.usefixtures("worker")
def test_the_keys_of_the_json_are_stable(status: Callable[..., str]) -> None:
    report = json.loads(status("--json").removesuffix("exit 0"))
    assert list(report) == ["verdict", "database", "checked_at", "findings"]
    assert (report["verdict"], report["database"]) == ("ok", "default")
    for finding in report["findings"]:
        assert list(finding) == ["name", "verdict", "text", "remedy", "facts", "problem"]
    facts = {finding["name"]: list(finding["facts"]) for finding in report["findings"]}
    assert facts["server"] == ["version", "in_recovery", "role", "database"]
    assert facts["capture"] == ["table", "state"]
    assert facts["consumer"] == ["consumer", "workers", "backlog", "oldest_seconds", "moved_at", "shards"]
    assert facts["bell"] == ["listeners", "asleep"]
    assert facts["connections"] == ["taken", "limit", "limit_of", "hc_listen"]
    assert facts["log"] == ["mb", "max_mb", "oldest", "buckets"]


def test_no_worker_and_a_backlog(captured: HerokuConnect, status: Callable[..., str]) -> None:
    assert "warn  consumer    default: has never run" in status()
    captured.create(Account, 3)
    deliver()
    connection.close()  # which would be a worker's
    captured.create(Account, 2)
    text = status()
    assert text.endswith("exit 1")
    (line,) = lines(text, "error")
    assert line.startswith("error consumer    default: 0 worker(s), 2 change(s) to deliver, the oldest ")
    assert "-> Start `manage.py hc_listen`, or let it go" in text
    assert "ok    bell        no worker, nobody to ring" in text


def test_capture_is_broken(captured: HerokuConnect, status: Callable[..., str]) -> None:
    deliver()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE salesforce.account DISABLE TRIGGER USER")
    triggers.uninstall(next(m for m in connected_models() if m._meta.model_name == "contact"), "default")
    pausing.pause("default")
    as_the_app(
        "UPDATE public.hc_signals_control "
        "SET gap_since = now() - interval '150 minutes', paused_at = now() - interval '30 minutes'"
    )
    as_heroku_connect("TRUNCATE salesforce.everything__c")
    text = status()
    pausing.resume("default", [])
    errors = lines(text, "error")
    assert "error capture     salesforce.account: disabled (a trigger is disabled)" in errors
    assert any(
        line.startswith("error capture     salesforce.contact: missing (no trigger for insert,") for line in errors
    )
    assert any(line.startswith("error capture     switched off 30 min ago") for line in errors)
    assert any(line.startswith("error capture     the gap of 2 h ago is not written") for line in errors)
    assert text.count("-> Run `manage.py hc_triggers install`") == 2
    assert text.endswith("exit 1")


def test_what_was_missed_and_is_not_told_or_read_again_yet(captured: HerokuConnect, status: Callable[..., str]) -> None:
    def warnings() -> list[str]:
        return [line for line in lines(status(), "warn") if " capture " in line]

    repairs = Repairs("default", Conf(), connected_models())
    repairs.look()
    assert warnings() == []
    account = table_state.read("default")["salesforce.account"]
    table_state.suspect("default", "salesforce.account", account, "trigger_missing")
    (line,) = warnings()
    assert line.startswith("warn  capture     salesforce.account: trigger_missing, complete until ")
    repairs.look()
    (line,) = warnings()
    assert line.startswith("warn  capture     salesforce.account: to be read again, what changed since ")
    assert Rereading("default", connected_models()).read_for(10)
    assert warnings() == []


def test_receivers_fail_and_changes_are_missed(
    captured: HerokuConnect, connect: Any, status: Callable[..., str]
) -> None:
    def fails(**kwargs: Any) -> None:
        raise ValueError("Top Secret")

    connect(signals.record_created, fails, Account)
    captured.create(Account, 2)
    deliver(RETRY_SECONDS=600)
    as_the_app(
        "INSERT INTO hc_signals_change (table_name, operation, origin, captured_at, note) VALUES "
        """('salesforce.contact', 'GAP', 'heroku_connect', now() - interval '150 minutes', '{"cause": "paused"}')"""
    )
    text = status()
    assert "warn  gaps        salesforce.contact: 1 (paused), the last 2 h ago" in text
    (line,) = [line for line in lines(text, "warn") if " deliveries " in line]
    assert line.startswith("warn  deliveries  default: 2 retry; tests.test_status.")
    assert "fails" in line
    Delivery.objects.filter(pk__in=Delivery.objects.values("pk")[:1]).update(state="dead")
    as_the_app("SELECT nextval('public.hc_signals_lost_seq')")
    text = status("--strict")
    assert "error deliveries  default: 1 dead, 1 retry; " in text
    assert "error gaps        1 statement(s) were not captured, and it is not told yet" in text
    assert "Secret" not in text


def test_heroku_connects_own_failures(captured: HerokuConnect, status: Callable[..., str]) -> None:
    as_the_app(
        "INSERT INTO salesforce._trigger_log (id, table_name, record_id, action, state, sf_message, created_at) "
        "VALUES (1, 'account', 1, 'UPDATE', 'FAILED', 'bad value: Top Secret', now() - interval '150 minutes')"
    )
    text = status()
    assert "warn  writes      salesforce._trigger_log: 1 failed, the last one on account 2 h ago\n" in text
    assert "Secret" not in text
    assert "account 2 h ago: bad value: Top Secret" in status("--verbose")


@pytest.mark.usefixtures("worker")
def test_a_deaf_worker_is_found_out(status: Callable[..., str], worker: Any) -> None:
    worker.send_signal(signal.SIGSTOP)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '% bell' AND {IS_OURS}"
        )
    wait_until(lambda: not asleep())
    text = status()
    worker.send_signal(signal.SIGCONT)
    assert "error bell        0 listening connection(s), nobody asleep" in text
    assert "[bell-nobody-listens]" in text


def test_what_it_may_not_see_is_a_warning(captured: HerokuConnect, status: Callable[..., str]) -> None:
    onlooker = own("hc_onlooker")
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {onlooker}")
        cursor.execute(f"SET ROLE {onlooker}")
        try:
            text = status()
        finally:
            cursor.execute("RESET ROLE")
            cursor.execute(f"DROP ROLE {onlooker}")
    assert "warn  consumer    permission denied for" in text
    assert "ok    capture     salesforce.account: installed" in text
    assert "[not-looked-at]" in text


def test_no_log_is_said_and_nothing_else(heroku: HerokuConnect, status: Callable[..., str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE public.hc_signals_change RENAME TO hc_signals_gone")
        try:
            text = status()
        finally:
            cursor.execute("ALTER TABLE public.hc_signals_gone RENAME TO hc_signals_change")
    assert [line.split()[1] for line in lines(text, "ok")] == ["server"]
    assert lines(text, "error") == ["error log         the change log does not exist"]


def test_a_server_that_restarts_is_one_sentence() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]
        process = start("hc_status", DATABASE_URL=f"postgresql://postgres@127.0.0.1:{port}/x", TEST_DATABASE="x")
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert len(output.splitlines()) == 1, output
    assert "The database 'default' answered: connection failed" in output


def test_watching_goes_on_until_it_is_ended(captured: HerokuConnect) -> None:
    process = start("hc_status", "--watch", "0.2", "--json")
    assert process.stdout is not None
    first, second = json.loads(process.stdout.readline()), json.loads(process.stdout.readline())
    assert first["checked_at"] < second["checked_at"]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in output


def test_every_problem_has_a_remedy_that_ends() -> None:
    for key, (_, remedy) in PROBLEMS.items():
        assert remedy.endswith("."), key


def test_the_runbook_has_a_section_for_every_problem() -> None:
    assert set(re.findall(r"^### (\S+)$", RUNBOOK, re.MULTILINE)) == set(PROBLEMS)


def test_the_runbook_has_every_line_of_the_log() -> None:
    lines = [re.sub(r"%(\.0f|[sr])", "…", template) for template in templates()]
    assert len(lines) > 15
    for line in lines:
        assert f"| `{line}` |" in RUNBOOK


def templates() -> Iterator[str]:
    """Yield every warning and error of the package's own log."""
    for path in set((ROOT / "hc_signals").rglob("*.py")) - {ROOT / "hc_signals" / "delivery" / "receiver_errors.py"}:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "logger.warning",
                "logger.error",
                "logger.log",
            ):
                yield from (each.value for each in node.args if isinstance(each, ast.Constant))
