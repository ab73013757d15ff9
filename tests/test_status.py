"""hc_status on a healthy system and on broken ones: its lines, its JSON and its exit codes."""

import ast
import json
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command, execute_from_command_line
from django.db import connection
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture import pausing, table_state
from hc_signals.capture.install import uninstall_capture
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import Rereading
from hc_signals.conf import Conf
from hc_signals.log import positions
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
    """Run hc_status; return its output with the exit code at the end."""

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
    connection.close()  # an earlier test may have announced a worker on it
    process = listener("--poll-interval", "600")
    wait_until(asleep)
    yield process


def lines(text: str, verdict: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(verdict)]


@pytest.mark.usefixtures("worker")
def test_healthy_system_is_ok_line_by_line(status: Callable[..., str]) -> None:
    text = status()
    assert text.endswith("All is well.\nexit 0")
    first, *found, _, _ = text.splitlines()
    assert first.startswith("hc_status of 'default', ")
    assert all(line.startswith("ok ") for line in found), text
    assert [line.split()[1] for line in found] == [
        "server",
        *["capture"] * len(connected_models()),
        *["receivers"] * len(connected_models()),
        *["consumer", "bell", "connections", "deliveries", "gaps", "log"],
        *["freshness", "freshness", "writes", "writes"],
    ]
    assert "ok    consumer    default: 1 worker(s), nothing to deliver" in found
    assert any("1 listening connection(s), 'hc_listen default bell' is asleep" in line for line in found)


@pytest.mark.usefixtures("worker")
def test_json_has_stable_keys(status: Callable[..., str]) -> None:
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


def test_backlog_without_a_worker_is_an_error(captured: HerokuConnect, status: Callable[..., str]) -> None:
    assert "warn  consumer    default: has never run" in status()
    captured.create(Account, 3)
    deliver()
    connection.close()  # deliver() has announced a worker on it
    captured.create(Account, 2)
    text = status()
    assert text.endswith("exit 1")
    (line,) = lines(text, "error")
    assert line.startswith("error consumer    default: 0 worker(s), 2 change(s) to deliver, the oldest ")
    assert "-> Start `manage.py hc_listen`: the log keeps the changes for it. [consumer-no-worker]" in text
    assert "ok    bell        no worker to wake" in text


def test_broken_capture_is_an_error(captured: HerokuConnect, status: Callable[..., str]) -> None:
    deliver()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE salesforce.account DISABLE TRIGGER USER")
    uninstall_capture(next(m for m in connected_models() if m._meta.model_name == "contact"), "default")
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


def test_unreported_gap_and_unread_rows_are_warnings(captured: HerokuConnect, status: Callable[..., str]) -> None:
    def warnings() -> list[str]:
        return [line for line in lines(status(), "warn") if " capture " in line]

    repairs = Repairs("default", Conf(), connected_models())
    repairs.run()
    assert warnings() == []
    account = table_state.read("default")["salesforce.account"]
    table_state.record_cause("default", "salesforce.account", account, "trigger_missing")
    (line,) = warnings()
    assert line.startswith("warn  capture     salesforce.account: trigger_missing, complete until ")
    repairs.run()
    (line,) = warnings()
    assert line.startswith("warn  capture     salesforce.account: to be read again, what changed since ")
    assert Rereading("default", connected_models()).read_for(10)
    assert warnings() == []


def test_failed_receivers_and_gaps_are_shown(captured: HerokuConnect, connect: Any, status: Callable[..., str]) -> None:
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
    assert "warn  gaps        crm.Contact: 1 (paused), the last 2 h ago" in text
    (line,) = [line for line in lines(text, "warn") if " deliveries " in line]
    assert line.startswith("warn  deliveries  default: 2 retry; tests.test_status.")
    assert "fails" in line
    Delivery.objects.filter(pk__in=Delivery.objects.values("pk")[:1]).update(state="dead")
    as_the_app("SELECT nextval('public.hc_signals_lost_seq')")
    text = status("--strict")
    assert "error deliveries  default: 1 dead, 1 retry; " in text
    assert "error gaps        1 statement(s) were not captured, the gap is not sent yet" in text
    assert "Secret" not in text


def test_reported_gaps_of_every_model_are_shown(
    captured: HerokuConnect, status: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has no row of them. They stay for a day, although old positions are deleted."""
    monkeypatch.setattr(positions, "PRUNE_SHARE", 1.0)
    monkeypatch.setattr(positions, "KEPT_IDS", 0)
    for consumer in ("default", "other"):
        deliver(CONSUMER=consumer)
    as_the_app("SELECT nextval('public.hc_signals_lost_seq')")
    deliver()
    as_the_app("UPDATE hc_signals_control SET timeline = timeline + 1")  # as after a promotion
    for _ in range(2):
        captured.create(Account, 2)
        for consumer in ("default", "other"):
            deliver(CONSUMER=consumer)
        text = status()
        assert "warn  gaps        every model: 1 (failed_over), the last " in text
        assert "warn  gaps        every model: 1 (capture_failed), the last " in text
    as_the_app("UPDATE hc_signals_position SET created_at = created_at - interval '25 hours'")
    assert "ok    gaps        none in 24 h" in status()


def test_refused_writes_are_shown_without_values(captured: HerokuConnect, status: Callable[..., str]) -> None:
    as_the_app(
        "INSERT INTO salesforce._trigger_log (id, table_name, record_id, action, state, sf_message, created_at) "
        "VALUES (1, 'account', 1, 'UPDATE', 'FAILED', 'bad value: Top Secret', now() - interval '150 minutes')"
    )
    text = status()
    assert "warn  writes      salesforce._trigger_log: 1 failed, the last one on account 2 h ago\n" in text
    assert "Secret" not in text
    assert "account 2 h ago: bad value: Top Secret" in status("--verbose")


@pytest.mark.usefixtures("worker")
def test_worker_without_its_listener_is_an_error(status: Callable[..., str], worker: Any) -> None:
    worker.send_signal(signal.SIGSTOP)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '% bell' AND {IS_OURS}"
        )
    wait_until(lambda: not asleep())
    text = status()
    worker.send_signal(signal.SIGCONT)
    assert "error bell        0 listening connection(s), none asleep" in text
    assert "[bell-no-listener]" in text


def test_missing_right_is_a_warning(captured: HerokuConnect, status: Callable[..., str]) -> None:
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
    assert "[not-checked]" in text


def test_missing_log_is_the_only_finding(heroku: HerokuConnect, status: Callable[..., str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE public.hc_signals_change RENAME TO hc_signals_gone")
        try:
            text = status()
        finally:
            cursor.execute("ALTER TABLE public.hc_signals_gone RENAME TO hc_signals_change")
    assert [line.split()[1] for line in lines(text, "ok")] == ["server"]
    assert lines(text, "error") == ["error log         the change log does not exist"]


def test_unreachable_server_is_one_sentence() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        process = start("hc_status", DATABASE_URL=f"postgresql://postgres@127.0.0.1:{port}/x", TEST_DATABASE="x")
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert len(output.splitlines()) == 1, output
    assert "The database 'default' answered: connection failed" in output


def test_watch_repeats_until_ctrl_c(captured: HerokuConnect) -> None:
    process = start("hc_status", "--watch", "0.2", "--json")
    assert process.stdout is not None
    first, second = json.loads(process.stdout.readline()), json.loads(process.stdout.readline())
    assert first["checked_at"] < second["checked_at"]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in output


def test_summary_is_printed_once(captured: HerokuConnect, capsys: pytest.CaptureFixture[str]) -> None:
    deliver()
    captured.create(Account, 1)
    with pytest.raises(SystemExit) as exit_:
        execute_from_command_line(["manage.py", "hc_status"])
    assert exit_.value.code == 1
    said = capsys.readouterr()
    assert (said.out + said.err).count("error(s), ") == 1
    assert said.err.endswith("`manage.py hc_status --explain NAME` has more about each [name].\n")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_problem_is_explained(status: Callable[..., str], problem: str) -> None:
    text = status("--explain", problem)
    assert text.startswith(f"{problem}\n\n")
    assert re.match(r"(Warning|Error)\. ", text.split("\n\n")[1])
    assert "](" not in text and "\n#" not in text
    assert text.endswith("exit 0")


def test_unknown_problem_gets_suggestions() -> None:
    with pytest.raises(CommandError, match="'consumer-worker'; did you mean consumer-no-worker or "):
        call_command("hc_status", "--explain", "consumer-worker")


def test_no_remedy_destroys_anything() -> None:
    """Commands that drop changes, deliveries or capture are in the runbook only, with what they presuppose."""
    harmful = r"hc_consumers remove|discard|uninstall|pause|--force|DISABLE|DROP|TRUNCATE|--with-deliveries"
    for key, (_, remedy) in PROBLEMS.items():
        assert not re.search(harmful, remedy), key


def test_every_remedy_is_a_sentence() -> None:
    for key, (_, remedy) in PROBLEMS.items():
        assert remedy.endswith("."), key


def test_runbook_has_a_section_for_every_problem() -> None:
    assert set(re.findall(r"^### (\S+)$", RUNBOOK, re.MULTILINE)) == set(PROBLEMS)


def test_runbook_has_every_line_of_the_log() -> None:
    lines = [re.sub(r"%(\.0f|[sr])", "…", template) for template in templates()]
    assert len(lines) > 15
    for line in lines:
        assert f"| `{line}` |" in RUNBOOK


def templates() -> Iterator[str]:
    """Yield every warning and error of the package's own log."""
    for path in set((ROOT / "hc_signals").rglob("*.py")) - {ROOT / "hc_signals" / "delivery" / "project_code.py"}:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "logger.warning",
                "logger.error",
                "logger.log",
            ):
                yield from (each.value for each in node.args if isinstance(each, ast.Constant))
