"""hc_triggers probe: what it shows of each writer, which rule it advises, and what it leaves when it is killed."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from example.crm.models import Account

from hc_signals.capture import probe
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.status import find_tables, status_of
from hc_signals.conf import Conf
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import another, as_heroku_connect, as_the_app
from tests.test_origins import NAME, captured_by, session
from tests.test_worker_process import start, wait_until
from tests.test_writers import STATEMENTS

LEFT = """
SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'hc\\_probe%%')
    + (SELECT count(*) FROM pg_proc WHERE proname LIKE 'hc\\_signals\\_probe%%')
    + (SELECT count(*) FROM pg_class WHERE relname = 'hc_signals_probed')
"""


def left() -> int:
    with connection.cursor() as cursor:
        cursor.execute(LEFT)
        return int(cursor.fetchone()[0])


class Probe:
    """A running probe of crm.Account. ``lines`` are what it has printed."""

    def __init__(self, *arguments: str, origins: Any = ("heroku_connect",)) -> None:
        self.lines: list[str] = []
        setting = json.dumps({"ORIGINS": list(origins)})
        self.process = start("hc_triggers", "probe", "crm.Account", *arguments, HC_SIGNALS_JSON=setting)
        self._reader = threading.Thread(target=lambda: self.lines.extend(map(str.rstrip, self.process.stdout or ())))
        self._reader.start()

    def saw(self, text: str) -> str:
        """Wait for a line with this text."""
        wait_until(lambda: any(text in line for line in self.lines) or not self._reader.is_alive())
        found = [line for line in self.lines if text in line]
        assert found, "\n".join(self.lines)
        return found[0]

    def end(self) -> int:
        """End it by Ctrl-C; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(timeout=60)
        self._reader.join()
        if self.process.stdout:
            self.process.stdout.close()
        return code

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def run(captured: HerokuConnect) -> Iterator[Callable[..., Probe]]:
    started: list[Probe] = []

    def begin(*arguments: str, **options: Any) -> Probe:
        started.append(Probe(*arguments, **options))
        started[-1].saw("Let the tool write now")
        return started[-1]

    yield begin
    for each in started:
        each.process.kill()
        each.wait()
    probe.remove("default")


def test_probe_of_captured_writers_exits_0(run: Callable[..., Probe]) -> None:
    running = run()
    as_heroku_connect("INSERT INTO salesforce.account (name) VALUES ('secret'), ('secret')")
    as_heroku_connect("UPDATE salesforce.account SET name = 'x' WHERE false")
    line = running.saw("INSERT")
    assert "salesforce.account  INSERT  2 rows  application_name " in line
    assert line.endswith("xmlbinary hex  captured (heroku_connect)")
    running.saw("UPDATE  0 rows")
    assert running.end() == 0, running.text
    assert "statements  rows  kind    writer" in running.text
    assert "secret" not in running.text
    assert left() == 0


def test_probe_advises_a_rule_for_another_tool(run: Callable[..., Probe]) -> None:
    running = run()
    with session(application_name="airbyte - 10.0.0.7:4711") as mirror:
        mirror.execute("INSERT INTO salesforce.account (name) VALUES ('a'), ('b'), ('c')")
    running.saw("not captured")
    assert running.end() == 1
    assert '    "ORIGINS": ["heroku_connect", {"application_name": "airbyte - *"}],' in running.text
    assert running.lines[-1] == "CommandError: 1 of 1 statements with rows were not captured."


def test_probe_advises_a_name_if_no_rule_would_fit(run: Callable[..., Probe]) -> None:
    running = run()
    as_the_app("INSERT INTO salesforce.account (name) VALUES ('a')")
    running.saw("not captured")
    assert running.end() == 1
    assert running.lines[-1].endswith("give the tool an application_name of its own.")


def test_probe_without_statements_exits_1(run: Callable[..., Probe]) -> None:
    running = run("--seconds", "0.3")
    assert running.wait() == 1
    assert running.lines[-1].startswith("CommandError: No statement with rows has reached these tables")
    assert left() == 0


def test_probe_prints_each_session_as_json(run: Callable[..., Probe], captured: HerokuConnect) -> None:
    running = run("--json", "--variable", "mirror.origin", origins=[NAME])
    with session(application_name="airbyte", options="-c mirror.origin=salesforce") as mirror:
        mirror.execute("SET ROLE pg_monitor; RESET ROLE")
        mirror.execute("INSERT INTO salesforce.account (name) VALUES ('a')")
    assert running.end() == 1, "the triggers have the rules of another service"
    found, summary = running.objects
    assert (
        found.items()
        >= {
            "table": "salesforce.account",
            "operation": "INSERT",
            "statement": "INSERT",
            "rows": 1,
            "application_name": "airbyte",
            "session_role": connection.settings_dict["USER"],
            "current_role": connection.settings_dict["USER"],
            "xmlbinary": "base64",
            "replication_role": "origin",
            "variables": {"mirror.origin": "salesforce"},
            "origin": "application_name=airbyte",
            "captured": False,
        }.items()
    )
    assert summary == {"summary": {"statements": 1, "captured": 0, "origins": []}}
    assert "A rule fits them, but the triggers do not work" in running.text


KINDS = {
    **{kind: [kind] for kind in ("INSERT", "UPDATE", "DELETE", "TRUNCATE")},
    "INSERT ... SELECT": ["INSERT"],
    "ON CONFLICT DO UPDATE": ["INSERT by INSERT ON CONFLICT", "UPDATE by INSERT ON CONFLICT"],
    "ON CONFLICT DO NOTHING": ["INSERT by INSERT ON CONFLICT"],
    "WITH": ["DELETE", "INSERT"],
    "MERGE": ["INSERT by MERGE", "UPDATE by MERGE"],
    "DO": ["UPDATE by DO"],
}


def test_probe_names_the_kind_of_each_statement(run: Callable[..., Probe]) -> None:
    """Comments, a statement before it, and SQL in the text of a value make no other kind."""
    with captured_by(NAME), session(application_name="airbyte") as mirror:
        running = run("--json", origins=[NAME])
        expected: list[str] = []
        for kind, (statement, _) in STATEMENTS.items():
            if kind == "MERGE" and mirror.info.server_version < 150_000:
                continue
            mirror.execute(
                "DELETE FROM salesforce.account; INSERT INTO salesforce.account (id, name) VALUES (1, 'a'), (2, 'b')"
            )
            mirror.execute(f"/* a; */ -- ' it's\n {statement}")
            expected += ["DELETE", "INSERT", *KINDS[kind]]
        with mirror.cursor().copy("COPY salesforce.account (name) FROM STDIN") as rows:
            rows.write("a\n")
        mirror.execute("INSERT INTO salesforce.account (name) VALUES ('x on conflict y')")
        expected += ["INSERT by COPY", "INSERT"]
        wait_until(lambda: len(running.objects) >= len(expected))
        assert running.end() == 0, running.text
    kinds = [
        each["operation"] + f" by {each['statement']}" * (each["operation"] != each["statement"])
        for each in running.objects[:-1]
    ]
    assert sorted(kinds) == sorted(expected)


def test_probe_sees_roles_and_replica_sessions(run: Callable[..., Probe]) -> None:
    running = run("--json")
    with session(options="-c session_replication_role=replica") as mirror:
        mirror.execute("SET xmlbinary = hex; SET ROLE pg_monitor")
        mirror.execute("RESET ROLE")
        mirror.execute("INSERT INTO salesforce.account (name) VALUES ('a')")
    assert running.end() == 0
    assert running.objects[0]["replication_role"] == "replica"


@pytest.mark.fault(
    "`hc_triggers probe` is killed",
    outcome="its triggers do nothing; `install`, `hc_listen` or the next probe removes them",
)
@pytest.mark.parametrize("remover", ["install", "worker", "probe"])
def test_killed_probe_is_removed(run: Callable[..., Probe], remover: str) -> None:
    killed = run()
    killed.process.kill()
    killed.wait()
    wait_until(lambda: not holders())
    as_the_app("INSERT INTO salesforce.account (name) VALUES ('a')")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.hc_signals_probed")
        assert cursor.fetchone() == (0,), "it still notes"
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
        assert cursor.fetchone() == (0,)
    assert left() > 0
    if remover == "install":
        out = StringIO()
        call_command("hc_triggers", "install", stdout=out)
        assert "The triggers of a `hc_triggers probe` that was killed were removed." in out.getvalue()
    elif remover == "worker":
        Repairs("default", Conf(), connected_models()).run()
    else:
        assert run("--seconds", "0.1").wait() == 1
    assert left() == 0


def holders() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT NOT {probe.IS_ENDED}")
        return bool(cursor.fetchone()[0])


def test_second_probe_is_refused(run: Callable[..., Probe]) -> None:
    run()
    call_command("hc_triggers", "install", stdout=StringIO())
    assert left() > 0, "install leaves a running probe alone"
    with pytest.raises(CommandError, match="Another `hc_triggers probe` runs"):
        call_command("hc_triggers", "probe", "crm.Account")


@pytest.mark.fault(
    "`hc_triggers probe` cannot note a statement: its table is locked or gone",
    outcome="the writer waits a tenth of a second at most and goes on",
)
def test_probe_never_fails_a_writer(run: Callable[..., Probe]) -> None:
    run()
    with another("LOCK TABLE public.hc_signals_probed"):
        as_the_app("INSERT INTO salesforce.account (name) VALUES ('a')")
    as_the_app("DROP TABLE public.hc_signals_probed")
    as_the_app("INSERT INTO salesforce.account (name) VALUES ('a')")
    as_the_app("DELETE FROM salesforce.account")
    assert Account.objects.count() == 0


def test_probe_is_no_drift(run: Callable[..., Probe]) -> None:
    before = find_tables([Account], "default")[0].versions
    running = run()
    assert status_of(Account, "default").state == "installed"
    assert find_tables([Account], "default")[0].versions == before
    running.end()
    assert find_tables([Account], "default")[0].versions == before


def test_probe_waits_for_no_locked_table(run: Callable[..., Probe]) -> None:
    with another("LOCK TABLE salesforce.account IN ACCESS EXCLUSIVE MODE"), pytest.raises(AssertionError) as error:
        run()
    assert "salesforce.account: not probed: " in str(error.value)
    assert "No table was probed" in str(error.value)
    assert left() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status", "--seconds", "3"), "--seconds goes with `hc_triggers probe` only"),
        (("probe", "--check"), "--check goes with `hc_triggers status` only"),
        (("probe", "--variable", "data_directory"), "'data_directory' is no variable; expected a name with a dot"),
        (("probe", "--seconds", "0"), "0 is out of range"),
    ],
)
def test_wrong_usage_of_probe_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("hc_triggers", *arguments)
