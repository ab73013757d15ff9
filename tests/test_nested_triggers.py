"""A customer's own triggers change rows inside Heroku Connect's statement: order and old values stay right."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from example.crm.models import Account

from hc_signals import signals
from hc_signals.testing import HerokuConnect
from tests.conftest import as_the_app, deliver


@pytest.fixture
def told(connect: Any) -> list[tuple[str, Any, Any]]:
    """What receivers hear of names: change type, old, new."""
    got: list[tuple[str, Any, Any]] = []

    def on_change(event: Any, instance: Account, **kwargs: Any) -> None:
        got.append((event.change_type, event.previous.get("name"), instance.name))

    connect(signals.record_changed, on_change, Account)
    return got


def customers_trigger(body: str, timing: str = "AFTER INSERT OR UPDATE", level: str = "ROW", name: str = "own") -> None:
    as_the_app(
        f"CREATE FUNCTION salesforce.{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$; "
        f"CREATE TRIGGER {name} {timing} ON salesforce.account FOR EACH {level} EXECUTE FUNCTION salesforce.{name}()"
    )


UPPER = "UPDATE salesforce.account SET name = upper(NEW.name) WHERE id = NEW.id AND name <> upper(name);"


@pytest.mark.fault("a customer's trigger changes the same rows again", outcome="delivered in the order it happened")
def test_a_row_trigger_that_updates_the_same_row(captured: HerokuConnect, told: list[Any]) -> None:
    customers_trigger(UPPER)
    sfids = captured.insert(Account, {"name": "one"}, {"name": "two"})
    captured.update(Account, sfids[0], name="uno")
    deliver()
    assert told[:4] == [
        ("CREATE", None, "one"),
        ("CREATE", None, "two"),
        ("UPDATE", "one", "ONE"),
        ("UPDATE", "two", "TWO"),
    ]
    assert told[4:] == [("UPDATE", "ONE", "uno"), ("UPDATE", "uno", "UNO")]


def test_a_row_trigger_that_takes_the_change_back(captured: HerokuConnect, told: list[Any]) -> None:
    (sfid,) = captured.insert(Account, name="kept")
    deliver()
    told.clear()
    customers_trigger(
        "IF pg_trigger_depth() = 1 THEN UPDATE salesforce.account SET name = OLD.name WHERE id = NEW.id; END IF;",
        "AFTER UPDATE",
    )
    captured.update(Account, sfid, name="edited")
    deliver()
    assert told == [("UPDATE", "kept", "edited"), ("UPDATE", "edited", "kept")]


def test_three_statements_deep(captured: HerokuConnect, told: list[Any]) -> None:
    customers_trigger(
        "IF length(NEW.name) < 3 THEN UPDATE salesforce.account SET name = NEW.name || '.' WHERE id = NEW.id; END IF;"
    )
    captured.insert(Account, name="a")
    deliver()
    assert told == [("CREATE", None, "a"), ("UPDATE", "a", "a."), ("UPDATE", "a.", "a..")]


@pytest.mark.parametrize("name", ["aaa_first", "zzz_last"])
def test_a_statement_trigger_on_either_side_of_ours(captured: HerokuConnect, told: list[Any], name: str) -> None:
    customers_trigger(
        "IF pg_trigger_depth() = 1 THEN UPDATE salesforce.account SET name = name || '!'; END IF;",
        level="STATEMENT",
        name=name,
    )
    (sfid,) = captured.insert(Account, name="a")
    captured.poll(Account, [{"sf_id": sfid, "name": "b"}, {"sf_id": sfid, "name": "c"}])  # one transaction
    deliver()
    assert told == [
        ("CREATE", None, "a"),
        ("UPDATE", "a", "a!"),
        ("UPDATE", "a!", "b"),
        ("UPDATE", "b", "b!"),
        ("UPDATE", "b!", "c"),
        ("UPDATE", "c", "c!"),
    ]


@pytest.mark.fault(
    "a customer's trigger switches `xmlbinary` inside the statement",
    outcome="delivered; what the trigger wrote as the app is none",
)
def test_a_trigger_that_writes_back_as_the_app(captured: HerokuConnect, told: list[Any]) -> None:
    """The documented way: under base64, so Heroku Connect sends it to Salesforce; it is no change of Salesforce's."""
    customers_trigger(f"SET LOCAL xmlbinary = 'base64'; {UPPER} SET LOCAL xmlbinary = 'hex';")
    captured.insert(Account, name="one")
    deliver()
    assert told == [("CREATE", None, "one")]
    assert Account.objects.get().name == "ONE"


def test_a_nested_delete(captured: HerokuConnect, told: list[Any]) -> None:
    customers_trigger("DELETE FROM salesforce.account WHERE id = NEW.id AND NEW.name = 'spam';")
    captured.insert(Account, {"name": "spam"}, {"name": "ham"})
    deliver()
    assert told == [("CREATE", None, "spam"), ("CREATE", None, "ham"), ("DELETE", None, "spam")]


PUBLICATIONS = [
    "FOR ALL TABLES",
    "FOR ALL TABLES WITH (publish_via_partition_root = true)",
    "FOR TABLES IN SCHEMA public",
    "FOR TABLE public.hc_signals_change, public.hc_signals_cleared",
]


@contextmanager
def published(what: str) -> Iterator[None]:
    """Publish tables for the length of the block; PostgreSQL does so under any wal_level."""
    as_the_app(f"CREATE PUBLICATION hc_signals_test {what}")
    try:
        yield
    finally:
        as_the_app("DROP PUBLICATION hc_signals_test")


@pytest.mark.fault(
    "a publication covers the log (`FOR ALL TABLES`), and a customer's trigger changes the same rows again",
    outcome="delivered in the order it happened",
)
@pytest.mark.parametrize("what", PUBLICATIONS)
def test_nested_rows_move_under_a_publication(captured: HerokuConnect, told: list[Any], what: str) -> None:
    if "IN SCHEMA" in what and connection.pg_version < 150000:
        pytest.skip("FOR TABLES IN SCHEMA came with PostgreSQL 15")
    customers_trigger(UPPER)
    with published(what):
        (sfid,) = captured.insert(Account, name="one")
        captured.update(Account, sfid, name="uno")
        deliver()
    assert told == [
        ("CREATE", None, "one"),
        ("UPDATE", "one", "ONE"),
        ("UPDATE", "ONE", "uno"),
        ("UPDATE", "uno", "UNO"),
    ]


def test_publications_refuse_no_statement_on_our_tables(captured: HerokuConnect) -> None:
    """PostgreSQL refuses UPDATE and DELETE on a published table without a replica identity."""
    tables = """SELECT c.oid::regclass::text, relreplident, EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary
    ) FROM pg_class c
    WHERE relkind = 'r' AND relname LIKE 'hc\\_signals\\_%' AND relnamespace = 'public'::regnamespace"""
    with connection.cursor() as cursor:
        cursor.execute(tables)
        found = cursor.fetchall()
    assert len(found) >= 15
    assert [table for table, identity, has_key in found if not (identity == "f" or (identity == "d" and has_key))] == []


@contextmanager
def replaced(function: str, body: str) -> Iterator[None]:
    """Give a function of ours another body for the length of the block."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_functiondef(%s::regprocedure)", [f"public.{function}"])
        (before,) = cursor.fetchone()
        source = before[before.index("AS $function$") :]
        cursor.execute(before.replace(source, f"AS $$ {body} $$"))
        try:
            yield
        finally:
            cursor.execute(before)


FAILS_AT = "BEGIN IF pg_trigger_depth() = {} THEN RAISE 'broken'; END IF; RETURN true; END"
"""Asked by the typed capture only: whole rows could still be logged."""
FAILURES = {
    "outer": ("hc_signals_admit()", FAILS_AT.format(1)),
    "inner": ("hc_signals_admit()", FAILS_AT.format(2)),
    "moving": ("hc_signals_reorder(text)", "BEGIN RAISE 'broken'; END"),
}


@pytest.fixture
def gaps(captured: HerokuConnect, connect: Any) -> list[str]:
    """Causes of the gaps of Account, in a log that has been read before."""
    causes: list[str] = []
    connect(signals.gap_detected, lambda event, **kwargs: causes.append(event.cause), Account)
    deliver()
    return causes


@pytest.mark.fault(
    "capture, or the moving of rows, fails while a customer's trigger changes the same rows again",
    outcome="gap; what is delivered is in order",
)
@pytest.mark.parametrize("where", FAILURES)
def test_a_nested_fallback_is_a_gap(captured: HerokuConnect, told: list[Any], gaps: list[str], where: str) -> None:
    customers_trigger(UPPER)
    with replaced(*FAILURES[where]):
        captured.insert(Account, name="one")
        deliver()
        history = iter([("CREATE", None, "one"), ("UPDATE", "one", "ONE")])
        assert all(each in history for each in told), told
        assert gaps == ["capture_failed"]
    told.clear()
    captured.insert(Account, name="two")
    deliver()
    assert told == [("CREATE", None, "two"), ("UPDATE", "two", "TWO")]
    assert gaps == ["capture_failed"]


def test_a_loss_in_the_middle_is_a_gap(captured: HerokuConnect, told: list[Any], gaps: list[str]) -> None:
    """Three statements deep: the innermost is logged and has nothing left to come after."""
    customers_trigger(
        "IF length(NEW.name) < 3 THEN UPDATE salesforce.account SET name = NEW.name || '.' WHERE id = NEW.id; END IF;"
    )
    with replaced("hc_signals_admit()", FAILS_AT.format(2)):
        captured.insert(Account, name="a")
    deliver()
    history = iter([("CREATE", None, "a"), ("UPDATE", "a", "a."), ("UPDATE", "a.", "a..")])
    assert all(each in history for each in told), told
    assert gaps == ["capture_failed"]


def test_a_publication_of_some_columns_is_a_gap(captured: HerokuConnect, told: list[Any], gaps: list[str]) -> None:
    """Made by hand, with a list of columns, it refuses to let rows be moved."""
    if connection.pg_version < 150000:
        pytest.skip("lists of columns came with PostgreSQL 15")
    customers_trigger(UPPER)
    with published("FOR TABLE public.hc_signals_change (id, bucket) WITH (publish_via_partition_root = true)"):
        captured.insert(Account, name="one")
        deliver()
    assert told == [("UPDATE", "one", "ONE")]
    assert gaps == ["capture_failed"]
