"""Every field class: column, type, defaults; values go to the table and come back; mistakes are told at once."""

import datetime
import decimal
import enum
import uuid
from typing import Any

import pytest
from django import forms
from django.core.exceptions import ValidationError
from django.db import connection, models
from django.db.models import F, Max

from hc_signals.db import models as hc_models
from hc_signals.db.exceptions import MissingArgumentError
from hc_signals.testing import HerokuConnect
from tests.sfdc.models import Everything

TYPES: list[tuple[Any, dict[str, Any], str]] = [
    (hc_models.AnyType, {}, "text"),
    (hc_models.TextAreaLong, {}, "text"),
    (hc_models.ID, {"max_length": 40, "editable": True, "null": False}, "varchar(18)"),
    (hc_models.ExternalID, {}, "varchar(32)"),
    (hc_models.Checkbox, {"null": False}, "boolean"),
    (hc_models.Number, {"max_digits": 5, "decimal_places": 2}, "double precision"),
    (hc_models.Currency, {"max_digits": 5, "decimal_places": 2}, "double precision"),
    (hc_models.Percent, {"max_digits": 5, "decimal_places": 2}, "double precision"),
    (hc_models.Integer, {}, "integer"),
    (hc_models.Date, {}, "date"),
    (hc_models.DateTime, {}, "timestamp without time zone"),
    (hc_models.Time, {}, "time"),
    (hc_models.EncryptedString, {"max_length": 7}, "varchar(7)"),
    (hc_models.Text, {"max_length": 7}, "varchar(7)"),
    (hc_models.FormulaText, {}, "varchar(1300)"),
    (hc_models.Email, {"max_length": 42}, "varchar(80)"),
    (hc_models.Email, {"max_length": 128}, "varchar(128)"),
    (hc_models.Phone, {"max_length": 12}, "varchar(40)"),
    (hc_models.Phone, {"max_length": 42}, "varchar(42)"),
    (hc_models.Picklist, {"choices": [("a", "A")]}, "varchar(255)"),
    (hc_models.Picklist, {"choices": [("x" * 2890, "A")]}, "varchar(2890)"),
    (hc_models.Picklist, {"choices": [("a", "A")], "max_length": 3}, "varchar(3)"),
    (hc_models.MultiPicklist, {}, "varchar(4099)"),
    (hc_models.TextArea, {}, "varchar(255)"),
    (hc_models.URL, {}, "varchar(255)"),
    (hc_models.URL, {"max_length": 42}, "varchar(42)"),
]


@pytest.mark.parametrize(("kind", "arguments", "db_type"), TYPES)
def test_column_and_type(kind: Any, arguments: dict[str, Any], db_type: str) -> None:
    field = kind(sf_field_name="Some_Field__c", **arguments)
    field.set_attributes_from_name("some_field")
    assert field.db_type(connection) == db_type
    assert field.column == "some_field__c"
    assert field.null is True
    assert field.blank is True
    assert field.upsert is (kind is hc_models.ExternalID)
    _, _, _, keywords = field.deconstruct()
    assert keywords["sf_field_name"] == "Some_Field__c"
    assert keywords["upsert"] is field.upsert
    assert kind(sf_field_name="X", db_column="own", **arguments).db_column == "own"


def test_upsert_and_unique_force_an_index() -> None:
    assert (hc_models.Text(sf_field_name="X", max_length=5, upsert=True).unique, True) == (True, True)
    assert hc_models.Text(sf_field_name="X", max_length=5, upsert=True).db_index is True
    assert hc_models.Text(sf_field_name="X", max_length=5, unique=True).db_index is True
    assert hc_models.Text(sf_field_name="X", max_length=5).db_index is False
    assert hc_models.ID(sf_field_name="X").unique is True
    assert hc_models.ID(sf_field_name="X", unique=False).unique is False


@pytest.mark.parametrize("kind", [kind for kind, _, _ in TYPES])
def test_a_missing_sf_field_name_is_one_clear_error(kind: Any) -> None:
    with pytest.raises(MissingArgumentError, match=r"needs the argument 'sf_field_name'"):
        kind(choices=[("a", "A")])


def test_choices_of_a_picklist() -> None:
    class Colour(models.TextChoices):
        RED = "red"

    class Plain(enum.Enum):
        RED = "red"

    for choices in ([("red", "Red")], [("Group", [("red", "Red")])], Colour, lambda: [("red", "Red")]):
        assert hc_models.Picklist(sf_field_name="X", choices=choices).max_length == 255
    with pytest.raises(MissingArgumentError, match="'choices'"):
        hc_models.Picklist(sf_field_name="X")
    with pytest.raises(ValueError, match="'choices' is empty"):
        hc_models.Picklist(sf_field_name="X", choices=[])
    with pytest.raises(TypeError, match="the choice 1 is no text"):
        hc_models.Picklist(sf_field_name="X", choices=[(1, "One")])


def test_form_fields() -> None:
    assert isinstance(hc_models.TextArea(sf_field_name="X").formfield().widget, forms.Textarea)
    assert isinstance(hc_models.TextArea(sf_field_name="X", choices=[("a", "A")]).formfield().widget, forms.Select)
    assert hc_models.Text(sf_field_name="X", max_length=5).formfield().required is False


@pytest.fixture
def stored(heroku: HerokuConnect) -> Any:
    """Save one record by the ORM and read it back."""

    def store(**values: Any) -> Everything:
        return Everything.objects.get(pk=Everything.objects.create(**values).pk)

    return store


def raw(column: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM salesforce.everything__c ORDER BY id DESC LIMIT 1")
        return cursor.fetchone()[0]


def test_external_id(stored: Any) -> None:
    key = uuid.uuid4()
    assert stored(external_id=key).external_id == key
    assert raw("external_id__c") == key.hex
    assert Everything.objects.get(external_id=key) == Everything.objects.get(external_id=key.hex)
    assert stored(external_id=None).external_id is None
    with connection.cursor() as cursor:
        cursor.execute("UPDATE salesforce.everything__c SET external_id__c = 'by hand' WHERE external_id__c IS NULL")
    assert "by hand" in Everything.objects.values_list("external_id", flat=True)


def test_numbers(stored: Any) -> None:
    assert stored(number=decimal.Decimal("12.34")).number == decimal.Decimal("12.34")
    assert isinstance(raw("number__c"), float)
    assert Everything.objects.filter(number=decimal.Decimal("12.34")).count() == 1
    Everything.objects.update(number=F("number") + 1)
    assert raw("number__c") == 13.34
    assert Everything.objects.aggregate(most=Max("number"))["most"] == decimal.Decimal("13.34")
    assert stored(number=None).number is None


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_date_time_under_every_session_time_zone(stored: Any, zone: str) -> None:
    moment = datetime.datetime(2024, 3, 31, 2, 30, tzinfo=datetime.UTC)
    elsewhere = moment.astimezone(datetime.timezone(datetime.timedelta(hours=-5)))
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('TimeZone', %s, false)", [zone])
    try:
        assert stored(date_time=elsewhere).date_time == moment
        assert raw("date_time__c") == moment.replace(tzinfo=None)
        assert Everything.objects.filter(date_time=elsewhere).count() == 1
        assert Everything.objects.filter(date_time__gt=elsewhere).count() == 0
    finally:
        connection.close()


def test_multi_picklist(stored: Any) -> None:
    assert stored(multi_picklist=["a", "b"]).multi_picklist == ["a", "b"]
    assert raw("multi_picklist__c") == "a;b"
    assert Everything.objects.filter(multi_picklist=["a", "b"]).count() == 1
    assert stored(multi_picklist=[]).multi_picklist is None
    assert stored(multi_picklist=None).multi_picklist is None
    with pytest.raises(ValueError, match="contains a semicolon"):
        stored(multi_picklist=["a;b"])
    Everything(multi_picklist=["a"]).clean_fields()
    with pytest.raises(ValidationError, match="'c' is not a valid choice"):
        Everything(multi_picklist=["a", "c"]).clean_fields()


def test_geolocation(stored: Any) -> None:
    record = stored(location=(52.5, 13.4))
    assert record.location == (52.5, 13.4)
    assert (raw("location__latitude__s"), raw("location__longitude__s")) == (52.5, 13.4)
    record.location = None
    assert record.location_latitude is None
    assert Everything.objects.filter(location_latitude__gt=50).count() == 1
    names = {field.sf_field_name for field in Everything.get_heroku_connect_fields()}
    assert {"Location__Latitude__s", "Location__Longitude__s"} <= names
