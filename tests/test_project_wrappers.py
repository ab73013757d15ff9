"""The project's ``execute_wrappers`` get the receivers' statements, and none of ours."""

from collections.abc import Callable
from typing import Any

import pghistory
import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test import override_settings
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.models import Delivery
from hc_signals.testing import deliver_changes
from tests.conftest import deliver
from tests.test_isolation import insert_accounts, seen, seen_changes

pytestmark = pytest.mark.usefixtures("captured")

_WAYS: dict[str, Callable[[], Any]] = {
    "worker": deliver,
    "without_a_transaction": lambda: deliver(ATOMIC=False),
    "deliver_changes": deliver_changes,
    "once": lambda: call_command("hc_listen", "--once", verbosity=0),
}


def replay() -> None:
    call_command("hc_replay", "--since", "1h", "--yes", verbosity=0)


@pytest.mark.fault(
    "django-pghistory's `context()` around `manage.py`, which puts a statement in front of each one",
    outcome="delivered; the history of what receivers write has its context",
)
@pytest.mark.parametrize("way", _WAYS)
def test_pghistory_sees_receivers_statements_only(connect: Any, way: str) -> None:
    found: list[Any] = []

    def writes(event: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            seen(event)
            assert Seen.objects.filter(event_id=f"mine {event.event_id}").update(record_key="x") == 1
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_setting('pghistory.context_id', true)")
                found.append(cursor.fetchone()[0])

    connect(signals.record_created, writes, Account)
    insert_accounts(3)
    with pghistory.context(command="hc_listen") as context:
        _WAYS[way]()
    assert len(seen_changes()) == 3
    assert not Delivery.objects.exists()
    if way != "without_a_transaction":  # the setting ends with each statement's own transaction
        assert found == [str(context.id)] * 3


@pytest.mark.parametrize("way", _WAYS)
def test_wrapper_sees_receivers_statements_only(connect: Any, way: str) -> None:
    passed: list[str] = []

    def note(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        passed.append(sql)
        return execute(sql, params, many, context)

    def hooked(event: Any, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 'receiver'")
        transaction.on_commit(lambda: Account.objects.extra(where=["'hook' <> ''"]).exists())

    connect(signals.record_created, hooked, Account)
    insert_accounts(2)
    with connection.execute_wrapper(note):
        _WAYS[way]()
        receivers = [sql for sql in passed if sql == "SELECT 'receiver'"]
        hooks = [sql for sql in passed if "'hook'" in sql]
        assert (len(receivers), len(hooks)) == (2, 2)
        assert len(passed) == 4 + 2, "and the example's own receiver, which writes"
        assert connection.execute_wrappers == [note]
    assert connection.execute_wrappers == []


def test_wrappers_see_a_replays_receivers_only(connect: Any) -> None:
    passed: list[str] = []

    def note(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        passed.append(sql)
        return execute(sql, params, many, context)

    connect(signals.record_created, lambda **kwargs: Account.objects.exists(), Account)
    insert_accounts(2)
    deliver()
    Seen.objects.all().delete()
    with connection.execute_wrapper(note):
        replay()
    assert passed
    assert not [sql for sql in passed if "hc_signals" in sql]


def test_wrapper_that_a_receiver_leaves_ends_with_its_call(connect: Any) -> None:
    connect(signals.record_created, lambda **kwargs: connection.execute_wrappers.append(_refuse), Account)
    insert_accounts(2)
    assert deliver() == 2
    assert not Delivery.objects.exists()


def _refuse(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
    raise AssertionError("no statement passes it")


@override_settings(DEBUG=True)
def test_worker_forgets_what_django_notes_under_debug(connect: Any) -> None:
    lengths: list[int] = []

    def writes(event: Any, **kwargs: Any) -> None:
        seen(event)
        lengths.append(len(connection.queries_log))

    connect(signals.record_created, writes, Account)
    insert_accounts(100)
    deliver(BATCH_SIZE=10)
    assert max(lengths) < 100
