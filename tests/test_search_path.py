"""A role or database whose search_path lacks ``public``: hc_signals finds all its tables and functions."""

from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from example.crm.models import Account

from hc_signals import signals
from hc_signals.models import Change, Delivery, Position
from hc_signals.testing import HerokuConnect
from tests.conftest import as_the_app, deliver

_OTHERS = """
SELECT format('ALTER TABLE %I.%I SET SCHEMA %I', schemaname, tablename,
              CASE schemaname WHEN 'app' THEN 'public' ELSE 'app' END)
FROM pg_tables WHERE schemaname IN ('app', 'public') AND tablename NOT LIKE 'hc\\_signals\\_%'
"""


def move_the_projects_tables() -> None:
    """Move all tables of other apps from ``public`` to ``app``, or back."""
    with connection.cursor() as cursor:
        cursor.execute(_OTHERS)
        for (statement,) in cursor.fetchall():
            cursor.execute(statement)


@pytest.fixture
def elsewhere(captured: HerokuConnect) -> Iterator[HerokuConnect]:
    """The project's tables are in a schema of their own, and every session of the database has only that."""
    name = connection.ops.quote_name(connection.settings_dict["NAME"])
    as_the_app("CREATE SCHEMA app")
    move_the_projects_tables()
    as_the_app(f"ALTER DATABASE {name} SET search_path = app")
    connection.close()
    yield captured
    as_the_app(f"ALTER DATABASE {name} RESET search_path")
    connection.close()
    move_the_projects_tables()
    as_the_app("DROP SCHEMA app")


def created(heroku: HerokuConnect, count: int) -> None:
    """Create records as Heroku Connect, whose own functions need ``public`` on the search_path."""
    as_the_app("SET search_path = public")
    heroku.create(Account, count)
    as_the_app("RESET search_path")


def printed(*command: str) -> str:
    """Return what a command prints."""
    out = StringIO()
    call_command(*command, stdout=out, stderr=out, no_color=True)
    return out.getvalue()


def test_deliveries_are_stored_and_retried(elsewhere: HerokuConnect, connect: Callable[..., None]) -> None:
    calls: list[Any] = []

    def fails_once(event: Any, **kwargs: Any) -> None:
        calls.append(event)
        if len(calls) == 1:
            raise ValueError("once")

    connect(signals.record_created, fails_once, Account)
    created(elsewhere, 1)
    deliver()
    assert Delivery.objects.count() == Change.objects.count() == 1
    assert Position.objects.exists()
    assert "1 deliveries" in printed("hc_deliveries", "list")
    assert "1 deliveries are due now" in printed("hc_deliveries", "retry", "--all")
    deliver()
    assert len(calls) == 2 and not Delivery.objects.exists()


def test_every_command_works(elsewhere: HerokuConnect, connect: Callable[..., None]) -> None:
    calls: list[Any] = []
    connect(signals.record_changed, lambda event, **kwargs: calls.append(event), Account)
    created(elsewhere, 2)
    assert "2 changes delivered" in printed("hc_listen", "--once")
    assert "everything" in printed("hc_triggers", "status")
    for words in (
        ["hc_triggers", "install"],
        ["hc_triggers", "pause"],
        ["hc_triggers", "resume"],
        ["hc_backfill", "crm.Account"],
        ["hc_replay", "--since", "1h", "--yes"],
        ["hc_consumers", "list"],
        ["hc_consumers", "start", "late", "--at", "1h"],
        ["hc_consumers", "remove", "late"],
        ["hc_inspect"],
        ["hc_mappings", "export"],
        ["check", "--database", "default"],
        ["migrate"],
    ):
        printed(*words)
    assert len(calls) > 2


def test_admin_pages_work(elsewhere: HerokuConnect, admin_client: Client, connect: Callable[..., None]) -> None:
    def fails(**kwargs: Any) -> None:
        raise ValueError("always")

    connect(signals.record_created, fails, Account)
    created(elsewhere, 1)
    deliver()
    change, delivery = Change.objects.get(), Delivery.objects.get()
    for page in (
        "change/",
        f"change/{change.pk}/change/",
        "delivery/",
        f"delivery/{delivery.pk}/change/",
        "position/",
        "connectedtable/",
        "triggerlog/",
    ):
        assert admin_client.get(f"/admin/hc_signals/{page}").status_code == 200, page


def test_models_match_the_migrations(elsewhere: HerokuConnect) -> None:
    call_command("makemigrations", "hc_signals", check=True, dry_run=True, verbosity=0)
