"""Heroku Connect's configuration: its exact shape, every difference, unusable files, the commands."""

import copy
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.test.utils import isolate_apps
from example.crm.models import Account, Contact

from hc_signals.db import models as hc_models
from hc_signals.exceptions import HCSignalsError, MappingError
from hc_signals.heroku.mappings import Difference, compare, get_mapping, load
from hc_signals.tables import connected_models
from tests.orgs import SHARED_MAPPINGS
from tests.sfdc.models import User

EXPORTS = SHARED_MAPPINGS
NOON = datetime.datetime(2024, 5, 6, 12, tzinfo=datetime.UTC)


def exported(*models: Any) -> dict[str, Any]:
    """Return the mapping that Heroku Connect would export for these models, as read from JSON."""
    return json.loads(json.dumps({"version": 1, "mappings": [model.get_heroku_connect_mapping() for model in models]}))


def config_of(export: dict[str, Any], object_name: str) -> dict[str, Any]:
    (config,) = [entry["config"] for entry in export["mappings"] if entry["object_name"] == object_name]
    return config


def lines(export: dict[str, Any], *models: Any) -> list[str]:
    return [str(difference) for difference in compare(export, models)]


def test_mapping_has_the_exported_shape() -> None:
    mapping = get_mapping(exported_at=NOON, app_name="my-app")
    assert list(mapping) == ["version", "connection", "mappings"]
    assert mapping["version"] == 1
    assert mapping["connection"] == {
        "organization_id": "",
        "app_name": "my-app",
        "exported_at": "2024-05-06T12:00:00+00:00",
    }
    assert mapping["mappings"][0] == {
        "object_name": "Account",
        "config": {
            "access": "read_only",
            "sf_notify_enabled": False,
            "sf_polling_seconds": 600,
            "sf_max_daily_api_calls": 30000,
            "fields": {
                "Id": {},
                "SystemModstamp": {},
                "IsDeleted": {},
                "Name": {},
                "Industry": {},
                "AnnualRevenue": {},
                "NumberOfEmployees": {},
                "LastActivityDate": {},
            },
            "indexes": {"Id": {"unique": True}, "SystemModstamp": {"unique": False}},
        },
    }
    assert config_of(mapping, "Contact")["upsert_field"] == "External_ID__c"
    assert [entry["object_name"] for entry in mapping["mappings"]] == [m.sf_object_name for m in connected_models()]


def test_settings_override_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEROKU_APP_NAME", raising=False)
    monkeypatch.delenv("HEROKU_CONNECT_ORGANIZATION_ID", raising=False)
    connection = get_mapping()["connection"]
    assert (connection["organization_id"], connection["app_name"]) == ("", "")
    monkeypatch.setenv("HEROKU_APP_NAME", "of-the-dyno")
    monkeypatch.setenv("HEROKU_CONNECT_ORGANIZATION_ID", "00D1")
    connection = get_mapping()["connection"]
    assert (connection["organization_id"], connection["app_name"]) == ("00D1", "of-the-dyno")
    with override_settings(HEROKU_CONNECT_APP_NAME="set", HEROKU_CONNECT_ORGANIZATION_ID="00D2"):
        connection = get_mapping()["connection"]
    assert (connection["organization_id"], connection["app_name"]) == ("00D2", "set")


def test_models_match_their_own_export() -> None:
    assert compare(get_mapping(), connected_models()) == []


def test_names_compare_without_case() -> None:
    export = json.loads(json.dumps(exported(Contact)).replace("External_ID__c", "EXTERNAL_id__C"))
    export["mappings"][0]["object_name"] = "CONTACT"
    assert compare(export, [Contact]) == []


def test_unmapped_model_fails_and_unmodelled_object_informs() -> None:
    (difference,) = compare(exported(Account), [])
    assert not difference.is_failure
    assert str(difference).startswith("information: no model (Account): found a mapping")
    assert compare(exported(), [Account]) == [
        Difference(object_name="Account", model="crm.Account", found="no mapping", expected="one")
    ]


def test_unmapped_unique_field_is_one_difference() -> None:
    export = exported(Contact)
    config = config_of(export, "Contact")
    del config["fields"]["External_ID__c"], config["indexes"]["External_ID__c"]
    assert lines(export, Contact) == [
        "crm.Contact (Contact), field External_ID__c: found no such field, expected it to be mapped"
    ]


@pytest.mark.parametrize(
    ("model", "found", "expected"), [(Contact, "read_only", "read_write"), (Account, "read_write", "read_only")]
)
def test_different_access_is_a_difference(model: Any, found: str, expected: str) -> None:
    export = exported(model)
    name = model.sf_object_name
    config_of(export, name)["access"] = found
    assert lines(export, model) == [f"crm.{name} ({name}): found access {found!r}, expected {expected!r}"]
    assert all(difference.is_failure for difference in compare(export, [model]))
    del config_of(export, name)["access"]
    assert lines(export, model) == [f"crm.{name} ({name}): found access None, expected {expected!r}"]


@pytest.mark.parametrize(
    ("indexes", "found"),
    [
        ({"Id": {"unique": True}}, "no index"),
        ({"External_ID__c": {"unique": False}}, "an index that is not unique"),
        ({"External_ID__c": None}, "an index that is not unique"),
        (["External_ID__c"], "an index that is not unique"),
        (None, "no index"),
    ],
)
def test_unique_field_needs_a_unique_index(indexes: Any, found: str) -> None:
    export = exported(Contact)
    config_of(export, "Contact")["indexes"] = indexes
    assert lines(export, Contact) == [
        f"crm.Contact (Contact), field External_ID__c: found {found}, expected a unique index"
    ]


def test_export_without_indexes_has_a_unique_id() -> None:
    export = exported(Account)
    del config_of(export, "Account")["indexes"]
    assert compare(export, [Account]) == []
    config_of(export, "Account")["indexes"] = {"Id": {"unique": False}}
    assert len(compare(export, [Account])) == 1


def test_different_upsert_field_is_a_difference() -> None:
    export = exported(Contact)
    config_of(export, "Contact")["upsert_field"] = "Email"
    assert lines(export, Contact) == [
        "crm.Contact (Contact), field External_ID__c: found upsert field 'Email', expected 'External_ID__c'"
    ]
    del config_of(export, "Contact")["upsert_field"]
    assert lines(export, Contact) == [
        "crm.Contact (Contact), field External_ID__c: found no upsert field, expected 'External_ID__c'"
    ]


def test_upsert_field_of_a_read_only_mapping_informs() -> None:
    export = exported(Account)
    config_of(export, "Account")["upsert_field"] = "Name"
    (difference,) = compare(export, [Account])
    assert not difference.is_failure
    assert str(difference).endswith("found upsert field 'Name', expected none")


def test_mapping_of_user_has_no_is_deleted() -> None:
    export = exported(User)
    assert "IsDeleted" not in config_of(export, "User")["fields"]
    assert compare(export, [User]) == []


def test_additional_mapped_fields_are_no_difference() -> None:
    export = exported(Account) | {"extra": 1}
    config = config_of(export, "Account")
    config["fields"]["Extra__c"] = {}
    config |= {"revision": 3, "applied_at": "2024-05-06T12:00:00Z"}
    assert compare(export, [Account]) == []


@pytest.mark.parametrize("make", [list, lambda fields: [{"name": name} for name in fields]])
def test_mapped_fields_may_be_a_list(make: Any) -> None:
    export = exported(Account)
    config = config_of(export, "Account")
    config["fields"] = make(config["fields"])
    assert compare(export, [Account]) == []
    config["fields"].pop()
    assert len(compare(export, [Account])) == 1


@pytest.mark.parametrize("fields", [None, 3, "Name", [None, 3, {}]])
def test_malformed_fields_are_differences(fields: Any) -> None:
    export = exported(Account)
    config_of(export, "Account")["fields"] = fields
    assert len(compare(export, [Account])) == len(exported(Account)["mappings"][0]["config"]["fields"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON: "),
        ("", "is not JSON: "),
        ("\ud83d".encode("utf-16", "surrogatepass"), "is not JSON: "),
        ("[" * 100_000, "is not JSON: "),
        ("[]", "found list, expected an object"),
        ('{"mappings": []}', "found version None, expected 1."),
        ('{"version": 2, "mappings": []}', "found version 2, expected 1."),
        ('{"version": "1", "mappings": []}', "found version '1', expected 1."),
        ('{"version": true, "mappings": []}', "found version True, expected 1."),
        ('{"version": 1}', "found NoneType as 'mappings', expected a list"),
        ('{"version": 1, "mappings": {}}', "found dict as 'mappings', expected a list"),
        ('{"version": 1, "mappings": [{}]}', "mapping 1 of 1 has no 'object_name'"),
        ('{"version": 1, "mappings": [{"object_name": "Lead"}]}', "the mapping of Lead has no 'config'"),
    ],
)
def test_check_refuses_unusable_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "export.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(MappingError) as error:
        load(path)
    assert str(error.value).startswith(repr(str(path)))
    assert message in str(error.value)
    with pytest.raises(CommandError, match=r"export\.json"):
        call_command("hc_mappings", "check", str(path))


def test_check_refuses_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(HCSignalsError, match=r"There is no file '.*none.json'\."):
        load(tmp_path / "none.json")
    with pytest.raises(MappingError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_check_reads_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "bom.json").write_text(json.dumps(exported(Account)), encoding="utf-8-sig")
    assert load(tmp_path / "bom.json") == exported(Account)


def test_export_prints_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("hc_mappings", "export")
    print("still open")
    document, _, rest = capsys.readouterr().out.rpartition("}\n")
    assert rest == "still open\n"
    assert json.loads(document + "}")["mappings"] == get_mapping()["mappings"]


def test_exported_file_passes_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "export.json"
    call_command("hc_mappings", "export", "-o", str(path))
    assert capsys.readouterr().out == ""
    call_command("hc_mappings", "check", str(path))
    assert capsys.readouterr().out == f"{str(path)!r} maps all that the models need.\n"
    with pytest.raises(CommandError, match="cannot be written: Is a directory"):
        call_command("hc_mappings", "export", "--output", str(tmp_path))


def test_check_prints_differences_and_counts_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = get_mapping()
    del config_of(export, "Account")["fields"]["Name"]
    config_of(export, "Contact")["access"] = "read_only"
    export["mappings"].append({"object_name": "Lead", "config": {}})
    path = tmp_path / "export.json"
    path.write_text(json.dumps(export), encoding="utf-8")
    with pytest.raises(CommandError, match=r"^2 differences between the models and ") as error:
        call_command("hc_mappings", "check", str(path))
    assert error.value.returncode == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed] == [
        "crm.Account (Account), field Name",
        "crm.Contact (Contact)",
        "information",
    ]


@pytest.mark.parametrize("arguments", [[], ["check"], ["export", "x"], ["import", "--wait-interval", "-1"], ["list"]])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        call_command("hc_mappings", *arguments)


def models_of(export: dict[str, Any]) -> list[Any]:
    """Models that declare what the export maps: every field a text."""
    meta = type("Meta", (), {"app_label": "sfdc"})
    made = []
    for entry in export["mappings"]:
        config = entry["config"]
        fields = {
            f"f_{name.lower()}".replace("__", "_"): hc_models.Text(
                sf_field_name=name, max_length=255, upsert=name == config.get("upsert_field")
            )
            for name in config["fields"].keys() - {"Id", "IsDeleted", "SystemModstamp"}
        }
        body = {"__module__": __name__, "Meta": meta, "sf_object_name": entry["object_name"], **fields}
        body["sf_access"] = config["access"]
        made.append(type(f"Export{entry['object_name'].replace('__', '')}", (hc_models.HerokuConnectModel,), body))
    return made


@pytest.mark.skipif(not EXPORTS.is_dir(), reason=f"no exports in {EXPORTS}")
def test_real_exports_are_read() -> None:
    removed = 0
    for path in sorted(EXPORTS.glob("*/*.json")):
        export = load(path)
        with isolate_apps("tests.sfdc"):
            models = models_of(export)
        assert compare(export, models) == [], path
        for number, entry in enumerate(export["mappings"]):
            for name in entry["config"]["fields"]:
                less = copy.deepcopy(export)
                del less["mappings"][number]["config"]["fields"][name]
                (difference,) = compare(less, models)
                assert (difference.object_name, difference.field) == (entry["object_name"], name), path
                assert difference.is_failure
                removed += 1
    assert removed > 300
