"""Tables that people create, not Heroku Connect: captured if possible, otherwise every command says why not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import ProgrammingError, connection, connections
from example.crm.models import Account

from hc_signals.capture import table_state
from hc_signals.capture.function import function_name
from hc_signals.capture.reloads import finish_reloads
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import Rereading
from hc_signals.capture.snapshots import check_captured
from hc_signals.capture.status import status_of
from hc_signals.checks.database import check_capture
from hc_signals.conf import Conf
from hc_signals.exceptions import SnapshotError
from hc_signals.log.schema import install_sql
from hc_signals.models import Change
from hc_signals.observability.judge import examine
from hc_signals.postgres.errors import sqlstate
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, as_the_app, lost
from tests.server import Server, installation, own
from tests.test_reloads import fill, hours_pass

TABLE = "salesforce.account"


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("hc_triggers", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def problems() -> dict[str, str]:
    """Return the problems that hc_status finds, by their text."""
    return {each.text: each.problem for each in examine("default", Conf(), ask_heroku=False) if each.problem}


def look() -> None:
    Repairs("default", Conf(), connected_models()).run()
    Rereading("default", connected_models()).read_for(30)


def logged() -> list[tuple[str, str | None]]:
    """Return operation and name of each change in the log, and empty the log."""
    found = [
        (change.operation, ((change.new or change.old or {}).get("name")))
        for change in Change.objects.filter(table_name=TABLE)
    ]
    as_the_app("TRUNCATE public.hc_signals_change")
    return found


NO_TABLES = {
    "a view": "CREATE VIEW salesforce.account AS SELECT * FROM salesforce.base",
    "a materialized view": "CREATE MATERIALIZED VIEW salesforce.account AS SELECT * FROM salesforce.base",
    "a foreign table": "CREATE FOREIGN DATA WRAPPER hc_none; CREATE SERVER hc_none FOREIGN DATA WRAPPER hc_none; "
    "CREATE FOREIGN TABLE salesforce.account (id int, sfid text) SERVER hc_none",
    "no table": "CREATE SEQUENCE salesforce.account",
}


@pytest.mark.fault(
    "the model's table is a view, a materialized view or a foreign table",
    outcome="`unsupported` in every command; the other tables are captured",
)
@pytest.mark.parametrize("kind", NO_TABLES)
def test_commands_say_that_a_view_is_unsupported(
    captured: HerokuConnect, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is installed there, no command fails, and the other tables are captured."""
    as_the_app("ALTER TABLE salesforce.account RENAME TO base")
    try:
        as_the_app(NO_TABLES[kind])
        assert f"{TABLE}: unsupported (it is {kind}" in command("install")
        assert f"{TABLE}: unsupported (it is {kind}" in command("status")
        with pytest.raises(CommandError, match=r"Cannot be captured: salesforce\.account: it is "):
            command("status", "--check")
        (text,) = [text for text, problem in problems().items() if problem == "capture-unsupported"]
        assert kind in text
        assert f"unsupported (it is {kind}" in str(check_capture(databases=["default"]))
        with pytest.raises(SnapshotError, match=kind):
            check_captured(Account, "default")
        caplog.clear()
        repairs = Repairs("default", Conf(), connected_models())
        for _ in range(2):
            repairs.run()
        logged = f"Capture on {TABLE}: unsupported (it is {kind}"
        assert [logged in each.getMessage() for each in caplog.records].count(True) == 1, "once, by a new worker"
        command("pause", "--remove")
        command("resume")
        command("uninstall", "crm.Account")
        command("install")
        assert table_state.read("default")[TABLE].cause is not None, "a gap, if the view becomes a table"
    finally:
        as_the_app("DROP FOREIGN DATA WRAPPER IF EXISTS hc_none CASCADE; DROP SCHEMA salesforce CASCADE")


RELATIVES = {
    "partitioned": "CREATE TABLE salesforce.account ({columns}) PARTITION BY LIST (name); "
    "CREATE TABLE salesforce.relative PARTITION OF salesforce.account DEFAULT",
    "partition": "CREATE TABLE salesforce.relative ({columns}) PARTITION BY LIST (name); "
    "CREATE TABLE salesforce.account PARTITION OF salesforce.relative DEFAULT",
    "parent": "CREATE TABLE salesforce.account ({columns}); CREATE TABLE salesforce.relative () "
    "INHERITS (salesforce.account)",
    "child": "CREATE TABLE salesforce.relative ({columns}); CREATE TABLE salesforce.account () "
    "INHERITS (salesforce.relative)",
    "unlogged": "CREATE UNLOGGED TABLE salesforce.account ({columns}); CREATE TABLE salesforce.relative (id int)",
}
COLUMNS = "id int NOT NULL DEFAULT 7, sfid text, name text, systemmodstamp timestamp, createddate timestamp"


@pytest.mark.fault(
    "partitioned, inherited and unlogged tables",
    outcome="captured; statements that name a partition, parent or child are not, and `hc_status` says so",
)
@pytest.mark.parametrize("kind", RELATIVES)
def test_related_tables_are_captured_under_their_own_name(heroku: HerokuConnect, kind: str) -> None:
    """Inserts, updates, deletions and a clearing. The status warns of statements by another name; they succeed."""
    as_the_app("DROP TABLE salesforce.account; " + RELATIVES[kind].format(columns=COLUMNS))
    try:
        command("install")
        look()
        as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('A1', 'one')")
        as_heroku_connect("UPDATE salesforce.account SET name = 'two'")
        as_heroku_connect("DELETE FROM salesforce.account")
        assert logged() == [("INSERT", "one"), ("UPDATE", "two"), ("DELETE", "two")]
        as_heroku_connect("TRUNCATE salesforce.account")
        hours_pass(24)
        look()
        finish_reloads("default", Conf())
        assert logged() == [("RELOADED", None)]
        assert ("capture-partitions" in problems().values()) == (kind != "unlogged")
        if kind != "unlogged":
            assert "statements that name its partition, parent or child are not captured" in command("status")
            as_heroku_connect("INSERT INTO salesforce.relative (sfid, name) VALUES ('A1', 'one')")
            assert logged() == []
    finally:
        as_the_app("DROP SCHEMA salesforce CASCADE")


@pytest.fixture
def own_server(captured: HerokuConnect) -> Iterator[Server]:
    """Another server, which the test may crash, with a log and an unlogged table; the default connection uses it."""
    before = dict(connection.settings_dict)
    server = Server(installation())
    connection.close()
    here = {"HOST": str(server.directory), "NAME": "postgres", "USER": "postgres", "PORT": ""}
    connections["default"].settings_dict |= here
    as_the_app("CREATE SCHEMA salesforce; " + RELATIVES["unlogged"].format(columns=COLUMNS))
    as_the_app(install_sql())
    yield server
    connection.close()
    connections["default"].settings_dict |= before
    server.stop()


@pytest.mark.fault("an unlogged table, emptied by a crash of the server", outcome="one gap")
def test_unlogged_table_emptied_by_a_crash_is_a_gap(own_server: Server) -> None:
    command("install", "crm.Account")
    repairs = Repairs("default", Conf(), [Account])
    repairs.run()
    as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('A1', 'one')")
    repairs.run()
    connection.close()
    own_server.crash()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM salesforce.account")
        assert cursor.fetchone() == (0,)
    repairs.run()
    repairs.run()
    assert [change.note["cause"] for change in Change.objects.filter(operation="GAP")] == ["unlogged_emptied"]


# -- row-level security ------------------------------------------------------------------------------------------------


@contextmanager
def role(name: str) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {name}")
        try:
            yield
        finally:
            cursor.execute("RESET ROLE")


BLIND = own("hc_blind")


@pytest.fixture
def blind(captured: HerokuConnect) -> Iterator[str]:
    """A role with all rights on our tables and the captured ones, but no BYPASSRLS."""
    as_the_app(f"CREATE ROLE {BLIND}; GRANT USAGE ON SCHEMA public, salesforce TO {BLIND}")
    for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
        as_the_app(f"GRANT ALL ON ALL {kind} IN SCHEMA public, salesforce TO {BLIND}")
    yield BLIND
    for table in (*OWN, TABLE):
        as_the_app(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY")
    as_the_app(f"ALTER FUNCTION public.{function_name(Account)}() OWNER TO CURRENT_USER")
    as_the_app(f"DROP OWNED BY {BLIND}; DROP ROLE {BLIND}")
    assert status_of(Account, "default").state == "installed"


def give_function_to_blind() -> None:
    """Make that role the owner of the capture function of accounts."""
    as_the_app(f"ALTER FUNCTION public.{function_name(Account)}() OWNER TO {BLIND}")


@pytest.mark.fault(
    "row-level security hides every row of a table from the owner of its capture function",
    outcome="captured; a TRUNCATE is a gap, because its rows are unknown",
)
def test_rows_hidden_from_the_function_owner_are_captured(captured: HerokuConnect, blind: str) -> None:
    """Transition tables have the rows nevertheless. A table that seems empty does not count as cleared."""
    give_function_to_blind()
    as_the_app("ALTER TABLE salesforce.account ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    fill(1, 20)
    as_heroku_connect("UPDATE salesforce.account SET name = 'x' WHERE sfid = 'A001'")
    as_heroku_connect("DELETE FROM salesforce.account WHERE sfid BETWEEN 'A002' AND 'A015'")
    operations = [operation for operation, _ in logged()]
    assert operations == ["INSERT"] * 20 + ["UPDATE"] + ["DELETE"] * 14
    as_heroku_connect("TRUNCATE salesforce.account")
    assert logged() == [("TRUNCATE", None)]
    (text,) = [text for text, problem in problems().items() if problem == "capture-row-security"]
    assert text == f"salesforce.account: row-level security hides rows from {BLIND}"


@pytest.mark.fault(
    "row-level security hides rows from the worker's role",
    outcome="an error that names the missing right; no hidden row is sent as deleted, or skipped",
)
def test_rows_hidden_from_the_worker_are_not_sent_as_deleted(captured: HerokuConnect, blind: str, caplog: Any) -> None:
    fill(1, 20)
    look()
    as_heroku_connect("TRUNCATE salesforce.account")
    fill(1, 20)
    hours_pass(24)
    as_the_app("ALTER TABLE salesforce.account ENABLE ROW LEVEL SECURITY")
    good_at = table_state.read("default")[TABLE].good_at
    assert good_at is not None
    table_state.request_reread("default", [TABLE], good_at)
    logged()
    with role(blind):
        assert finish_reloads("default", Conf()) == []
        assert finish_reloads("default", Conf()) == []
        Rereading("default", connected_models()).read_for(5)
        assert f"salesforce.account: row-level security hides rows from {BLIND}" in problems()
    assert logged() == []
    assert caplog.text.count("hc_listen cannot report the end of the reload") == 1
    assert "BYPASSRLS if row-level security hides rows; or run" in caplog.text
    assert finish_reloads("default", Conf()) == [TABLE]
    look()
    assert [operation for operation, _ in logged()] == ["RELOADED"] + ["GAP_UPDATE"] * 20


OWN: dict[str, Callable[[], Any]] = {
    "hc_signals_change": lambda: query(
        "SELECT * FROM public.hc_signals_page(pg_current_snapshot(), pg_current_snapshot(), 0, 1000, 0, 1, 10)"
    ),
    "hc_signals_position": lambda: query("SELECT public.hc_signals_standing('default', 0)"),
    "hc_signals_delivery": lambda: query("SELECT public.hc_signals_standing('default', 0)"),
}


def query(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.mark.fault(
    "row-level security enabled on a table of ours", outcome="an error, and `hc_status` says so; not an empty log"
)
@pytest.mark.parametrize("table", OWN)
def test_hidden_log_is_an_error(captured: HerokuConnect, blind: str, table: str) -> None:
    captured.create(Account, 1)
    as_the_app(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    with role(blind):
        assert f"{table}: row-level security hides rows from {BLIND}" in problems()
        with pytest.raises(ProgrammingError) as error:
            OWN[table]()
    assert sqlstate(error.value) == "42501"


def test_log_hidden_from_its_writer_is_a_gap(captured: HerokuConnect, blind: str) -> None:
    give_function_to_blind()
    as_the_app("ALTER TABLE hc_signals_change ENABLE ROW LEVEL SECURITY")
    captured.create(Account, 1)
    assert Change.objects.count() == 0
    assert lost() == 1
