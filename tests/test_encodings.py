"""Databases in LATIN1 and SQL_ASCII, and a server that speaks German: changes are delivered, and no worker stops."""

from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.capture.install import install_capture
from hc_signals.models import Delivery
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect, databases
from tests.conftest import another, as_the_app, deliver, lost, running_crew
from tests.server import own
from tests.test_worker_process import wait_until

NOT_C = "C.UTF-8"
"""A locale with which the server's LANGUAGE decides the language: see tests.server.start_for_this_run."""
BEYOND_LATIN1 = "not paid: \u2713 \u0416 \U0001f600 \udcff \x00 but \u00e9"


def switch_to(name: str) -> None:
    """Let this process use another database of the server."""
    connection.close()
    connection.settings_dict["NAME"] = name


@pytest.fixture(scope="module")
def made(django_db_setup: None, django_db_blocker: Any) -> Iterator[set[str]]:
    """The databases of this module that exist; dropped at its end."""
    names: set[str] = set()
    yield names
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def make(name: str, encoding: str) -> None:
    """Create a captured database in an encoding."""
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
    switch_to(name)
    call_command("migrate", verbosity=0)
    HerokuConnect().create_tables()
    for model in connected_models():
        assert install_capture(model, "default").state == "installed"


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def encoded(request: pytest.FixtureRequest, transactional_db: None, made: set[str]) -> Iterator[HerokuConnect]:
    """A captured database in another encoding than UTF8, without records and changes."""
    before, name = connection.settings_dict["NAME"], own(f"hc_signals_in_{request.param.lower()}")
    try:
        if name in made:
            switch_to(name)
            databases.empty()
        else:
            made.add(name)
            make(name, request.param)
        yield HerokuConnect()
    finally:
        switch_to(before)


def printed(*command: str) -> str:
    """Return what a command prints, whatever its exit code."""
    out = StringIO()
    try:
        call_command(*command, stdout=out, stderr=out, no_color=True)
    except CommandError as error:
        return f"{out.getvalue()}{error}"
    return out.getvalue()


@pytest.mark.fault(
    "a database in LATIN1 or SQL_ASCII; errors of receivers say what it cannot store", outcome="delivered"
)
def test_error_texts_beyond_the_encoding_are_stored(
    encoded: HerokuConnect, connect: Callable[..., None], client: Client
) -> None:
    """A receiver's message has characters that the database cannot store; another receiver gets all events."""
    heard: list[str] = []

    def fails(**kwargs: Any) -> None:
        raise ValueError(BEYOND_LATIN1)

    connect(signals.record_created, fails, Account)
    connect(signals.record_created, lambda instance, **kwargs: heard.append(instance.name), Account)
    encoded.insert(Account, {"name": "Zo\u00eb"}, {"name": "M\u00fcller"})
    assert deliver() == 2
    assert heard == ["Zo\u00eb", "M\u00fcller"]
    kept = Delivery.objects.order_by("id")[0]
    assert kept.error.startswith("ValueError: not paid: ") and "but \u00e9" in kept.error
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now()")
    deliver()
    assert [each.attempt for each in Delivery.objects.all()] == [2, 2]
    assert "not paid" in printed("hc_deliveries", "show", str(kept.id), "--values")
    assert "2 deliveries" in printed("hc_deliveries", "list")
    assert "deliveries" in printed("hc_status")
    client.force_login(_superuser())
    for page in ("change/", "delivery/", f"delivery/{kept.id}/change/", "position/", "connectedtable/"):
        assert client.get(f"/admin/hc_signals/{page}").status_code == 200


def _superuser() -> Any:
    from django.contrib.auth.models import User

    return User.objects.create_superuser("admin")


def test_receivers_cannot_write_beyond_the_encoding(encoded: HerokuConnect, connect: Callable[..., None]) -> None:
    """LATIN1 refuses such a value: it is that receiver's failure, and the others go on."""
    heard: list[str] = []

    def renames(instance: Any, **kwargs: Any) -> None:
        Seen.objects.create(event_id="\u2713" + instance.sf_id, sequence_number=1, entity_name="x", change_type="x")

    connect(signals.record_created, renames, Account)
    connect(signals.record_created, lambda instance, **kwargs: heard.append(instance.name), Account)
    encoded.insert(Account, {"name": "first"}, {"name": "second"})
    assert deliver() >= 2
    assert heard == ["first", "second"]
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_encoding")
        refused = 2 if cursor.fetchone() == ("LATIN1",) else 0
    assert Delivery.objects.filter(error__startswith="DataError").count() == refused


def test_bytes_that_are_no_text_fail_alone(encoded: HerokuConnect, connect: Callable[..., None]) -> None:
    """SQL_ASCII takes any bytes; a client in UTF-8 cannot read them. LATIN1 has a character for each."""
    heard: list[str] = []
    connect(signals.record_changed, lambda instance, **kwargs: heard.append(instance.name), Account)
    encoded.insert(Account, {"name": "first"}, {"name": "second"})
    deliver()
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_encoding")
        (encoding,) = cursor.fetchone()
        for statement in (
            f"SET client_encoding = {encoding}",
            "SET xmlbinary = hex",
            "UPDATE salesforce.account SET name = E'Zo\\353' WHERE name = 'first'",
            "RESET xmlbinary",
            "RESET client_encoding",
        ):
            connection.connection.execute(statement)
    encoded.update(Account, encoded.sfids(Account)[1], name="third")
    assert deliver() == 2
    if encoding == "LATIN1":
        assert heard == ["first", "second", "Zo\u00eb", "third"]
    else:
        assert heard == ["first", "second", "third"]
        mine = Delivery.objects.filter(receiver__startswith="tests.test_encodings")
        kept = mine.filter(error__startswith="DataError: invalid byte sequence")
        assert kept.count() == 1


def test_hc_listen_wakes_in_another_encoding(encoded: HerokuConnect, connect: Callable[..., None]) -> None:
    heard: list[str] = []
    connect(signals.record_created, lambda instance, **kwargs: heard.append(instance.name), Account)
    with running_crew():
        encoded.insert(Account, {"name": "Zo\u00eb"})
        wait_until(lambda: len(heard) == 1)


@pytest.fixture
def german(captured: HerokuConnect) -> Iterator[HerokuConnect]:
    """A captured database whose server answers in German."""
    name = connection.ops.quote_name(connection.settings_dict["NAME"])
    as_the_app(f"ALTER DATABASE {name} SET lc_messages = 'C'")
    with connection.cursor() as cursor:
        try:
            cursor.execute(f"ALTER DATABASE {name} SET lc_messages = '{NOT_C}'")
        except Exception:
            pytest.skip(f"the machine has no locale {NOT_C}")
    connection.close()
    if "existiert" not in server_says("SELECT * FROM nowhere"):
        as_the_app(f"ALTER DATABASE {name} RESET lc_messages")
        connection.close()
        pytest.skip("the server has no German messages: built without them, as the embedded one, or by DATABASE_URL")
    yield captured
    as_the_app(f"ALTER DATABASE {name} RESET lc_messages")
    connection.close()


@pytest.mark.fault("the server's messages are in another language (`lc_messages`)", outcome="delivered")
def test_errors_are_classified_on_a_german_server(german: HerokuConnect, connect: Callable[..., None]) -> None:
    """Locked tables, missing tables, rights and failing receivers are distinguished by SQLSTATE, not by their texts."""
    heard: list[str] = []

    def fails(**kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM nowhere")

    connect(signals.record_created, fails, Account)
    connect(signals.record_created, lambda event, **kwargs: heard.append(event.record_id), Account)
    sfids = german.create(Account, 2)
    assert deliver() == 2
    assert heard == sfids
    assert "existiert nicht" in Delivery.objects.order_by("id")[0].error
    as_the_app("DROP TRIGGER hc_signals_update ON salesforce.contact")
    with another("LOCK TABLE salesforce.contact IN ACCESS EXCLUSIVE MODE"):
        assert "55P03" in printed("hc_triggers", "install", "crm.Contact")
    with another("LOCK TABLE public.hc_signals_change IN ACCESS EXCLUSIVE MODE"):
        german.create(Account, 1)
    assert lost() == 1
    printed("hc_status")


def server_says(statement: str) -> str:
    """Return the message of the error that a statement raises."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except Exception as error:
        return str(error)
    return ""
