"""System checks: ids, messages and hints to the letter, so that a project's SILENCED_SYSTEM_CHECKS goes on working."""

from typing import Any

import pytest
from django.core import checks
from django.db import models
from django.test.utils import isolate_apps

from hc_signals.checks import relations as our_checks
from hc_signals.db import models as hc_models


def of_model(model: Any) -> list[tuple[str | None, str, Any]]:
    return [(m.id, m.msg, m.hint) for m in model.check() if (m.id or "").startswith("heroku_connect")]


def model(name: str, bases: tuple[type, ...] = (hc_models.HerokuConnectModel,), **body: Any) -> Any:
    meta = type("Meta", (), {"app_label": "sfdc"})
    return type(name, bases, {"__module__": __name__, "Meta": meta, **body})


@isolate_apps("tests.sfdc")
def test_checks_of_one_model() -> None:
    text = hc_models.Text
    external_id = hc_models.ExternalID
    assert of_model(model("A")) == [("heroku_connect.E001", 'sfdc.A must define a "sf_object_name".', None)]
    assert of_model(model("B", sf_object_name="B", sf_access="write")) == [
        ("heroku_connect.E002", "sfdc.B.sf_access must be one of ['read_only', 'read_write']", "write")
    ]
    double = model(
        "C", sf_object_name="C", x=text(sf_field_name="X__c", max_length=9), y=text(sf_field_name="X__c", max_length=9)
    )
    assert ("heroku_connect.E003", "sfdc.C has duplicate Salesforce field names.", ["X__c"]) in of_model(double)
    two = model(
        "D",
        sf_object_name="D",
        sf_access=hc_models.READ_WRITE,
        x=external_id(sf_field_name="X__c"),
        y=external_id(sf_field_name="Y__c"),
    )
    ((check_id, message, hint),) = of_model(two)
    assert (check_id, message) == ("heroku_connect.E004", "sfdc.D can only have a single upsert field.")
    assert hint == [two._meta.get_field("x"), two._meta.get_field("y")]
    assert of_model(model("E", sf_object_name="E", sf_access=hc_models.READ_WRITE)) == [
        ("heroku_connect.E007", "sfdc.E does not have an upsert field.", "Read-write models need an upsert field.")
    ]
    assert of_model(model("F", sf_object_name="F", sf_access=hc_models.READ_WRITE, sf_without_upsert=True)) == []


@isolate_apps("tests.sfdc")
def test_checks_of_relations(monkeypatch: pytest.MonkeyPatch) -> None:
    target = model("Target", sf_object_name="Target", key=hc_models.ExternalID(sf_field_name="Key__c"))
    other = model(
        "Other",
        (models.Model,),
        bad=models.ForeignKey(target, models.CASCADE, related_name="+"),
        good=models.ForeignKey(target, models.CASCADE, to_field="key", db_constraint=False, related_name="+"),
        many=models.ManyToManyField(target),
    )
    monkeypatch.setattr(our_checks, "apps", other._meta.apps)
    found = {(m.id, m.msg, m.hint) for m in our_checks.check_relations(None)}
    field = "sfdc.Other.bad"
    constraint = "have database constraints to a Heroku Connect model."
    to_field, db_constraint = "Specify the 'to_field' argument.", "Set 'db_constraint' to False."
    assert {
        ("heroku_connect.E005", f"{field} should point to an External ID or the 'sf_id', not 'id'.", to_field),
        ("heroku_connect.W001", f"{field} should not {constraint}", db_constraint),
        ("heroku_connect.E008", f"{field} may not {constraint}", db_constraint),
        ("heroku_connect.W001", f"sfdc.Other.many should not {constraint}", db_constraint),
    } <= found
    assert not any("Other.good" in message for _, message, _ in found)
    assert any(check_id == "heroku_connect.E005" and "Other_many" in message for check_id, message, _ in found)


@isolate_apps("tests.sfdc")
def test_check_of_object_names(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = model("One", sf_object_name="Same__c"), model("Two", sf_object_name="Same__c")
    model("Three", sf_object_name="Other__c")
    monkeypatch.setattr(our_checks, "connected_models", one._meta.apps.get_models)
    assert our_checks.check_unique_object_names(None) == [
        checks.Error(
            f"sfdc.{clashing.__name__}.sf_object_name 'Same__c' clashes with another model.",
            hint="Make sure your 'sf_object_name' is correct.",
            obj=clashing,
            id="heroku_connect.E006",
        )
        for clashing in (one, two)
    ]


def test_the_example_and_the_test_app_are_clean() -> None:
    assert checks.run_checks() == []


def test_they_are_registered() -> None:
    registered = checks.registry.registry.get_checks()
    assert our_checks.check_relations in registered
    assert our_checks.check_unique_object_names in registered
