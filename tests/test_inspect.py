"""hc_inspect writes working models from tables and from exported mappings, and compares models with tables."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, models
from django.test.utils import isolate_apps
from example.crm.models import Account

from hc_signals.db import models as hc_models
from hc_signals.heroku.inspection import class_name, differences
from hc_signals.heroku.mappings import compare, load
from hc_signals.testing import HerokuConnect
from tests import shapes
from tests.conftest import as_heroku_connect
from tests.orgs import SHARED_MAPPINGS
from tests.sfdc.models import Everything

MAPPINGS = SHARED_MAPPINGS


def inspect(*arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("hc_inspect", *arguments, stdout=out, **options)
    return out.getvalue()


def classes(code: str) -> dict[str, Any]:
    """Run the code as a module of the test app."""
    namespace: dict[str, Any] = {"__name__": "tests.sfdc.written"}
    exec(compile(code, "written.py", "exec"), namespace)
    base = hc_models.HerokuConnectModel
    return {n: c for n, c in namespace.items() if isinstance(c, type) and issubclass(c, base) and c is not base}


@isolate_apps("tests.sfdc", "example.crm")
def test_written_models_match_their_tables(heroku: HerokuConnect) -> None:
    heroku.create(Everything, 3)
    written = classes(inspect())
    assert {"Account", "Contact", "Everything", "MyObject", "User", "Wide", "Dog"} <= written.keys()
    for model in written.values():
        assert differences(model, "default") == []
    everything = written["Everything"]
    assert everything.sf_access == hc_models.READ_WRITE
    assert written["Account"].sf_access == hc_models.READ_ONLY
    assert everything.objects.count() == 3
    kinds = {field.name: type(field).__name__ for field in everything._meta.fields}
    assert kinds["external_id"] == "ExternalID"
    assert kinds["email"] == "Email"
    assert kinds["phone"] == "Phone"
    assert kinds["multi_picklist"] == "MultiPicklist"
    assert kinds["date_time"] == "DateTime"
    assert hasattr(everything, "location")
    contact = written["Contact"]
    assert contact._meta.get_field("accountid").related_model is written["Account"]


def test_inspect_writes_one_table_with_its_guesses(heroku: HerokuConnect) -> None:
    code = inspect("account")
    assert "class Account(hc_models.HerokuConnectModel):" in code
    assert "class Contact" not in code
    assert "digits are not in the table: adjust" in code


@pytest.mark.skipif(not MAPPINGS.is_dir(), reason=f"no exported mappings in {MAPPINGS}")
def test_models_of_real_mappings_pass_checks() -> None:
    files = sorted(MAPPINGS.rglob("*.json"))
    assert len(files) >= 6
    for path in files:
        with isolate_apps("tests.sfdc"):
            written = classes(inspect(mapping=str(path)))
        assert written
        for model in written.values():
            assert model.check() == [], path


def test_check_prints_each_difference(heroku: HerokuConnect) -> None:
    assert inspect(check=True) == "Models and tables agree.\n"
    heroku.drop_column(Account, "industry")
    as_heroku_connect("ALTER TABLE salesforce.account ALTER name TYPE text")
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE salesforce.wide__c")
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"2 difference\(s\)"):
        call_command("hc_inspect", check=True, stdout=out)
    lines = out.getvalue().splitlines()
    assert "crm.Account.industry: the table has no column 'industry'; map the field or remove it." in lines
    assert "information: crm.Account.name: the column 'name' is text; the model expects varchar(255)." in lines
    assert any(line.startswith('sfdc.Wide: the table "salesforce"."wide__c" does not exist') for line in lines)


@isolate_apps("tests.sfdc")
def test_check_fails_if_a_column_cannot_be_read(heroku: HerokuConnect) -> None:
    class Contact(hc_models.HerokuConnectModel):
        sf_object_name = "Contact"
        shorter = hc_models.Text(sf_field_name="Email", max_length=10)
        anything = hc_models.AnyType(sf_field_name="CreatedDate")
        kind = hc_models.Integer(sf_field_name="Amount__c")
        number = hc_models.Number(sf_field_name="Last_Name__c", max_digits=5, decimal_places=1)
        time = models.DateTimeField(db_column="systemmodstamp_2")
        is_deleted = None

        class Meta:
            app_label = "sfdc"
            db_table = 'salesforce"."other'

    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE salesforce.other (id serial, sfid varchar(18), systemmodstamp timestamp, _hc_err text, "
            "_hc_lastop varchar(40), email varchar(80), createddate timestamp, amount__c numeric(9,2), "
            "last_name__c varchar(80), systemmodstamp_2 timestamp)"
        )
    found = differences(Contact, "default")
    assert [str(each).partition(": the column")[0] for each in found] == [
        "information: sfdc.Contact._hc_lastop",
        "information: sfdc.Contact.shorter",
        "information: sfdc.Contact.anything",
        "information: sfdc.Contact.kind",
        "sfdc.Contact.number",
        "sfdc.Contact.time",
    ]


def test_information_does_not_fail_the_check(heroku: HerokuConnect) -> None:
    as_heroku_connect("ALTER TABLE salesforce.account ALTER name TYPE text")
    assert inspect(check=True) == (
        "information: crm.Account.name: the column 'name' is text; the model expects varchar(255).\n"
        "Every model can be read.\n"
    )
    with pytest.raises(
        CommandError, match=r"No connected model has its table in the schema 'x'; schemas: 'salesforce'"
    ):
        inspect(check=True, schema="x")


def test_mapping_names_compare_without_case(tmp_path: Path) -> None:
    config = {
        "access": "read_only",
        "fields": {"Id": {}, "ISDELETED": {}, "Name": {}, "name": {}, "SystemModStamp": {}},
    }
    more = {"access": "read_write", "fields": [{"name": "ext__C"}, "AccountID"], "upsert_field": "EXT__c"}
    entries = [{"object_name": "Account", "config": config}, {"object_name": "ACCOUNT", "config": more}]
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps({"version": 1, "mappings": entries}))
    code = inspect(mapping=str(path))
    assert code.count("class ") == 1
    assert code.count("Name'") == 1
    assert "is_deleted" not in code
    assert "    sf_access = hc_models.READ_WRITE\n" in code
    assert "    ext = hc_models.AnyType(sf_field_name='ext__C', upsert=True)" in code
    with isolate_apps("tests.sfdc"):
        assert classes(code)["Account"].check() == []


def test_single_object_keeps_its_class_name(heroku: HerokuConnect) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE salesforce.account__c ({shapes.USUAL}, accountid varchar(18))")
    assert "class AccountC(" in inspect()
    code = inspect("Account__C")
    assert "class AccountC(" in code
    assert "Lookup" not in code, "no relation to a model that is missing in the file"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mapping": "/nowhere.json"}, "cannot be read: No such file"),
        ({"mapping": __file__}, "is no exported mapping"),
        ({"schema": "nope"}, "There are no mapped tables in the schema 'nope'"),
        ({"objects": ["nope"]}, "There is no 'nope' in the schema 'salesforce'; expected some of: account"),
        ({"database": "nope"}, "'nope' doesn't exist"),
    ],
)
def test_wrong_arguments_are_one_error(heroku: HerokuConnect, options: dict[str, Any], message: str) -> None:
    objects = options.pop("objects", [])
    with pytest.raises(CommandError, match=message):
        inspect(*objects, **options)


def test_class_names_follow_object_names() -> None:
    assert class_name("My_Object__c") == "MyObject"
    assert class_name("account") == "Account"
    assert class_name("SACAP__CAP_File__c") == "SACAPCAPFile"
    assert class_name("2nd__c") == "Object2nd"


def test_written_models_match_their_mapping(tmp_path: Path) -> None:
    """One mapping is read-write without a unique identifier, with no unique field, with one, or with two."""
    fields = {"Id": {}, "Name": {}, "CreatedDate": {}, "CreatedById": {}, "CurrencyIsoCode": {}, "Code__c": {}}
    two: dict[str, Any] = {"Name": {"unique": True}, "Code__c": {"unique": True}}
    indexes: list[dict[str, Any]] = [{}, {"Name": {"unique": True}}, two]
    config = {"access": "read_write", "fields": fields}
    entries = [
        {"object_name": f"Object{number}__c", "config": config | {"indexes": each}}
        for number, each in enumerate(indexes)
    ]
    entries.append({"object_name": "Order", "config": config | {"indexes": two, "upsert_field": "Code__c"}})
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps({"version": 1, "mappings": entries}))
    code = inspect(mapping=str(path))
    assert code.count("    created_date = hc_models.DateTime(sf_field_name='CreatedDate')\n") == 4
    assert code.count("    created_by = hc_models.") == 0, "no model of a user"
    assert code.count("    created_by_id = hc_models.Text(sf_field_name='CreatedById', max_length=18)") == 4
    assert code.count("    # The mapping has no unique identifier: ") == 3
    with isolate_apps("tests.sfdc"):
        written = classes(code)
        assert [model.check() for model in written.values()] == [[]] * 4
        assert [each for each in compare(load(path), written.values()) if each.is_failure] == []
