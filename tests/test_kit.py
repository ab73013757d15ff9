"""The test kit: the code of docs/testing.md works unchanged, and it delivers with the code of the worker."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import psycopg
import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext
from example.crm.models import Account, Contact, Seen

from hc_signals.exceptions import ConfigurationError
from hc_signals.models import Delivery
from hc_signals.receivers import on_change
from hc_signals.signals import gap_detected, record_created, record_updated, records_changed
from hc_signals.testing import HerokuConnect, assert_signal, capture_signals, databases
from hc_signals.testing.databases import TablesInUseError, empty, prepare
from tests import kit_project
from tests.conftest import another
from tests.pages import TEXT
from tests.sfdc.models import Everything, EverythingProxy

pytestmark = pytest.mark.usefixtures("disconnected")

FILE = re.compile(r"^```(?:python|text)\n(# \S+\.(?:py|ini)\b.*?)^```", re.M | re.S)
FILES = {block.split("\n")[0].removeprefix("# ").partition(",")[0]: block for block in FILE.findall(TEXT["testing.md"])}

Deliver = Callable[..., int]

PREPARED = """
from django.db import connection
from django.test import TestCase


class PreparedTests(TestCase):
    def test_capture_exists_before_the_first_test(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(DISTINCT tgrelid) FROM pg_trigger WHERE tgname ~ '^hc_signals_'")
            self.assertEqual(cursor.fetchone()[0], 1)  # the project's connected model
"""

# -- the page ----------------------------------------------------------------------------------------------------------


def page_project(directory: Path, engine: str = "django.db.backends.postgresql") -> Path:
    """Write the page's files into the project of the ten-minute start."""
    more = f"\nDATABASES['default']['ENGINE'] = {engine!r}\n"
    kit_project.make(directory, {"test_prepared.py": PREPARED, "shop/settings.py": more})
    (directory / "crm" / "tests.py").unlink()
    for name, text in FILES.items():
        with (directory / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{text}")
    return directory


def test_page_runs_with_pytest_and_djangos_backend(tmp_path: Path) -> None:
    printed = kit_project.run(page_project(tmp_path), "-m", "pytest", "-q")
    assert re.search(r"\b7 passed in", printed), printed


def test_page_runs_without_migrations_on_our_backend(tmp_path: Path) -> None:
    project = page_project(tmp_path, "hc_signals.db.backends.postgresql")
    printed = kit_project.run(project, "-m", "pytest", "-q", "--nomigrations")
    assert re.search(r"\b7 passed in", printed), printed


def test_page_runs_with_djangos_runner_in_parallel(tmp_path: Path) -> None:
    project = page_project(tmp_path)
    for name in FILES.keys() - {"crm/tests.py", "shop/settings.py"}:  # pytest's own
        (project / name).unlink()
    printed = kit_project.run(project, kit_project.manage_parallel(project), "test", "--parallel", "2")
    assert re.search(r"Ran 3 tests in .*\n\nOK\n", printed), printed


def test_cases_create_tables_with_another_runner(tmp_path: Path) -> None:
    project = page_project(tmp_path)
    printed = kit_project.run(project, "manage.py", "test", "crm", "--testrunner", "django.test.runner.DiscoverRunner")
    assert re.search(r"Ran 2 tests in .*\n\nOK\n", printed), printed


def test_plugin_ignores_projects_without_django() -> None:
    code = "import sys, hc_signals.testing.plugin; sys.exit('django' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


# -- delivery in the open transaction ----------------------------------------------------------------------------------


@pytest.mark.parametrize("conf", [{}, {"BATCH_SIZE": 1}, {"SHARDS": 4}, {"ATOMIC": False}], ids=str)
def test_open_transaction_delivers_once_without_rollbacks(
    heroku_connect: HerokuConnect, deliver_changes: Deliver, conf: dict[str, Any]
) -> None:
    assert deliver_changes(**conf) == 0
    (sfid,) = heroku_connect.insert(Account, name="a")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        heroku_connect.update(Account, sfid, name="never")
        1 / 0  # noqa: B018
    assert deliver_changes(**conf) == 1
    heroku_connect.update(Account, sfid, name="b")
    heroku_connect.create(Contact, 3)
    with capture_signals() as sent:
        assert deliver_changes(**conf) == 4
        assert deliver_changes(**conf) == 0
    updates = [each for each in sent if each.signal == "record_updated"]
    assert [(each.event.previous, each.instance.name) for each in updates] == [({"name": "a"}, "b")]


@pytest.mark.django_db(transaction=True)
def test_delivery_mixes_open_and_committed_changes(heroku_connect: HerokuConnect, deliver_changes: Deliver) -> None:
    (sfid,) = heroku_connect.insert(Account, name="a")
    assert deliver_changes() == 1
    with transaction.atomic():
        heroku_connect.update(Account, sfid, name="b")
        assert deliver_changes() == 1
        heroku_connect.update(Account, sfid, name="c")
    assert deliver_changes() == 1
    assert deliver_changes() == 0


def test_on_commit_hooks_of_a_receiver_run(
    heroku_connect: HerokuConnect, deliver_changes: Deliver, django_capture_on_commit_callbacks: Any
) -> None:
    called: list[str] = []

    @on_change(Account)
    def later(instance: Account, **kwargs: Any) -> None:
        transaction.on_commit(lambda: called.append(instance.name or ""))

    heroku_connect.insert(Account, name="a")
    with django_capture_on_commit_callbacks(execute=True):
        deliver_changes()
    assert called == ["a"]


def test_receiver_error_is_raised_and_nothing_is_lost(heroku_connect: HerokuConnect, deliver_changes: Deliver) -> None:
    broken = True

    @on_change(Account, to={"name": "b"})
    def fails(using: str, **kwargs: Any) -> None:
        if broken:
            raise ValueError("no b, please")

    heroku_connect.insert(Account, name="a")
    heroku_connect.insert(Account, name="b")
    with pytest.raises(ValueError, match="no b, please") as caught:
        deliver_changes()
    assert re.search(
        r"Receiver .*fails raised this on record_created of crm.Account, record 001", *caught.value.__notes__
    )
    assert deliver_changes(raise_errors=False, RETRY_SECONDS=0.001) == 2
    assert Delivery.objects.get().receiver.endswith("fails")
    Delivery.objects.update(next_attempt_at="2020-01-01T00:00Z")
    with pytest.raises(ValueError, match="no b, please"):
        deliver_changes()
    broken = False
    deliver_changes()
    assert not Delivery.objects.exists()
    assert Seen.objects.count() == 2


def test_deliver_changes_takes_settings(heroku_connect: HerokuConnect, deliver_changes: Deliver) -> None:
    with pytest.raises(ConfigurationError, match="unknown key 'SHARD'; did you mean 'SHARDS'"):
        deliver_changes(SHARD=1)


def test_kit_delivers_when_start_at_is_latest(heroku_connect: HerokuConnect, deliver_changes: Deliver) -> None:
    heroku_connect.create(Account)
    assert deliver_changes(START_AT="latest") == 1


def test_cloned_test_database_captures(heroku_connect: HerokuConnect, deliver_changes: Deliver) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE public.hc_signals_control SET database_oid = 1")
    heroku_connect.create(Account, 2)
    with capture_signals() as sent:
        assert deliver_changes() == 2
    assert "gap_detected" not in {each.signal for each in sent}


# -- databases ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_kit_creates_nothing_per_test() -> None:
    prepare()
    with CaptureQueriesContext(connection) as queries:
        prepare()
    assert len(queries) == 1


@pytest.mark.django_db(transaction=True)
def test_dropped_tables_do_not_affect_later_tests(deliver_changes: Deliver) -> None:
    prepare()
    heroku = HerokuConnect()
    heroku.create(Account, 2)
    heroku.recreate_table(Account)
    heroku.drop_table(Contact)
    prepare()
    empty()
    assert not Account.objects.exists()
    assert deliver_changes() == 0
    heroku.create(Contact)
    heroku.create(Account)
    assert deliver_changes() == 2
    empty()


@pytest.mark.django_db(transaction=True)
def test_emptying_gives_way_to_a_session_that_reads(heroku_connect: HerokuConnect) -> None:
    """The reader holds the log; as soon as the emptying holds the records and waits for the log, it wants these."""
    heroku_connect.create(Account)
    counted: list[Any] = []
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (emptying,) = cursor.fetchone()

    def read() -> None:
        while reader.execute("SELECT FROM pg_locks WHERE pid = %s AND NOT granted", [emptying]).rowcount == 0:
            time.sleep(0.001)
        counted.append(reader.execute("SELECT count(*) FROM salesforce.account").fetchone())
        reader.commit()

    with psycopg.connect(**connection.get_connection_params()) as reader:
        reader.execute("LOCK TABLE public.hc_signals_change IN ACCESS SHARE MODE")
        reading = threading.Thread(target=read)
        reading.start()
        try:
            empty()
        finally:
            reading.join()
    assert counted == [(1,)]
    assert not Account.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_emptying_names_a_session_that_never_ends(
    heroku_connect: HerokuConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    heroku_connect.create(Account)
    monkeypatch.setattr(databases, "PATIENCE", 0.2)
    with (
        another("SET application_name = 'a thread'; SELECT FROM public.hc_signals_change"),
        pytest.raises(TablesInUseError, match=r"process \d+ \(a thread, idle in transaction\): .* SELECT FROM public"),
    ):
        empty()
    with transaction.atomic(), connection.cursor() as cursor:
        empty()
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",), "the caller's own transaction waits as it did"
    assert not Account.objects.exists()


# -- assertions --------------------------------------------------------------------------------------------------------


def test_assert_signal_shows_the_signals_sent(heroku_connect: HerokuConnect, deliver_changes: Deliver) -> None:
    (sfid,) = heroku_connect.insert(Account, name="a", industry="Energy")
    deliver_changes()
    with (
        pytest.raises(
            AssertionError,
            match=r"^record_updated of crm.Account with changed={'name'} was not sent. Sent in the block:\n"
            f"  record_updated of crm.Account {sfid}: industry 'Energy' → 'Retail'\n"
            f"  record_changed of crm.Account {sfid}: industry 'Energy' → 'Retail'\n"
            f"  records_changed of crm.Account {sfid}: industry 'Energy' → 'Retail'$",
        ),
        assert_signal(record_updated, Account, changed={"name"}),
    ):
        heroku_connect.update(Account, sfid, industry="Retail")
        deliver_changes()
    for wrong in (
        {"values": {"name": "x"}},
        {"previous": {"name": "x"}},
        {"record_id": "x"},
        {"times": 2},
        {"times": 0},
        {"changed": ["name", "industry"]},
    ):
        with pytest.raises(AssertionError), assert_signal(record_updated, Account, **wrong):  # type: ignore[arg-type]
            heroku_connect.update(Account, sfid, name=f"not {wrong}")
            deliver_changes()
    with pytest.raises(AssertionError, match=r"is deliver_changes\(\) called"), assert_signal(record_created, Account):
        heroku_connect.create(Account)
    deliver_changes()
    with pytest.raises(TypeError, match="expected a set"), assert_signal(record_created, Account, changed="name"):
        pass


def test_assert_signal_finds_the_signal(heroku_connect: HerokuConnect, deliver_changes: Deliver) -> None:
    with (
        assert_signal(record_created, EverythingProxy, times=1),
        assert_signal(record_created, Everything),
        assert_signal(records_changed, Account, times=3),
        assert_signal(record_updated, Account, changed=("name",), values={"name": "b"}, previous={"name": "a"}) as sent,
        assert_signal(record_created, Contact, values={"account": "001A"}),
        assert_signal(record_updated, Contact, times=0),
    ):
        heroku_connect.create(Everything)
        (sfid, _) = heroku_connect.insert(Account, {"name": "a"}, {"name": "other"})
        heroku_connect.update(Account, sfid, name="b")
        heroku_connect.insert(Contact, last_name="x", account_id="001A")
        deliver_changes()
    assert sent[0].instance == Account.objects.get(sf_id=sfid)


def test_assert_signal_raises_the_blocks_error(heroku_connect: HerokuConnect) -> None:
    with pytest.raises(ZeroDivisionError), assert_signal(record_created, Account):
        1 / 0  # noqa: B018


# -- assertions that could not fail ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "sender", "wanted", "error", "message"),
    [
        (record_updated, Account, {"changed": {"nmae"}}, LookupError, "no field 'nmae'; .*Did you mean 'name'"),
        (record_updated, Account, {"values": {"indutsry": "x"}}, LookupError, "Did you mean 'industry'"),
        (record_updated, Account, {"previous": {"anual_revenue": 1}}, LookupError, "Did you mean 'annual_revenue'"),
        (record_updated, Account, {"changed": {"contacts"}}, LookupError, "no field 'contacts'"),
        (record_updated, Account, {"changed": {"system_mod_stamp"}}, LookupError, "never among the changed fields"),
        (record_created, Account, {"changed": {"name"}}, LookupError, "record_created has no 'changed' to compare"),
        (gap_detected, Account, {"values": {"name": "x"}}, LookupError, "gap_detected has no 'values'"),
        (post_save, Account, {}, LookupError, "is not one of hc_signals.signals"),
        (record_updated, Seen, {}, LookupError, "No signal is sent for crm.Seen; expected .*crm.Account"),
        (record_updated, "crm.Account", {}, LookupError, "No signal is sent for 'crm.Account'"),
        (record_updated, Account, {"record_id": None}, TypeError, "record_id is None; expected an sfid"),
        (record_updated, Account, {"values": {"annual_revenue": "much"}}, ValueError, "cannot be 'much'"),
        (record_updated, Account, {"times": -1}, ValueError, "expected a number, 0 or more"),
    ],
)
def test_assert_signal_refuses_impossible_arguments(
    signal: Any, sender: Any, wanted: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message), assert_signal(signal, sender, **({"times": 0} | wanted)):
        raise AssertionError("the block must not begin")
    if sender is Seen:
        with pytest.raises(error, match=message), capture_signals(sender):
            raise AssertionError("the block must not begin")


def test_assert_signal_fails_without_a_delivery(heroku_connect: HerokuConnect) -> None:
    with (
        pytest.raises(AssertionError, match=r"is deliver_changes\(\) called inside the block"),
        assert_signal(record_created, Account, times=0),
    ):
        heroku_connect.create(Account)


def test_assert_signal_compares_as_the_field_does(heroku_connect: HerokuConnect, deliver_changes: Deliver) -> None:
    (owner,) = heroku_connect.create(Account)
    (sfid,) = heroku_connect.insert(Contact, last_name="a", external_id="0" * 31 + "7", account=owner)
    deliver_changes()
    account = Account.objects.get(sf_id=owner)
    with (
        assert_signal(record_updated, Contact, changed={"account_id"}, previous={"account": account}, times=1),
        assert_signal(record_updated, Contact, record_id=sfid[:15], values={"external_id": "0" * 31 + "7"}, times=1),
        assert_signal(record_updated, Contact, values={"pk": ANY, "account": None, "last_name": ANY}, times=1),
    ):
        heroku_connect.update(Contact, sfid, account=None)
        deliver_changes()
