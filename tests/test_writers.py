"""Writers other than Heroku Connect: each kind of statement is captured; what a subscription writes is not."""

from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection
from example.crm.models import Account

from hc_signals.capture.status import status_of
from hc_signals.checks.database import check_capture
from hc_signals.models import Change
from hc_signals.testing import HerokuConnect
from tests.conftest import as_the_app
from tests.server import Server, installation
from tests.test_kinds_of_tables import problems
from tests.test_origins import NAME, captured_by, logged, session
from tests.test_worker_process import wait_until

UPSERT = (
    "INSERT INTO salesforce.account (id, name) VALUES (1, 'new'), (3, 'new') "
    "ON CONFLICT (id) DO UPDATE SET name = excluded.name"
)
STATEMENTS = {
    "INSERT": ("INSERT INTO salesforce.account (id, name) VALUES (3, 'new')", ["INSERT"]),
    "INSERT ... SELECT": (
        "INSERT INTO salesforce.account (id, name) SELECT n, 'new' FROM generate_series(3, 4) n",
        ["INSERT"] * 2,
    ),
    "ON CONFLICT DO UPDATE": (UPSERT, ["INSERT", "UPDATE"]),
    "ON CONFLICT DO NOTHING": (
        "INSERT INTO salesforce.account (id, name) VALUES (1, 'new'), (3, 'new') ON CONFLICT DO NOTHING",
        ["INSERT"],
    ),
    "UPDATE": ("UPDATE salesforce.account SET name = 'new'", ["UPDATE"] * 2),
    "DELETE": ("DELETE FROM salesforce.account", ["DELETE"] * 2),
    "WITH": (
        "WITH gone AS (DELETE FROM salesforce.account WHERE id = 1 RETURNING name) "
        "INSERT INTO salesforce.account (id, name) SELECT 3, 'new' FROM gone",
        ["DELETE", "INSERT"],
    ),
    "MERGE": (
        "MERGE INTO salesforce.account t USING (VALUES (1, 'new'), (3, 'new')) f (id, name) ON t.id = f.id "
        "WHEN MATCHED THEN UPDATE SET name = f.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (f.id, f.name)",
        ["INSERT", "UPDATE"],
    ),
    "DO": ("DO $$ BEGIN UPDATE salesforce.account SET name = 'new' WHERE id = 2; END $$", ["UPDATE"]),
    "TRUNCATE": ("TRUNCATE salesforce.account", ["DELETE"] * 2),
}


@pytest.fixture
def mirror(captured: HerokuConnect) -> Iterator[psycopg.Connection]:
    """Return a session that ORIGINS names. The table has the rows 1 and 2."""
    as_the_app("INSERT INTO salesforce.account (id, sfid, name) VALUES (1, NULL, 'old'), (2, NULL, 'old')")
    with captured_by(NAME), session(application_name="airbyte") as it:
        yield it


@pytest.mark.parametrize("kind", STATEMENTS)
def test_statement_of_a_mirror_is_captured(mirror: psycopg.Connection, kind: str) -> None:
    statement, operations = STATEMENTS[kind]
    if kind == "MERGE" and mirror.info.server_version < 150_000:
        pytest.skip("MERGE came with PostgreSQL 15")
    mirror.execute(statement)
    assert sorted(Change.objects.values_list("operation", flat=True)) == sorted(operations)
    assert {origin for _, origin in logged()} == {"application_name=airbyte"}


@pytest.mark.parametrize("how", ["", "FREEZE"])
def test_copy_of_a_mirror_is_captured(mirror: psycopg.Connection, how: str) -> None:
    with mirror.transaction():
        if how:
            mirror.execute("TRUNCATE salesforce.account")
        copy = f"COPY salesforce.account (id, name) FROM STDIN (FORMAT csv{', FREEZE' if how else ''})"
        with mirror.cursor().copy(copy) as rows:
            rows.write("3,new\n4,new\n")
    assert list(Change.objects.filter(operation="INSERT").values_list("new__name", flat=True)) == ["new"] * 2


def test_foreign_table_of_another_server_is_captured(mirror: psycopg.Connection) -> None:
    """The session of postgres_fdw has its name. It clears the search_path, which Heroku Connect's triggers need."""
    drop = "DROP TRIGGER %I ON salesforce.account"
    as_the_app(
        f"DO $$ DECLARE name text; BEGIN FOR name IN SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND "
        f"tgname NOT LIKE 'hc_signals%' AND tgrelid = 'salesforce.account'::regclass LOOP "
        f"EXECUTE format('{drop}', name); END LOOP; END $$"
    )
    here = connection.settings_dict
    with captured_by({"application_name": "postgres_fdw"}), session() as other:
        try:
            other.execute("CREATE EXTENSION postgres_fdw")
        except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported):
            pytest.skip("the server has no postgres_fdw")
        try:
            other.execute(
                f"CREATE SERVER mirrored FOREIGN DATA WRAPPER postgres_fdw OPTIONS (dbname '{here['NAME']}', "
                f"host '{here['HOST']}', port '{here['PORT'] or 5432}'); "
                f"CREATE USER MAPPING FOR CURRENT_USER SERVER mirrored OPTIONS (user '{here['USER']}'); "
                "CREATE FOREIGN TABLE public.there (id int, name text) SERVER mirrored "
                "OPTIONS (schema_name 'salesforce', table_name 'account')"
            )
            other.execute("UPDATE public.there SET name = 'new' WHERE id = 1")
            assert logged() == [("new", "application_name=postgres_fdw")]
        finally:
            other.execute("DROP EXTENSION postgres_fdw CASCADE")


@pytest.fixture
def publisher() -> Iterator[Server]:
    """Return a server that publishes salesforce.account with the row 1."""
    server = Server(installation(), "wal_level=logical")
    try:
        server.execute("CREATE SCHEMA salesforce")
        server.execute("CREATE TABLE salesforce.account (id int PRIMARY KEY, name text)")
        server.execute("INSERT INTO salesforce.account VALUES (1, 'copied')")
        server.execute("CREATE PUBLICATION mirrored FOR TABLE salesforce.account")
        yield server
    finally:
        server.stop()


def names() -> list[str]:
    return list(Account.objects.order_by("id").values_list("name", flat=True))


@pytest.mark.fault(
    "a subscription of logical replication writes to a connected table",
    outcome="its changes are not captured, and there is no gap; every status and check warns",
)
def test_changes_of_a_subscription_are_not_captured(captured: HerokuConnect, publisher: Server) -> None:
    """Its workers fit the rule, so its first COPY and a TRUNCATE are captured: only rows run no statement triggers."""
    with captured_by({"variable": "session_replication_role", "value": "replica"}), session() as subscriber:
        subscriber.execute(
            f"CREATE SUBSCRIPTION mirrored CONNECTION 'host={publisher.directory} user=postgres dbname=postgres' "
            "PUBLICATION mirrored"
        )
        try:
            wait_until(lambda: names() == ["copied"])
            assert logged() == [("copied", "session_replication_role=replica")]
            publisher.execute("INSERT INTO salesforce.account VALUES (2, 'inserted')")
            publisher.execute("UPDATE salesforce.account SET name = 'updated' WHERE id = 1")
            wait_until(lambda: names() == ["updated", "inserted"])
            publisher.execute("TRUNCATE salesforce.account")
            wait_until(lambda: names() == [])
            assert set(Change.objects.values_list("operation", flat=True)) == {"DELETE"}, "of the TRUNCATE"
            status = status_of(Account, "default")
            assert (status.state, status.aside) == ("installed", "subscription")
            assert "capture-subscription" in problems().values()
            (warning,) = [each for each in check_capture(databases=["default"]) if each.id == "hc_signals.W014"]
            assert "A subscription writes to salesforce.account" in warning.msg
        finally:
            subscriber.execute("DROP SUBSCRIPTION mirrored")
