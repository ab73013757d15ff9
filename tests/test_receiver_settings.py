"""Settings that a receiver changes reach no other receiver, no later page, and not Heroku Connect."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from example.crm.models import Account, Contact, Seen

from hc_signals import signals
from hc_signals.delivery.isolation import careful
from hc_signals.exceptions import LeftSettingsError
from hc_signals.models import Change, Delivery
from hc_signals.testing import deliver_changes
from tests.conftest import as_heroku_connect, as_the_app, deliver
from tests.server import own
from tests.test_isolation import insert_accounts, seen, seen_changes
from tests.test_misbehaving_receivers import deliver_through

pytestmark = pytest.mark.usefixtures("captured")


WEAK = own("hc_weak")
"""A role without rights."""


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin like a new process, which knows of no receiver that has broken a page."""
    monkeypatch.setattr(careful, "_in_advance", set())
    monkeypatch.setattr(careful, "_breaks", Counter())


@pytest.fixture
def weak_role(captured: Any) -> Iterator[None]:
    as_the_app(f"CREATE ROLE {WEAK}")
    yield
    connection.close()
    as_the_app(f"DROP ROLE {WEAK}")


_NAMES = """SELECT public.hc_signals_setting_names(), string_to_array(public.hc_signals_settings(), E'\\x1f')"""


def settings() -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute(_NAMES)
        return dict(zip(*cursor.fetchone(), strict=True))


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


class Leaking:
    """Connect a receiver that writes and leaves a setting at the second change; another one records the settings."""

    def __init__(self, connect: Any, leak: Callable[[], Any]) -> None:
        self.found: list[dict[str, str]] = []
        self.names: list[str] = []

        def reads(instance: Account, event: Any, **kwargs: Any) -> None:
            self.found.append(settings())
            seen(event)

        def leaks(instance: Account, event: Any, **kwargs: Any) -> None:
            self.names.append(str(instance.name))
            Seen.objects.create(event_id=f"hers {event.event_id}", sequence_number=0, entity_name="", change_type="")
            if instance.name == "n2":
                leak()

        connect(signals.record_created, leaks, Account)
        connect(signals.record_created, reads, Account)

    def assert_alone(self, name: str, count: int = 3) -> None:
        """The call at n2 has failed, with advice. All other calls had the same settings, and wrote."""
        error = Delivery.objects.get().error
        assert f"left them so: {name}" in error
        assert "SET LOCAL into a block of transaction.atomic()" in error
        assert len(seen_changes()) == count
        assert Seen.objects.filter(event_id__startswith="hers ").count() == count - 1
        assert all(each == self.found[0] for each in self.found)


@pytest.mark.fault(
    "a receiver leaves its role or a setting changed: `SET ROLE`, `search_path`, timeouts, `xmlbinary`, read-only …",
    outcome="set back; it fails alone, its delivery is stored, and the error says what to do",
)
@pytest.mark.parametrize(
    "statement, name",
    [
        ("SET LOCAL search_path = pg_catalog", "search_path"),
        ("SET search_path = pg_catalog", "search_path"),
        ("SELECT set_config('search_path', 'pg_catalog', true)", "search_path"),
        ("SET LOCAL statement_timeout = '1ms'", "statement_timeout"),
        ("SET lock_timeout = '1ms'", "lock_timeout"),
        ("SET default_transaction_read_only = on", "default_transaction_read_only"),
        ("SET TRANSACTION READ ONLY", "transaction_read_only"),
        ("SET LOCAL xmlbinary = 'hex'", "xmlbinary"),
        ("SET TIME ZONE 'Asia/Tokyo'", "TimeZone"),
        ("SET LOCAL session_replication_role = replica", "session_replication_role"),
        ("SET LOCAL row_security = off", "row_security"),
        ("SET synchronous_commit = off", "synchronous_commit"),
        ("SET ROLE {weak}", "role"),
        ("SET LOCAL ROLE {weak}", "role"),
        ("SET SESSION AUTHORIZATION {weak}", "session_authorization"),
    ],
)
@pytest.mark.usefixtures("weak_role")
def test_setting_left_fails_its_receiver_alone(connect: Any, statement: str, name: str) -> None:
    leaking = Leaking(connect, lambda: execute(statement.format(weak=WEAK)))
    insert_accounts(3)
    assert deliver() == 3
    leaking.assert_alone(name)
    as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('B', 'later')")
    assert deliver() == 1
    leaking.assert_alone(name, 4)


@pytest.mark.parametrize("names", [["n3"], ["n1", "n2", "n3"]])
def test_setting_left_at_the_end_of_a_page_is_found(connect: Any, names: list[str]) -> None:
    """No receiver's query comes after it: the position's message finds it."""

    def leaks(instance: Account, **kwargs: Any) -> None:
        Seen.objects.create(event_id=instance.name, sequence_number=0, entity_name="", change_type="")
        if instance.name in names:
            execute("SET LOCAL xmlbinary = 'hex'")

    connect(signals.record_created, leaks, Account)
    insert_accounts(3)
    assert deliver() == 3
    assert Delivery.objects.count() == len(names)
    assert Seen.objects.filter(event_id__startswith="n").count() == 3 - len(names)


def test_other_receivers_writes_keep_their_origin(connect: Any) -> None:
    """With xmlbinary = hex Heroku Connect would take them for its own, and not write them to Salesforce."""

    def leaks(instance: Account, **kwargs: Any) -> None:
        execute("SET LOCAL xmlbinary = 'hex'")

    def writes(instance: Account, **kwargs: Any) -> None:
        Contact.objects.create(last_name=instance.name)

    connect(signals.record_created, leaks, Account)
    connect(signals.record_created, writes, Account)
    insert_accounts(2)
    assert deliver() == 2
    assert Contact.objects.count() == 2
    assert not Change.objects.filter(table_name="salesforce.contact").exists()


@pytest.mark.parametrize(
    "statement", ["SET LOCAL statement_timeout = '5s'", "SET ROLE {weak}", "SET TimeZone = 'Asia/Tokyo'"]
)
@pytest.mark.usefixtures("weak_role")
def test_setting_ends_with_the_block_it_was_made_in(connect: Any, statement: str) -> None:
    """PostgreSQL would keep it to the end of the page, because the block is a savepoint there."""

    def in_a_block() -> None:
        with transaction.atomic():
            with transaction.atomic():
                execute(statement.format(weak=WEAK))
            inner.append(settings())

    inner: list[dict[str, str]] = []
    leaking = Leaking(connect, in_a_block)
    insert_accounts(3)
    before = settings()
    assert deliver() == 3
    assert not Delivery.objects.exists()
    assert all(each == leaking.found[0] for each in leaking.found)
    assert inner != leaking.found[:1], "an inner block does not end it, as in Django"
    assert settings() == before, "no setting is left when the page is committed"


def test_next_change_of_the_record_waits_for_the_check(connect: Any) -> None:
    """The first call has failed, but is not checked yet: the second call for the record must wait for the check."""
    calls: list[str] = []

    def leaks(instance: Account, **kwargs: Any) -> None:
        calls.append(str(instance.name))
        if instance.name == "one":
            execute("SET LOCAL xmlbinary = 'hex'")

    connect(signals.record_changed, leaks, Account)
    as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('A', 'one')")
    as_heroku_connect("UPDATE salesforce.account SET name = 'two'")
    assert deliver() == 2
    assert calls == ["one"]
    assert sorted(Delivery.objects.values_list("state", flat=True)) == ["parked", "retry"]


def test_bulk_receiver_waits_for_the_check(connect: Any) -> None:
    def leaks(instance: Any = None, events: Any = (), **kwargs: Any) -> None:
        if instance is not None and instance.name == "n2":
            execute("SET LOCAL xmlbinary = 'hex'")
        received.extend(event.instance.name for event in events)

    received: list[str] = []
    connect(signals.record_created, leaks, Account)
    connect(signals.records_changed, leaks, Account)
    insert_accounts(2)
    assert deliver() == 2
    assert received == ["n1"]


def test_retry_that_leaves_a_setting_fails_again(connect: Any) -> None:
    Leaking(connect, lambda: execute("SET LOCAL xmlbinary = 'hex'"))
    insert_accounts(2)
    deliver()
    Delivery.objects.update(next_attempt_at=Now())
    deliver()
    assert Delivery.objects.get().attempt == 2


def test_setting_left_past_django_is_found_call_by_call(connect: Any, caplog: Any) -> None:
    """No wrapper gets such a query, so the page is delivered again, with a check after each call."""
    leaking = Leaking(connect, lambda: connection.connection.execute("SET LOCAL xmlbinary = 'hex'"))

    def leaks_alone(instance: Account, **kwargs: Any) -> None:
        if instance.name == "n3":
            connection.connection.execute("SET LOCAL search_path = pg_catalog")

    connect(signals.record_updated, leaks_alone, Account)
    insert_accounts(3)
    as_heroku_connect("UPDATE salesforce.account SET industry = 'Energy'")
    deliver_through()
    assert len(seen_changes()) == 3
    assert all(each == leaking.found[0] for each in leaking.found)
    names = sorted(
        error.split("left them so: ")[1].split(".")[0] for error in Delivery.objects.values_list("error", flat=True)
    )
    assert names == ["search_path", "xmlbinary"]


@pytest.mark.django_db(transaction=True)
def test_deliver_changes_raises_for_a_left_setting(connect: Any) -> None:
    Leaking(connect, lambda: execute("SET LOCAL xmlbinary = 'hex'"))
    insert_accounts(3)
    with pytest.raises(LeftSettingsError, match="xmlbinary"):
        deliver_changes()


def test_settings_of_a_tests_transaction_are_restored(connect: Any) -> None:
    connect(signals.record_created, lambda event, **kwargs: seen(event), Account)
    with transaction.atomic():
        execute("SET LOCAL statement_timeout = '7s'")
        as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('B', 'b')")
        execute("SET LOCAL xmlbinary = 'base64'")
        before = settings()
        assert deliver_changes() == 1
        assert settings() == before
        execute("DECLARE hc_signals_commit CURSOR FOR SELECT 1")
    assert len(seen_changes()) == 1


def test_left_setting_fails_without_a_transaction(connect: Any) -> None:
    leaking = Leaking(connect, lambda: execute("SET search_path = pg_catalog"))
    insert_accounts(3)
    deliver_through(ATOMIC=False)
    assert "left them so: search_path" in Delivery.objects.get().error
    assert all(each == leaking.found[0] for each in leaking.found)
    assert len(seen_changes()) == 3
