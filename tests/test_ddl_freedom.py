"""Heroku Connect alters, drops, recreates and renames its tables: no object of ours blocks it, and capture goes on."""

from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture import orphans
from hc_signals.capture.install import install_capture, uninstall_capture
from hc_signals.capture.status import status_of
from hc_signals.models import Change
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import IS_OURS, another, as_heroku_connect, deliver, lost


@pytest.fixture
def names(captured: HerokuConnect, connect: Any) -> list[str]:
    """Names of created accounts, in the order in which receivers are called."""
    got: list[str] = []
    connect(signals.record_created, lambda instance, **kwargs: got.append(instance.name), Account)
    return got


def insert(name: str, table: str = "salesforce.account") -> None:
    as_heroku_connect(f"INSERT INTO {table} (sfid, name) VALUES (%s, %s)", [name, name])


@pytest.mark.fault(
    "ADD, DROP, RENAME COLUMN, ALTER TYPE, SET NOT NULL, new indexes and keys", outcome="not blocked; captured"
)
def test_columns_can_be_altered(captured: HerokuConnect) -> None:
    for ddl in (
        "ALTER TABLE salesforce.account ADD COLUMN new__c varchar(80) DEFAULT 'x'",
        "ALTER TABLE salesforce.account ALTER COLUMN name TYPE text, ALTER COLUMN annualrevenue TYPE numeric",
        "ALTER TABLE salesforce.account RENAME COLUMN annualrevenue TO revenue",
        "ALTER TABLE salesforce.account DROP COLUMN revenue",
        "ALTER TABLE salesforce.account ALTER COLUMN sfid SET NOT NULL",
        "CREATE INDEX ON salesforce.account (name)",
        "ALTER TABLE salesforce.account DROP CONSTRAINT account_pkey; "
        "ALTER TABLE salesforce.account ADD PRIMARY KEY (id, sfid)",
    ):
        as_heroku_connect("DELETE FROM salesforce.account; TRUNCATE public.hc_signals_change")
        insert("before")
        as_heroku_connect(ddl)
        insert("after")
        as_heroku_connect("UPDATE salesforce.account SET name = name || '!'")
        done = [change.operation for change in Change.objects.exclude(operation="TRUNCATE").order_by("id")]
        assert done == ["INSERT", "INSERT", "UPDATE", "UPDATE"], ddl
    assert lost() == 0


@pytest.mark.fault("table dropped and re-created", outcome="not blocked; status says missing, `install` repairs it")
def test_tables_can_be_recreated(captured: HerokuConnect, names: list[str]) -> None:
    insert("before")
    captured.recreate_table(Account)
    assert status_of(Account, "default").state == "missing"
    assert install_capture(Account, "default").state == "installed"
    insert("after")
    deliver()
    assert names == ["before", "after"]


@pytest.mark.fault("mapping removed: table or schema dropped", outcome="not blocked; status says absent")
@pytest.mark.parametrize("ddl", ["DROP TABLE salesforce.account", "DROP SCHEMA salesforce CASCADE"])
def test_tables_and_schemas_can_be_dropped(captured: HerokuConnect, ddl: str) -> None:
    as_heroku_connect(ddl)
    assert status_of(Account, "default").state == "absent"


@pytest.mark.fault(
    "schema renamed, a new one in its place", outcome="not blocked; changes of the old tables have the old name"
)
def test_schemas_can_be_renamed(captured: HerokuConnect, names: list[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS former CASCADE")
    as_heroku_connect("ALTER SCHEMA salesforce RENAME TO former")
    try:
        insert("old", "former.account")
        assert Change.objects.get().table_name == "former.account"
        captured.create_tables()
        assert status_of(Account, "default").state == "missing"
        install_capture(Account, "default")
        assert status_of(Account, "default").state == "installed"
        insert("new")
        assert [change.table_name for change in Change.objects.order_by("id")] == [
            "former.account",
            "salesforce.account",
        ]
        found = orphans.find(connected_models(), "default")
        assert "former.account" in {status.table for status in found}
        call_command("hc_triggers", "uninstall", "--orphans")
        insert("old again", "former.account")
        insert("new again")
        assert Change.objects.count() == 3
    finally:
        as_heroku_connect("DROP SCHEMA former CASCADE")


@pytest.mark.fault("table renamed", outcome="not blocked; under its old name again, it is captured at once")
def test_renamed_table_has_its_new_name_in_the_log(captured: HerokuConnect) -> None:
    as_heroku_connect("ALTER TABLE salesforce.account RENAME TO konto")
    insert("a", "salesforce.konto")
    as_heroku_connect("ALTER TABLE salesforce.konto RENAME TO account")
    insert("b")
    assert [c.table_name for c in Change.objects.order_by("id")] == ["salesforce.konto", "salesforce.account"]


def test_renamed_table_of_a_model_has_one_event_per_change(captured: HerokuConnect) -> None:
    """A deployment changes HEROKU_CONNECT_SCHEMA: new triggers replace those that call the old name's function."""
    before = Account._meta.db_table
    as_heroku_connect("ALTER TABLE salesforce.account RENAME TO konto")
    Account._meta.db_table = 'salesforce"."konto'
    try:
        assert status_of(Account, "default").state == "outdated"
        insert("a", "salesforce.konto")
        assert install_capture(Account, "default").state == "installed"
        insert("b", "salesforce.konto")
        assert [change.table_name for change in Change.objects.all()] == ["salesforce.konto"] * 2
    finally:
        Account._meta.db_table = before


@pytest.mark.fault(
    "`hc_triggers install` while a table is locked", outcome="gives up after 5 x 2 s; writers do not queue longer"
)
def test_install_gives_up_after_its_lock_timeouts(captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall_capture(Account, "default")
    monkeypatch.setattr("hc_signals.capture.install.LOCK_TIMEOUT", "50ms")
    with another("INSERT INTO salesforce.account (sfid) VALUES ('open')"):
        with pytest.raises(Exception, match="lock timeout"):
            install_capture(Account, "default")
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM pg_locks WHERE NOT granted AND {IS_OURS}")
            assert cursor.fetchone() == (0,)
