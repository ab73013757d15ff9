"""A customer's own triggers change rows inside Heroku Connect's statement: order and old values stay right."""

from typing import Any

import pytest
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
