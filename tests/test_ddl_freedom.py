"""Heroku Connect alters, drops, re-creates, renames its tables: nothing of ours is in the way, and capture goes on."""

from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture import orphans, triggers
from hc_signals.models import Change
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests.conftest import IS_OURS, another, as_heroku_connect, deliver, lost


@pytest.fixture
def names(captured: HerokuConnect, connect: Any) -> list[str]:
    """Names of created accounts, as receivers hear of them."""
    got: list[str] = []
    connect(signals.record_created, lambda instance, **kwargs: got.append(instance.name), Account)
    return got


def insert(name: str, table: str = "salesforce.account") -> None:
    as_heroku_connect(f"INSERT INTO {table} (sfid, name) VALUES (%s, %s)", [name, name])


@pytest.mark.fault(
    "ADD, DROP, RENAME COLUMN, ALTER TYPE, SET NOT NULL, new indexes and keys", outcome="not blocked; captured"
)
def test_columns_are_free(captured: HerokuConnect) -> None:
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


@pytest.mark.fault("table dropped and re-created", outcome="not blocked; status says missing, `install` mends it")
def test_tables_are_free(captured: HerokuConnect, names: list[str]) -> None:
    insert("before")
    captured.recreate_table(Account)
    assert triggers.status(Account, "default").state == "missing"
    assert triggers.install(Account, "default").state == "installed"
    insert("after")
    deliver()
    assert names == ["before", "after"]


@pytest.mark.fault("mapping removed: table or schema dropped", outcome="not blocked; status says absent")
@pytest.mark.parametrize("ddl", ["DROP TABLE salesforce.account", "DROP SCHEMA salesforce CASCADE"])
def test_dropping_is_free(captured: HerokuConnect, ddl: str) -> None:
    as_heroku_connect(ddl)
    assert triggers.status(Account, "default").state == "absent"


@pytest.mark.fault(
    "schema renamed, a new one in its place", outcome="not blocked; the old tables no longer speak for the new"
)
def test_schemas_are_free(captured: HerokuConnect, names: list[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS former CASCADE")
    as_heroku_connect("ALTER SCHEMA salesforce RENAME TO former")
    try:
        insert("old", "former.account")
        assert Change.objects.get().table_name == "former.account"
        captured.create_tables()
        assert triggers.status(Account, "default").state == "missing"
        triggers.install(Account, "default")
        assert triggers.status(Account, "default").state == "installed"
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
def test_a_renamed_table_changes_its_name_in_the_log(captured: HerokuConnect) -> None:
    as_heroku_connect("ALTER TABLE salesforce.account RENAME TO konto")
    insert("a", "salesforce.konto")
    as_heroku_connect("ALTER TABLE salesforce.konto RENAME TO account")
    insert("b")
    assert [c.table_name for c in Change.objects.order_by("id")] == ["salesforce.konto", "salesforce.account"]


def test_a_model_that_follows_the_renamed_schema_has_one_event_per_change(captured: HerokuConnect) -> None:
    """HEROKU_CONNECT_SCHEMA is changed and deployed: the triggers of the old name are there, those of the new come."""
    before = Account._meta.db_table
    as_heroku_connect("ALTER TABLE salesforce.account RENAME TO konto")
    Account._meta.db_table = 'salesforce"."konto'
    try:
        assert triggers.status(Account, "default").state == "outdated"
        insert("a", "salesforce.konto")
        assert triggers.install(Account, "default").state == "installed"
        insert("b", "salesforce.konto")
        assert [change.table_name for change in Change.objects.all()] == ["salesforce.konto"] * 2
    finally:
        Account._meta.db_table = before


@pytest.mark.fault(
    "`hc_triggers install` while a table is locked", outcome="gives up after 5 x 2 s; writers queue no longer"
)
def test_installing_waits_no_longer_than_it_says(captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    triggers.uninstall(Account, "default")
    monkeypatch.setattr(triggers, "LOCK_TIMEOUT", "50ms")
    with another("INSERT INTO salesforce.account (sfid) VALUES ('open')"):
        with pytest.raises(Exception, match="lock timeout"):
            triggers.install(Account, "default")
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM pg_locks WHERE NOT granted AND {IS_OURS}")
            assert cursor.fetchone() == (0,)
