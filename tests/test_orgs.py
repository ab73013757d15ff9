"""Schemas of real orgs: inspect, check, install and deliver without a correction by hand; two orgs in a database."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from example.crm.models import Account

from hc_signals.capture import orphans
from hc_signals.models import Delivery
from hc_signals.postgres.names import quote
from hc_signals.signals import record_created
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from tests import orgs, shapes
from tests.conftest import deliver, server_url
from tests.pages import BLOCKS
from tests.project import Project
from tests.test_inspect import inspect

SCHEMA = "shapes"

CHECK_EVERYTHING = """
call_command("check", databases=["default"])
call_command("hc_inspect", check=True)
call_command("hc_triggers", "install", verbosity=0)
call_command("hc_triggers", "status", check=True, verbosity=0)
"""


EXPECTED = (
    "# Left out: 'a_view': it is a view; Heroku Connect writes to tables.",
    "# Left out: 'no_columns': it has no column 'id' and no 'sfid'; Heroku Connect's tables have both.",
    "class Order(hc_models.HerokuConnectModel):\n    sf_object_name = 'Order'\n",
    "class OrderC(hc_models.HerokuConnectModel):\n    sf_object_name = 'Order__c'\n",
    "orderid = hc_models.Lookup('Order', ",
    "caseid = hc_models.Lookup('Case', ",
    "parentid = hc_models.Lookup('Account', sf_field_name='Parentid'",
    "createdbyid = hc_models.Lookup('User', ",
    "whoid = hc_models.Text(sf_field_name='Whoid', max_length=18)",
    "ownerid = hc_models.Text(sf_field_name='Ownerid', max_length=18)",
    "    sf_access_c = hc_models.Text(sf_field_name='Sf_Access__c', max_length=40)\n",
    "    objects_c = hc_models.Text(sf_field_name='Objects__c', max_length=40)\n",
    "    models_c = hc_models.Text(sf_field_name='Models__c', max_length=40)\n",
    "    half_latitude = hc_models.Number(sf_field_name='Half__latitude__s', ",
    "    other_longitude = hc_models.Number(sf_field_name='Other__longitude__s', ",
    "    loc_c = hc_models.Geolocation(sf_field_name='Loc__c')\n",
    "    email = hc_models.Email(sf_field_name='Email', max_length=128)\n",
    "    number = hc_models.Number(sf_field_name='Number__c', max_digits=18, decimal_places=2, upsert=True)",
    "    # Several columns are unique: 'ext_id__c', 'number__c', 'email__c', 'name', 'accountid'.",
    "    ext = hc_models.ExternalID(sf_field_name='Ext__c')",
    "    ext = hc_models.Text(sf_field_name='Ext__c', max_length=32, upsert=True)\n",
    "    facts = models.JSONField(db_column='facts', null=True, blank=True)",
    "    # Left out: 'words': no field class reads tsvector.\n",
    "    seen = hc_models.DateTime(sf_field_name='Seen__c')\n",
    "    code_of = hc_models.Text(sf_field_name='Code_Of', max_length=12)\n",
    "    amount_of = models.DecimalField(db_column='amount_of', null=True, blank=True, max_digits=9, decimal_places=3)",
    "    # Left out: 'twice': the database fills it, but saving a record would write it.\n",
    "    # Left out: 'counted': the database fills it, but saving a record would write it.\n",
    "    # Left out: '100%': its name has '%', which Django cannot use in a query.\n",
    "    # Left out: 'us$': its name has '$', which Django cannot use in a query.\n",
    "# Left out: 'per%cent': its name has '%', which Django cannot use in a query.\n",
    "    self_c = hc_models.TextAreaLong(sf_field_name='Self__c')\n",
    "    sf_access = hc_models.READ_WRITE\n    sf_without_upsert = True\n",
)
"""Some lines of the models that hc_inspect writes for tests/shapes.py."""


def test_written_models_work_without_a_correction(tmp_path: Path) -> None:
    """tests/shapes.py passes every step: inspect, check, install, simulate, deliver, compare."""
    source = tmp_path / "shapes.sql"
    source.write_text(";\n".join(shapes.statements(SCHEMA)), encoding="utf-8")
    outcome = orgs.try_out([source], server_url(), tmp_path, changes=100)
    for line in EXPECTED:
        assert line in outcome.models, line
    assert outcome.is_well, str(outcome)
    assert outcome.counts["models"] == len(shapes.READ_ONLY) + len(shapes.READ_WRITE)


@pytest.mark.skipif(not orgs.SHARED_MAPPINGS.is_dir(), reason="no folder shared/data/mappings beside the checkout")
def test_real_mappings_work_without_a_correction(tmp_path: Path) -> None:
    """A short `make orgs`: one project, with an app for each exported mapping."""
    files = sorted(orgs.SHARED_MAPPINGS.rglob("*.json"))
    outcome = orgs.try_out(files, server_url(), tmp_path, changes=100)
    assert outcome.is_well, str(outcome)


def test_orgs_command_fails_on_a_difference(tmp_path: Path) -> None:
    source = tmp_path / "mapping.json"
    config = {"access": "read_only", "fields": {"Id": {}, "Name": {}}}
    source.write_text(json.dumps({"version": 1, "mappings": [{"object_name": "Account", "config": config}]}))
    steps: list[str] = []
    outcome = orgs.try_out([source], server_url(), tmp_path, changes=10, show=steps.append)
    assert outcome.is_well, str(outcome)
    assert steps == [f"mapping.json: {step}" for step in orgs.STEPS[:4]]
    assert orgs.line_of(outcome, 13).split()[:9] == ["mapping.json", *"000000", "1", "1"]
    config["upsert_field"] = "Id"  # no field of a model can be the upsert field then
    source.write_text(
        json.dumps(
            {"version": 1, "mappings": [{"object_name": "Account", "config": config | {"access": "read_write"}}]}
        )
    )
    outcome = orgs.try_out([source], server_url(), tmp_path, changes=10)
    assert outcome.codes == {"inspect": 0, "check": 0, "install": 1}
    assert "found upsert field 'Id', expected none" in outcome.printed
    assert not outcome.is_well


@pytest.fixture
def schemas(heroku: HerokuConnect) -> Iterator[list[str]]:
    """Names of schemas that the test creates; they are dropped after it."""
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


PLAIN = '''
from django.db import models


class Account(models.Model):
    """A plain Django model, which is connected because of its sf_object_name."""

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
        f"call_command('hc_simulate', create_only=True)\n{MAKE_TABLES}{CHECK_EVERYTHING}"
        "call_command('hc_mappings', 'export', output='exported.json')\n"
        "import pathlib\nprint(pathlib.Path('exported.json').read_text())\n"
        "call_command('hc_mappings', 'check', 'exported.json')\n"
        "from hc_signals.signals import record_created\n"
        "from tests import play_org\n"
        "outcome = play_org.play(0, 20)\n"
        "print(outcome['delivered'] == outcome['simulated'], outcome['differing'], outcome['failed'])\n"
        "def called(sender, instance, **kwargs): print('called for', sender._meta.label)\n"
        "record_created.connect(called)\n"
        "call_command('hc_backfill', 'crm.Account', receiver=['__main__.called'])\n"
        "call_command('hc_listen', once=True)\n"
        "call_command('hc_deliveries', 'list')\n"
        "call_command('hc_status', json=True)\n",
        fails=True,  # no worker is running
    )
    assert '"fields": {\n          "Id": {},\n          "name": {}\n        }' in output
    assert "'exported.json' maps all that the models need." in output
    assert "True 0 []\n" in output
    assert "called for crm.Account\n" in output
    assert '"text": "plain.account: installed"' in output
    assert "Traceback" not in output.replace("Traceback", "", 1)  # the one of hc_status, the last command


FIRST_ORG = """
from hc_signals.db import models as hc_models


class Account(hc_models.HerokuConnectModel):
    sf_object_name = "Account"

    name = hc_models.Text(sf_field_name="Name", max_length=255)
"""
BOTH_ORGS = """
    from crm.models import Account
    from hc_signals.models import TriggerLog
    from partner import receivers, retry
    from partner.models import Account as Other
    from hc_signals.testing import HerokuConnect

    HerokuConnect().create_tables()
    call_command("check", databases=["default"])
    call_command("hc_triggers", "install", verbosity=0)
    call_command("hc_triggers", "status", check=True, verbosity=0)
    HerokuConnect(models=[Account]).insert(Account, name="a@first.example")
    heroku = HerokuConnect(models=[Other])
    heroku.insert(Other, name="b@second.example")
    call_command("hc_listen", once=True)
    heroku.app_insert(Other, name="c@second.example", number="1")
    heroku.send_app_writes(refuse="no such email")
    print("in the first log:", TriggerLog.objects.count())
    retry.retry()
    print("to be sent:", retry.TriggerLog.objects.filter(state="NEW").count())
    for schema in ("salesforce", "salesforce2"):
        call_command("hc_mappings", "export", schema=schema, output=f"{schema}.json")
        call_command("hc_mappings", "check", f"{schema}.json", schema=schema)
        call_command("hc_inspect", check=True, schema=schema)
        print("organisation:", json.load(open(f"{schema}.json"))["connection"]["organization_id"] or "none")
    call_command("hc_mappings", "export")
"""


def test_two_orgs_in_one_database(tmp_path: Path, schemas: list[str]) -> None:
    """Follow the page two-orgs.md: its files, in a project with the models of a first org."""
    schemas += ["salesforce2"]
    files = {
        block.code.split("\n", 1)[0].removeprefix("# "): block.code for block in BLOCKS if block.page == "two-orgs.md"
    }
    settings = "HEROKU_CONNECT_SCHEMA = 'salesforce'\nHEROKU_CONNECT_ORGANIZATION_ID = '00D1'"
    project = Project(tmp_path, {"crm": FIRST_ORG, "partner": files["partner/models.py"]}, settings)
    for name in ("partner/receivers.py", "partner/retry.py"):
        (tmp_path / name).write_text(files[name], encoding="utf-8")
    output = project.run("import json\n" + dedent(BOTH_ORGS), fails=True)
    assert "crm.Account Account a@first.example\npartner.Account Account b@second.example\n" in output
    assert "in the first log: 0\npartner.Account no such email\nto be sent: 1\n" in output
    assert output.index("organisation: 00D1\n") < output.index("organisation: none\n")
    assert output.count("Models and tables agree.") == 2
    assert "The models belong to 2 connections; choose one by its schema: 'salesforce', 'salesforce2'." in output
    status = project.run("call_command('hc_status')", fails=True)
    assert "ok    writes      salesforce._trigger_log: none failed\n" in status
    assert "ok    writes      salesforce2._trigger_log: none failed\n" in status


def test_inspect_writes_models_of_another_schema(heroku: HerokuConnect, schemas: list[str]) -> None:
    schemas += ["salesforce2"]
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA salesforce2; CREATE TABLE salesforce2.contact ({shapes.USUAL})")
    assert "    hc_schema = 'salesforce2'\n" in inspect(schema="salesforce2")
    assert "hc_schema" not in inspect(schema="salesforce")


@pytest.mark.fault(
    "a table lacks a column of its model (unmapped, or never there)",
    outcome="no change of it can be delivered: each is kept, and comes once model and table agree; "
    "`check --database`, `hc_triggers status --check` and `hc_status` fail and name it",
)
def test_missing_column_is_an_error_everywhere(captured: HerokuConnect, connect: Any) -> None:
    names: list[str] = []
    connect(record_created, lambda instance, **kwargs: names.append(instance.name), Account)
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
    captured.insert(Account, name="Acme")
    deliver()
    assert names == []
    assert Delivery.objects.count() > 0
    assert all("isdeleted" in each.error for each in Delivery.objects.all())
    captured.add_column(Account, "industry")
    captured.add_column(Account, "isdeleted", "boolean")
    call_command("hc_deliveries", "retry", all=True)
    deliver()
    assert names == ["Acme"]
