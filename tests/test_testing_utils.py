"""Tools for users' tests, and the database backends that give test databases Heroku Connect's tables."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, router
from django.test import override_settings
from example.crm.models import Account

from hc_signals.db.backends.postgresql.base import DatabaseWrapper
from hc_signals.db.exceptions import WriteNotSupportedError
from hc_signals.testing import HerokuConnect
from hc_signals.testing.utils import heroku_cli, no_heroku_connect_write_restrictions

ROOT = Path(__file__).parent.parent


class OtherRouter:
    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "other"


def test_router_refuses_writes_to_read_only_models(heroku: HerokuConnect) -> None:
    heroku.create(Account)
    account = Account.objects.get()
    writes = [
        account.save,
        account.delete,
        Account.objects.all().delete,
        lambda: Account.objects.update(name="x"),
        lambda: Account.objects.bulk_create([Account(name="x")]),
    ]
    for write in writes:
        with pytest.raises(WriteNotSupportedError, match=r"crm.Account is a read-only model: .* In tests, insert"):
            write()
    assert router.allow_migrate("default", "crm", model_name="account") is False


@pytest.mark.django_db
def test_dumpdata_and_loaddata_keep_records_but_not_the_log(heroku_connect: HerokuConnect, tmp_path: Path) -> None:
    """Django asks the routers about them as about migrations. Positions of another database would skip changes."""
    heroku_connect.create(Account, 3)
    stored = Account.objects.order_by("pk").values_list("pk", "sf_id", "name", "annual_revenue", "last_activity_date")
    before = list(stored)
    file = tmp_path / "dump.json"
    call_command("dumpdata", "crm.account", "hc_signals", output=str(file), verbosity=0)
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert {row["model"] for row in rows} == {"crm.account"}
    with no_heroku_connect_write_restrictions():
        Account.objects.all().delete()
    call_command("loaddata", str(file), verbosity=0)
    assert list(stored.all()) == before


def test_write_restrictions_are_lifted_in_the_block(heroku: HerokuConnect) -> None:
    both = ["hc_signals.db.router.HerokuConnectRouter", "tests.test_testing_utils.OtherRouter"]
    with override_settings(DATABASE_ROUTERS=both):
        with no_heroku_connect_write_restrictions():
            assert router.db_for_write(Account) == "default"
            assert router.db_for_read(Account) == "other"
        with pytest.raises(WriteNotSupportedError):
            router.db_for_write(Account)
    with no_heroku_connect_write_restrictions():
        Account.objects.create(name="made for a test")


@pytest.mark.parametrize("text", ["plain", 'it\'s "quoted" $HOME `x` \\n', "two\nlines"])
def test_heroku_cli_runs_commands(text: str) -> None:
    path = os.environ["PATH"]
    with heroku_cli(stdout=text, stderr="warning", exit_code=3):
        done = subprocess.run(["heroku"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (f"{text}\n", "warning\n", 3)
    assert os.environ["PATH"] == path
    with pytest.raises(ValueError, match="x"), heroku_cli():
        raise ValueError("x")
    assert os.environ["PATH"] == path


@pytest.mark.django_db
def test_backend_sets_the_search_path() -> None:
    settings = {**connection.settings_dict, "OPTIONS": {"options": "-c statement_timeout=12345"}}
    wrapper = DatabaseWrapper(settings, alias="default")
    try:
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT current_setting('search_path'), current_setting('statement_timeout')")
            assert cursor.fetchone() == ("public,salesforce,pg_catalog", "12345ms")
    finally:
        wrapper.close()


SCRIPT = """
import django
django.setup()
from django.db import connection
from django.test.utils import setup_databases, teardown_databases
from example.crm.models import Account, Contact
old = setup_databases(0, False)
try:
    Contact.objects.create(last_name="x")
    with connection.cursor() as cursor:
        cursor.execute("SELECT _hc_lastop FROM contact")
        print("state", cursor.fetchone()[0], Account.objects.count())
finally:
    teardown_databases(old, 0)
"""


def test_backend_creates_tables_in_test_databases() -> None:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}",
        "TEST_DATABASE": "hc_signals_backend",
        "ENGINE": "hc_signals.db.backends.postgresql",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout == "state PENDING 0\n", done.stderr


def test_testing_imports_without_settings() -> None:
    """A script may start the embedded server before its settings exist."""
    code = "from hc_signals.testing import HerokuConnect, embedded"
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
