"""Options of psycopg and of Django's DATABASES that a project may set: delivery works under each of them."""

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.testing import HerokuConnect
from tests.conftest import deliver
from tests.test_worker_process import asleep, insert, start, wait_until

OPTIONS: dict[str, dict[str, Any]] = {
    "prepared": {"prepare_threshold": 0},
    "bound at the server": {"server_side_binding": True},
    "bound at the server, prepared": {"server_side_binding": True, "prepare_threshold": 0},
    "bound at the server, prepared later": {"server_side_binding": True, "prepare_threshold": 2},
    "serializable": {"isolation_level": 4},
}


@pytest.fixture(params=OPTIONS)
def options(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[None]:
    """Give connections of this process options; they are set back afterwards."""
    before = connection.settings_dict
    connection.close()
    connection.settings_dict = {**before, "OPTIONS": {**before.get("OPTIONS", {}), **OPTIONS[request.param]}}
    yield
    connection.close()
    connection.settings_dict = before


@pytest.mark.fault(
    "the project binds parameters at the server, or prepares statements (`server_side_binding`, `prepare_threshold`)",
    outcome="delivered; a failing receiver fails alone",
)
@pytest.mark.usefixtures("options")
@pytest.mark.parametrize("atomic", [True, False])
def test_changes_are_delivered_under_driver_options(captured: HerokuConnect, connect: Any, atomic: bool) -> None:
    """With receivers that fail, leave a setting or violate a constraint: each makes us send other statements."""
    names: list[str] = []

    def fails(instance: Account, **kwargs: Any) -> None:
        with transaction.atomic():
            Seen.objects.count()
        raise ValueError

    def leaves_a_setting(**kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET search_path = salesforce")

    connect(signals.record_created, fails, Account)
    connect(signals.record_created, leaves_a_setting, Account)
    connect(signals.record_changed, lambda instance, **kwargs: names.append(instance.name), Account)
    for number in range(6):
        captured.insert(Account, name=f"{number}")
        deliver(ATOMIC=atomic)
    captured.insert(Account, *[{"name": f"{number}"} for number in range(6, 12)])
    assert deliver(ATOMIC=atomic, BATCH_SIZE=2) == 6
    assert names == [f"{number}" for number in range(12)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT split_part(receiver, '.', -1), count(*) FROM public.hc_signals_delivery GROUP BY 1")
        assert dict(cursor.fetchall()) == {"fails": 12, "leaves_a_setting": 12}
    call_command("hc_backfill", "crm.Account", stdout=StringIO(), stderr=StringIO())
    assert deliver(ATOMIC=atomic) == 12


@pytest.mark.fault("the project sets `AUTOCOMMIT` to False for the database", outcome="delivered")
def test_worker_commits_without_autocommit_of_the_project(captured: HerokuConnect) -> None:
    process = start("hc_listen", DATABASE_JSON=json.dumps({"AUTOCOMMIT": False}))
    try:
        for count in (2, 4):
            wait_until(asleep)
            insert(2)
            wait_until(lambda n=count: Seen.objects.count() == n)  # type: ignore[misc]
        process.terminate()
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    finally:
        process.kill()
        process.communicate()
