"""Waiting for the sfid of a new row: what a script learns, and that it is woken."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction
from example.crm.models import Contact

from hc_signals.models import Delivery
from hc_signals.postgres.locks import BELL
from hc_signals.postgres.query import row
from hc_signals.testing import HerokuConnect
from hc_signals.writes import Link, LinkState, NotLinkedError, await_linked, linking, wait_linked
from tests.conftest import IS_OURS, as_heroku_connect, as_the_app, running_crew

pytestmark = pytest.mark.django_db(transaction=True)

_ASLEEP = f"""
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND granted
               AND mode = 'ExclusiveLock' AND {IS_OURS})
"""


@pytest.fixture
def contact(captured: HerokuConnect) -> Contact:
    """Return a new contact of the app."""
    return Contact.objects.create(last_name="Ada")


@pytest.fixture
def only_bell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at a row only if the doorbell rings."""
    monkeypatch.setattr(linking, "QUIET_SECONDS", 3600.0)


def sleep_begins() -> None:
    deadline = time.monotonic() + 60
    while not row("default", _ASLEEP, BELL)[0]:
        assert time.monotonic() < deadline, "no process sleeps at the doorbell"
        time.sleep(0.01)


@contextmanager
def waiting(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """Do the work in another thread, which sleeps when the block begins; the list has the result after the block."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    sleep_begins()
    yield results
    thread.join(timeout=60)
    assert not thread.is_alive(), "the waiting thread was not woken"


@pytest.mark.usefixtures("only_bell")
@pytest.mark.parametrize("is_worker_running", [False, True])
def test_wait_ends_when_salesforce_gives_the_sfid(
    captured: HerokuConnect, contact: Contact, is_worker_running: bool
) -> None:
    with waiting(lambda: wait_linked(contact)) as results:
        if is_worker_running:
            with running_crew():
                sleep_begins()
                captured.send_app_writes()
        else:
            captured.send_app_writes()
    (sfid,) = captured.sfids(Contact)
    assert results == [sfid]
    assert contact.sf_id == sfid
    assert wait_linked(contact, timeout=0) == sfid


@pytest.mark.usefixtures("only_bell")
def test_wait_ends_when_salesforce_refuses(captured: HerokuConnect, contact: Contact) -> None:
    with waiting(lambda: wait_linked(contact)) as results:
        captured.send_app_writes(refuse="REQUIRED_FIELD_MISSING")
    (error,) = results
    assert isinstance(error, NotLinkedError)
    assert error.link.state is LinkState.FAILED
    assert error.link.message == '{"msg": "REQUIRED_FIELD_MISSING"}'
    assert str(error) == f'crm.Contact {contact.pk} has no sfid: failed. {{"msg": "REQUIRED_FIELD_MISSING"}}'


def test_second_refusal_is_read_from_the_trigger_log(captured: HerokuConnect, contact: Contact) -> None:
    captured.send_app_writes(refuse="NO")
    as_heroku_connect("UPDATE salesforce.contact SET _hc_lastop = 'FAILED'")
    assert row("default", "SELECT _hc_lastop FROM salesforce.contact") == ("SYNCED",)
    link = Link(contact)
    assert (link.read(), link.message) == (LinkState.FAILED, "NO")


def test_deleted_row_is_superseded(contact: Contact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "QUIET_SECONDS", 0.05)
    with waiting(Link(contact).wait) as results:
        as_the_app("DELETE FROM salesforce.contact")
    assert results == [LinkState.SUPERSEDED]


def test_ignored_row_is_superseded(captured: HerokuConnect, contact: Contact) -> None:
    captured.send_app_writes(refuse="NO")
    as_the_app("UPDATE salesforce._trigger_log SET state = 'IGNORED'")
    as_heroku_connect("UPDATE salesforce.contact SET _hc_lastop = 'FAILED'")
    link = Link(contact)
    assert link.read() is LinkState.SUPERSEDED
    assert link.message == "The last entry of the row in the trigger log is IGNORED."


def test_wait_ends_in_time(contact: Contact) -> None:
    with pytest.raises(TimeoutError, match=rf"^crm.Contact {contact.pk} has no sfid after 0.1 s: "):
        wait_linked(contact, timeout=0.1)


def test_wait_in_a_transaction_is_refused(captured: HerokuConnect, contact: Contact) -> None:
    with transaction.atomic():
        with pytest.raises(transaction.TransactionManagementError, match="sees the row after the commit"):
            wait_linked(contact)
        captured.send_app_writes()
        assert wait_linked(contact) == contact.sf_id


def test_only_saved_instances_of_connected_models_can_be_linked() -> None:
    with pytest.raises(ValueError, match="not saved"):
        Link(Contact(last_name="Ada"))
    with pytest.raises(TypeError, match="no connected model"):
        Link(Delivery(pk=1))


@pytest.mark.usefixtures("only_bell")
def test_tasks_wait_too(captured: HerokuConnect, contact: Contact) -> None:
    with waiting(lambda: asyncio.run(await_linked(contact))) as results:
        captured.send_app_writes()
    assert results == captured.sfids(Contact)


@pytest.mark.usefixtures("only_bell")
def test_cancelled_task_leaves_no_sleeper(contact: Contact) -> None:
    async def cancelled() -> str:
        task = asyncio.create_task(await_linked(contact, timeout=None))
        await asyncio.to_thread(sleep_begins_in_thread)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return "cancelled"

    def sleep_begins_in_thread() -> None:
        try:
            sleep_begins()
        finally:
            connection.close()

    assert asyncio.run(cancelled()) == "cancelled"
    deadline = time.monotonic() + 60
    while row("default", _ASLEEP, BELL)[0]:
        assert time.monotonic() < deadline, "the thread of the task still sleeps"
        time.sleep(0.01)
