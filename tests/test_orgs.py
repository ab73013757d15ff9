"""Schemas as orgs have them: inspect, check, install, deliver, without a correction by hand; two in one database."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from example.crm.models import Account

from hc_signals.capture import orphans
from hc_signals.tables import connected_models, quote
from hc_signals.testing import HerokuConnect
from tests import shapes
from tests.project import Project
from tests.test_inspect import inspect

SCHEMA = "shapes"

ALL_IS_WELL = """
call_command("check", databases=["default"])
call_command("hc_inspect", check=True)
call_command("hc_triggers", "install", verbosity=0)
call_command("hc_triggers", "status", check=True, verbosity=0)
"""


@pytest.fixture
def org(heroku: HerokuConnect) -> Iterator[None]:
    """Tables in many shapes, in a schema of their own."""
    shapes.make(SCHEMA)
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA {quote(SCHEMA)} CASCADE")
    orphans.remove(connected_models(), "default")


@pytest.mark.usefixtures("org")
def test_written_models_work_without_a_correction(tmp_path: Path) -> None:
    project = Project(tmp_path, {"org": inspect(schema=SCHEMA)})
    output = project.run(ALL_IS_WELL + "import tests.deliver_written")
    count = len(shapes.READ_ONLY) + len(shapes.READ_WRITE)
    assert "Every model can be read.\n" in output
    assert output.splitlines()[-1].startswith(f"{count} models, {count} delivered, ")


@pytest.fixture
def schemas(heroku: HerokuConnect) -> Iterator[list[str]]:
    """Names of schemas that the test makes; they go after it."""
    made: list[str] = []
    yield made
    with connection.cursor() as cursor:
        for schema in made:
            cursor.execute(f"DROP SCHEMA IF EXISTS {quote(schema)} CASCADE")
    orphans.remove(connected_models(), "default")


MAKE_TABLES = """
from hc_signals.testing import HerokuConnect
HerokuConnect().create_tables()
"""


@pytest.mark.skipif(not shapes.SHARED_MAPPINGS.is_dir(), reason="no folder shared/data/mappings beside the checkout")
def test_real_mappings_work_without_a_correction(tmp_path: Path, schemas: list[str]) -> None:
    files = sorted(shapes.SHARED_MAPPINGS.rglob("*.json"))
    schemas += [f"mapped_{number}" for number in range(len(files))]
    apps = {schema: inspect(mapping=str(path), schema=schema) for schema, path in zip(schemas, files, strict=True)}
    output = Project(tmp_path, apps).run(MAKE_TABLES + ALL_IS_WELL + "import tests.deliver_written")
    assert "Models and tables agree.\n" in output
    count = sum(code.count("(hc_models.HerokuConnectModel):") for code in apps.values())
    assert output.splitlines()[-1] == f"{count} models, {count} delivered, {2 * count} deliveries"


PLAIN = '''
from django.db import models


class Account(models.Model):
    """Not one of ours, and yet a connected model: by its sf_object_name."""

    sf_object_name = "Account"

    sfid = models.CharField(max_length=18, unique=True)
    name = models.CharField(max_length=255, null=True, db_index=True)

    class Meta:
        managed = False
        db_table = 'plain"."account'
'''


def test_plain_model_is_connected_for_every_command(tmp_path: Path, schemas: list[str]) -> None:
    schemas += ["plain"]
    output = Project(tmp_path, {"crm": PLAIN}).run(
        f"call_command('hc_simulate', create_only=True)\n{MAKE_TABLES}{ALL_IS_WELL}"
        "call_command('hc_mappings', 'export', output='exported.json')\n"
        "print(open('exported.json').read())\n"
        "call_command('hc_mappings', 'check', 'exported.json')\n"
        "import tests.deliver_written\n"
        "call_command('hc_backfill', 'crm.Account', receiver=['tests.deliver_written.compare'])\n"
        "call_command('hc_listen', once=True)\n"
        "call_command('hc_deliveries', 'list')\n"
        "call_command('hc_status', json=True)\n",
        fails=True,  # no worker is running
    )
    assert '"fields": {\n          "Id": {},\n          "name": {}\n        }' in output
    assert "'exported.json' maps all that the models need." in output
    assert "1 models, 1 delivered, 2 deliveries" in output
    assert '"text": "plain.account: installed"' in output
    assert "Traceback" not in output.replace("Traceback", "", 1)  # of the last command, hc_status


SECOND_ORG = """
    import json
    from hc_signals.models import TriggerLog, trigger_log_of
    from hc_signals.testing import HerokuConnect
    from first.models import Contact
    from second.models import Contact as OtherContact

    HerokuConnect(models=[Contact]).insert(Contact, email="a@first.example")
    heroku = HerokuConnect(models=[OtherContact])
    heroku.app_insert(OtherContact, email="b@second.example")
    heroku.send_app_writes(refuse="no such email")
    (failed,) = trigger_log_of("salesforce2")[0].objects.failed()
    print("refused:", failed.get_model()._meta.label, failed.sf_message, TriggerLog.objects.count())
    print("again:", failed.redo().state)
    for schema in ("salesforce1", "salesforce2"):
        call_command("hc_mappings", "export", schema=schema, output=f"{schema}.json")
        call_command("hc_mappings", "check", f"{schema}.json", schema=schema)
        call_command("hc_inspect", check=True, schema=schema)
        print("organisation:", json.load(open(f"{schema}.json"))["connection"]["organization_id"] or "none")
    call_command("hc_mappings", "export")
"""


def test_two_orgs_in_one_database(tmp_path: Path, schemas: list[str]) -> None:
    """The page on two orgs, from inspect to receivers."""
    schemas += ["salesforce1", "salesforce2"]
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA salesforce1; CREATE SCHEMA salesforce2")
        for schema in schemas:
            cursor.execute(
                f"CREATE TABLE {schema}.contact ({shapes.USUAL}, createddate timestamp, email varchar(80) UNIQUE)"
            )
    first, second = (inspect(schema=schema) for schema in schemas)
    assert "hc_schema = 'salesforce2'" in second
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA salesforce1 CASCADE; DROP SCHEMA salesforce2 CASCADE")
    second = second.replace("    hc_schema", "    sf_access = hc_models.READ_WRITE\n    hc_schema")
    settings = "HEROKU_CONNECT_SCHEMA = 'salesforce1'\nHEROKU_CONNECT_ORGANIZATION_ID = '00D1'"
    project = Project(tmp_path, {"first": first, "second": second}, settings)
    output = project.run(MAKE_TABLES + ALL_IS_WELL + "import tests.deliver_written")
    assert "2 models, 2 delivered, 4 deliveries" in output
    output = project.run(SECOND_ORG, fails=True)
    assert "refused: second.Contact no such email 0\n" in output
    assert "again: NEW\n" in output
    assert output.index("organisation: 00D1\n") < output.index("organisation: none\n")
    assert output.count("Models and tables agree.") == 2
    assert "The models belong to 2 connections; choose one by its schema: 'salesforce1', 'salesforce2'." in output
    status = project.run("call_command('hc_status')", fails=True)
    assert "ok    writes      salesforce1._trigger_log: none failed\n" in status
    assert "salesforce2._trigger_log: none failed\n" in status


def test_column_that_a_table_lacks_is_an_error_everywhere(captured: HerokuConnect) -> None:
    captured.drop_column(Account, "industry")
    captured.drop_column(Account, "isdeleted")
    with pytest.raises(SystemCheckError, match=r"hc_signals.E002.*'isdeleted', 'industry'") as error:
        call_command("check", databases=["default"])
    assert "write `is_deleted = None` into the model's class" in str(error.value)
    with pytest.raises(CommandError, match=r"lack columns of their models.*: salesforce.account;"):
        call_command("hc_triggers", "status", check=True, stdout=io.StringIO())
    call_command("hc_triggers", "install", stdout=io.StringIO())
    with pytest.raises(CommandError, match=r"lack columns of their models.*: salesforce.account;"):
        call_command("hc_triggers", "status", check=True, stdout=io.StringIO())
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("hc_status", stdout=out)
    line = "error capture     salesforce.account: the table has no isdeleted, industry, so no change of it"
    assert line in out.getvalue()
    assert "[capture-columns]" in out.getvalue()
