"""ORIGINS: which writers are captured, what happens when the setting changes, and what a wrong setting says."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import override_settings
from example.crm.models import Account

from hc_signals.capture import table_state
from hc_signals.capture.install import install_capture
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.snapshots import log_table
from hc_signals.capture.status import status_of
from hc_signals.checks.database import check_capture
from hc_signals.checks.own_origin import check_own_origin
from hc_signals.conf import Conf, get_conf
from hc_signals.exceptions import ConfigurationError
from hc_signals.log.freshness import can_be_fresh
from hc_signals.log.tail import read, start
from hc_signals.management.tail_lines import TextLines
from hc_signals.models import Change
from hc_signals.signals import record_created
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, as_the_app, deliver, server_url
from tests.server import own
from tests.test_kinds_of_tables import problems

TABLE = "salesforce.account"
SYNC = own("hc_sync")
"""A role that writes to the tables."""
NAME = {"application_name": "airbyte"}
PREFIX = {"application_name": "acme-mirror*"}
ROLE = {"role": SYNC}
VARIABLE = {"variable": "mirror.origin", "value": "salesforce"}
REPLICA = {"variable": "session_replication_role", "value": "replica"}


@contextmanager
def origins(*rules: Any) -> Iterator[None]:
    with override_settings(HC_SIGNALS={"ORIGINS": list(rules)}):
        yield


@contextmanager
def captured_by(*rules: Any) -> Iterator[None]:
    """Set ORIGINS and install capture, then put both back."""
    try:
        with origins(*rules):
            assert install_capture(Account, "default").state == "installed"
            yield
    finally:
        install_capture(Account, "default")


@contextmanager
def session(**options: Any) -> Iterator[psycopg.Connection]:
    """Open a session of another program on the test database."""
    with psycopg.connect(
        server_url(), autocommit=True, **{"dbname": connection.settings_dict["NAME"], **options}
    ) as it:
        yield it


@pytest.fixture
def sync_role(heroku: HerokuConnect) -> Iterator[str]:
    as_the_app(f"DROP ROLE IF EXISTS {SYNC}")
    as_the_app(f"CREATE ROLE {SYNC} LOGIN SUPERUSER")
    yield SYNC
    as_the_app(f"DROP ROLE IF EXISTS {SYNC}")


def insert(writer: psycopg.Connection, name: str) -> None:
    writer.execute("INSERT INTO salesforce.account (name) VALUES (%s)", [name])


def logged() -> list[tuple[str, str]]:
    """Return name and origin of each captured change, and empty the log."""
    found = [((each.new or each.old or {})["name"], each.origin) for each in Change.objects.order_by("pk")]
    as_the_app("TRUNCATE public.hc_signals_change")
    return found


def watch() -> None:
    """Check and repair as the worker does, twice: a false alarm would come with the second check."""
    repairs = Repairs("default", Conf(), connected_models())
    repairs.run()
    repairs.run()


def gaps() -> list[str]:
    return [change.note["cause"] for change in Change.objects.filter(operation="GAP", table_name=TABLE)]


@pytest.mark.parametrize(
    ("rule", "options", "label"),
    [
        ("heroku_connect", {"options": "-c xmlbinary=hex"}, "heroku_connect"),
        (NAME, {"application_name": "airbyte"}, "application_name=airbyte"),
        (PREFIX, {"application_name": "acme-mirror - 10.0.0.7:4711"}, "application_name=acme-mirror*"),
        (ROLE, {"user": SYNC}, f"role={SYNC}"),
        ({"role": f"{SYNC[:6]}*"}, {"user": SYNC}, f"role={SYNC[:6]}*"),
        (VARIABLE, {"options": "-c mirror.origin=salesforce"}, "mirror.origin=salesforce"),
        (REPLICA, {"options": "-c session_replication_role=replica"}, "session_replication_role=replica"),
    ],
    ids=["heroku_connect", "name", "prefix", "role", "role-prefix", "variable", "replica"],
)
def test_rule_captures_its_writer_alone(
    captured: HerokuConnect, sync_role: str, rule: Any, options: Any, label: str
) -> None:
    captured.create_tables()
    with captured_by(rule), session(**options) as mirror, session(application_name="acme") as app:
        insert(app, "by the app")
        insert(mirror, "by the mirror")
        assert logged() == [("by the mirror", label)]
        as_heroku_connect("DELETE FROM salesforce.account")
        assert {origin for _, origin in logged()} == ({"heroku_connect"} if rule == "heroku_connect" else set())


def test_first_rule_that_fits_is_the_origin(captured: HerokuConnect) -> None:
    with captured_by(VARIABLE, NAME, "heroku_connect"), session(application_name="airbyte") as mirror:
        insert(mirror, "1")
        mirror.execute("SET xmlbinary = 'hex'")
        insert(mirror, "2")
        mirror.execute("SET mirror.origin = 'salesforce'")
        insert(mirror, "3")
        mirror.execute("SET application_name = ''")
        mirror.execute("SET mirror.origin = ''")
        insert(mirror, "4")
        assert [origin for _, origin in logged()] == [
            "application_name=airbyte",
            "application_name=airbyte",
            "mirror.origin=salesforce",
            "heroku_connect",
        ]


@pytest.mark.fault(
    "a rule of `ORIGINS` names a variable that the writer has never set, or has set in an earlier transaction",
    outcome="the writer goes on; its change is the app's",
)
def test_variable_counts_until_its_transaction_ends(captured: HerokuConnect) -> None:
    with captured_by(VARIABLE), session() as writer:
        insert(writer, "never set")
        with writer.transaction():
            writer.execute("SET LOCAL mirror.origin = 'salesforce'")
            insert(writer, "set")
        assert writer.execute("SELECT current_setting('mirror.origin', true)").fetchone() == ("",)
        insert(writer, "set before")
        writer.execute("SELECT set_config('mirror.origin', 'sales', false)")
        insert(writer, "another value")
        assert logged() == [("set", "mirror.origin=salesforce")]


@pytest.mark.fault(
    "the role of a session is dropped or renamed while the session writes; a rule of `ORIGINS` names a role",
    outcome="the writer goes on; its changes are captured by the name with which it logged in",
)
def test_session_of_a_dropped_role_writes_on(captured: HerokuConnect, sync_role: str) -> None:
    """SELECT session_user raises an error there."""
    with captured_by(ROLE), session(user=SYNC) as mirror:
        mirror.execute(f"SET ROLE {connection.settings_dict['USER']}")
        as_the_app(f"ALTER ROLE {SYNC} RENAME TO {SYNC}_2")
        insert(mirror, "renamed")
        as_the_app(f"DROP ROLE {SYNC}_2")
        insert(mirror, "dropped")
        with pytest.raises(psycopg.Error):
            mirror.execute("SELECT session_user")
        assert logged() == [("renamed", f"role={SYNC}"), ("dropped", f"role={SYNC}")]


def test_role_is_that_of_the_login(captured: HerokuConnect, sync_role: str) -> None:
    """Neither SET ROLE nor a SECURITY DEFINER function of the customer changes whose write it is."""
    as_the_app(
        "CREATE FUNCTION salesforce.add(text) RETURNS void LANGUAGE sql SECURITY DEFINER AS "
        f"'INSERT INTO salesforce.account (name) VALUES ($1)'; ALTER FUNCTION salesforce.add OWNER TO {SYNC}"
    )
    with captured_by(ROLE), session(user=SYNC) as mirror, session() as app:
        app.execute("SELECT salesforce.add('by the app')")
        app.execute(f"SET ROLE {SYNC}")
        insert(app, "by the app as the role")
        mirror.execute(f"SET ROLE {connection.settings_dict['USER']}")
        insert(mirror, "by the mirror as another role")
        mirror.execute("SELECT salesforce.add('by a function')")
        assert [name for name, _ in logged()] == ["by the mirror as another role", "by a function"]
    as_the_app("DROP FUNCTION salesforce.add")


def test_receivers_see_the_rule_as_change_origin(captured: HerokuConnect, connect: Any) -> None:
    seen: list[str] = []
    connect(record_created, lambda event, **kwargs: seen.append(event.change_origin), Account)
    with captured_by(NAME), session(application_name="airbyte") as mirror:
        insert(mirror, "Acme")
        deliver()
        (change,) = Change.objects.all()
        assert change.origin == "application_name=airbyte"
    assert seen == ["application_name=airbyte"]


@pytest.mark.parametrize(
    ("origin", "counts"), [("application_name=airbyte", True), ("heroku_connect", True), ("app", False)]
)
def test_freshness_counts_every_mirror(origin: str, counts: bool) -> None:
    change: Any = type("Change", (), {"operation": "INSERT", "note": None, "origin": origin})
    assert can_be_fresh(change) is counts


def test_default_triggers_are_those_of_earlier_releases(captured: HerokuConnect) -> None:
    """No upgrade makes them outdated: a trigger without arguments has the rule of Heroku Connect."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'hc_signals_delete' "
            "AND tgrelid = 'salesforce.account'::regclass"
        )
        ((definition,),) = cursor.fetchall()
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname = %s", [definition.rpartition(" ")[2][:-2]])
        ((source,),) = cursor.fetchall()
    when, _, called = definition.partition(" EXECUTE FUNCTION ")
    assert when == (
        "CREATE TRIGGER hc_signals_delete AFTER DELETE ON salesforce.account REFERENCING OLD TABLE AS hc_old "
        "FOR EACH STATEMENT WHEN ((current_setting('xmlbinary'::text) = 'hex'::text))"
    )
    assert called.endswith("()")
    assert "CASE pg_catalog.current_setting('xmlbinary') WHEN 'hex' THEN 'heroku_connect' ELSE 'app' END" in source


@pytest.mark.fault(
    "`ORIGINS` gets another rule while a worker of the old setting runs",
    outcome="`outdated`; the restarted worker replaces the triggers, and reports a gap for the new rule's writer",
)
def test_worker_repairs_triggers_without_a_rule(captured: HerokuConnect) -> None:
    watch()
    with origins("heroku_connect", NAME), session(application_name="airbyte") as mirror:
        insert(mirror, "too early")
        detail = "the triggers fit heroku_connect, ORIGINS has heroku_connect, application_name=airbyte"
        assert (status_of(Account, "default").state, status_of(Account, "default").detail) == ("outdated", detail)
        with pytest.raises(CommandError, match="drifted"):
            call_command("hc_triggers", "status", "--check", stdout=StringIO())
        assert "capture-outdated" in problems().values()
        watch()
        assert status_of(Account, "default").state == "installed"
        assert gaps() == ["origins_missing"]
        as_the_app("TRUNCATE public.hc_signals_change")
        insert(mirror, "in time")
        as_heroku_connect("INSERT INTO salesforce.account (name) VALUES ('by Heroku Connect')")
        assert [name for name, _ in logged()] == ["in time", "by Heroku Connect"]
    watch()
    assert status_of(Account, "default").state == "installed"
    assert gaps() == [], "with fewer rules nothing is missed"


@pytest.mark.fault(
    "two services on one database have different `ORIGINS`",
    outcome="the service that started last decides; the other one logs it and leaves the triggers alone",
)
def test_services_do_not_fight_over_the_rules(captured: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
    one, two = (Repairs("default", Conf(), connected_models()) for _ in range(2))
    one.run()
    with origins(NAME):
        two.run()
        assert status_of(Account, "default").state == "installed"
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            one.run()
            with origins(NAME):
                two.run()
                assert status_of(Account, "default").state == "installed", "the first one has replaced it"
    assert "Another service or release has replaced this capture" in caplog.text
    caplog.clear()
    Repairs("default", Conf(), connected_models()).run()
    assert status_of(Account, "default").state == "installed", "a restarted service takes over"
    assert "origins_missing" in gaps()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("heroku_connect", "is 'heroku_connect'; expected a list of one rule or more, such as ['heroku_connect']"),
        ([], "is []; expected a list of one rule or more"),
        (["herokuconnect"], "has the rule 'herokuconnect'; did you mean 'heroku_connect'?"),
        (["application_name"], "did you mean {'application_name': 'airbyte'}?"),
        ([7], "has the rule 7; expected 'heroku_connect', or a dict such as {'application_name': 'airbyte'}"),
        ([{"aplication_name": "x"}], "the key 'aplication_name' is unknown; did you mean 'application_name'?"),
        ([{"zzz": "x"}], "the key 'zzz' is unknown; known keys: application_name, role, variable."),
        (
            [{"role": "x", "application_name": "y"}],
            "expected one of the keys application_name, role, variable; for two",
        ),
        ([{}], "expected one of the keys application_name, role, variable"),
        ([{"role": "x", "value": "y"}], "expected the key 'value' with the key 'variable' only"),
        (
            [{"variable": "a.b"}],
            "expected the key 'value' with the key 'variable' only, such as {'variable': 'mirror.o",
        ),
        (
            [{"variable": "data_directory", "value": "x"}],
            "the variable is 'data_directory'; expected a name with a dot",
        ),
        ([{"variable": "a.b'c", "value": "x"}], "expected a name with a dot"),
        ([{"variable": "a.b", "value": ""}], "the value is ''; expected 1 to 63 characters"),
        ([{"application_name": "*"}], "the value is '*'; expected 1 to 63 characters"),
        ([{"application_name": "x" * 64}], "expected 1 to 63 characters"),
        ([{"application_name": "Ümlaut"}], "expected 1 to 63 characters: ASCII"),
        ([{"application_name": "it's"}], "without quotes"),
        ([{"application_name": None}], "the value is None; expected"),
        ([NAME, NAME], "has {'application_name': 'airbyte'} twice; remove one of them"),
    ],
)
def test_wrong_rules_are_refused(rules: Any, message: str) -> None:
    with override_settings(HC_SIGNALS={"ORIGINS": rules}), pytest.raises(ConfigurationError) as error:
        get_conf()
    assert str(error.value).startswith("HC_SIGNALS['ORIGINS'] ")
    assert message in str(error.value)


@pytest.mark.parametrize("value", ["PostgreSQL JDBC Driver", "a.b/c:d@e (42)", "x" * 63, "100!", "[a]#1"])
def test_values_reach_the_trigger_unchanged(captured: HerokuConnect, value: str) -> None:
    with captured_by({"application_name": value}), session(application_name=value) as mirror:
        insert(mirror, "Acme")
        assert logged() == [("Acme", f"application_name={value}")]


@pytest.mark.parametrize(
    ("rule", "options", "why"),
    [
        ("heroku_connect", {"OPTIONS": {"options": "-c statement_timeout=0 -c xmlbinary=hex"}}, "xmlbinary is 'hex'"),
        (NAME, {"OPTIONS": {"application_name": "airbyte"}}, "application_name is 'airbyte'"),
        (PREFIX, {"OPTIONS": {"options": r"--application-name=acme-mirror\ 2"}}, "application_name is 'acme-mirror 2'"),
        ({"role": "shop"}, {"USER": "shop"}, "session_authorization is 'shop'"),
        (VARIABLE, {"OPTIONS": {"options": "-cmirror.origin=salesforce"}}, "mirror.origin is 'salesforce'"),
    ],
)
def test_w013_reports_a_rule_that_fits_the_project(rule: Any, options: Any, why: str, monkeypatch: Any) -> None:
    with origins(rule):
        assert check_own_origin() == []
        for name, value in options.items():
            monkeypatch.setitem(connection.settings_dict, name, value)
        (warning,) = check_own_origin()
    assert warning.id == "hc_signals.W013"
    assert f"also fits this project's sessions on 'default', by its {why}" in warning.msg


def test_w013_reports_a_default_of_the_server(captured: HerokuConnect) -> None:
    as_the_app("ALTER DATABASE CURRENT SET xmlbinary = hex".replace("CURRENT", connection.settings_dict["NAME"]))
    try:
        connection.close()
        (warning,) = [each for each in check_capture(databases=["default"]) if each.id == "hc_signals.W013"]
        assert "by the defaults of the role, the database or the server" in warning.msg
    finally:
        as_the_app(f"ALTER DATABASE {connection.settings_dict['NAME']} RESET xmlbinary")
        connection.close()
    assert not [each for each in check_capture(databases=["default"]) if each.id == "hc_signals.W013"]


@pytest.mark.parametrize("rule", ["heroku_connect", NAME, PREFIX, VARIABLE, REPLICA])
def test_simulator_writes_by_the_first_rule(captured: HerokuConnect, rule: Any) -> None:
    """It gives the session back as it was, so the app's next write is the app's."""
    with captured_by(rule), transaction.atomic():
        (sfid,) = captured.insert(Account, name="Acme")
        captured.update(Account, sfid, name="Acme Ltd")
        captured.delete(Account, sfid)
        captured.app_insert(Account, name="by the app")
    assert [name for name, _ in logged()] == ["Acme", "Acme Ltd", "Acme Ltd"]


def test_simulator_needs_the_login_of_a_role(captured: HerokuConnect) -> None:
    with origins(ROLE), pytest.raises(ConfigurationError, match=f"The simulator cannot write as role={SYNC}, because"):
        captured.insert(Account, name="Acme")
    with captured_by(ROLE, NAME):
        captured.insert(Account, name="Acme")
        assert logged() == [("Acme", "application_name=airbyte")]
    with captured_by({"role": connection.settings_dict["USER"]}):
        captured.insert(Account, name="Acme")
        assert [name for name, _ in logged()] == ["Acme"]


def test_tail_names_the_rule_of_another_mirror(captured: HerokuConnect) -> None:
    with captured_by(NAME, "heroku_connect"), session(application_name="airbyte") as mirror:
        begin = start("default")
        insert(mirror, "1")
        as_heroku_connect("INSERT INTO salesforce.account (name) VALUES ('2')")
        lines = TextLines(lambda: 0, {})
        first, second = [lines(change) for change in read("default", begin).changes]
    assert "  CREATE  crm.Account" in first
    assert "  CREATE by heroku_connect  crm.Account" in second


@pytest.mark.fault(
    "a mirror's table has neither `id` nor `sfid`",
    outcome="`unsupported` in every command, with the column to add; then it is captured",
)
def test_table_without_a_key_column_is_unsupported(captured: HerokuConnect) -> None:
    as_the_app(
        "DROP TABLE salesforce.account CASCADE; CREATE TABLE salesforce.account "
        "(account_key uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text)"
    )
    assert status_of(Account, "default").state == "unsupported"
    watch()
    (error,) = [each for each in check_capture(databases=["default"]) if each.id == "hc_signals.E004"]
    assert "the table has no column id" in error.msg
    assert "capture-unsupported" in problems().values()
    as_the_app("ALTER TABLE salesforce.account ADD COLUMN id text GENERATED ALWAYS AS (account_key::text) STORED")
    assert install_capture(Account, "default").state == "installed"
    as_heroku_connect("INSERT INTO salesforce.account (name) VALUES ('Acme')")
    as_heroku_connect("UPDATE salesforce.account SET name = 'Acme Ltd'")
    changes = list(Change.objects.filter(table_name=TABLE).exclude(operation="GAP"))
    assert [(each.operation, each.new["name"]) for each in changes] == [("INSERT", "Acme"), ("UPDATE", "Acme Ltd")]
    assert len({each.record_key for each in changes}) == 1


def test_rows_with_a_text_key_are_not_read_again(captured: HerokuConnect) -> None:
    """The place of a reread is a number; the gap is reported all the same."""
    as_the_app(
        "DROP TABLE salesforce.account CASCADE; "
        "CREATE TABLE salesforce.account (id text PRIMARY KEY, name text, systemmodstamp timestamp DEFAULT now())"
    )
    install_capture(Account, "default")
    watch()
    as_the_app("DROP TRIGGER hc_signals_insert ON salesforce.account; INSERT INTO salesforce.account VALUES ('a', 'b')")
    watch()
    assert gaps()[-1] == "trigger_missing"
    assert table_state.read("default")[TABLE].reread_since is None


@pytest.mark.parametrize("kind", ["text", "uuid", "bigint"])
def test_backfill_pages_by_every_kind_of_key(captured: HerokuConnect, kind: str) -> None:
    as_the_app(
        f"DROP TABLE salesforce.account CASCADE; CREATE TABLE salesforce.account (id {kind} PRIMARY KEY, name text)"
    )
    install_capture(Account, "default")
    make = {"text": "'k' || n", "uuid": "gen_random_uuid()", "bigint": "n"}[kind]
    as_the_app(f"INSERT INTO salesforce.account SELECT {make}, n FROM generate_series(1, 5) n")
    pages = list(log_table(Account, "default", "SNAPSHOT", page_size=2))
    assert [count for count, _ in pages] == [2, 2, 1]
    assert sorted(name for name, _ in logged()) == list("12345")
