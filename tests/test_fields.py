"""Every field class: column, type and defaults, values in both directions, errors for wrong arguments."""

import copy
import datetime
import decimal
import enum
import pickle
import uuid
from typing import Any

import pytest
from django import forms
from django.core.exceptions import ValidationError
from django.db import connection, models
from django.db.migrations.writer import MigrationWriter
from django.db.models import F, Max
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

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
def test_field_has_its_column_and_type(kind: Any, arguments: dict[str, Any], db_type: str) -> None:
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
def test_missing_sf_field_name_is_one_clear_error(kind: Any) -> None:
    with pytest.raises(MissingArgumentError, match=r"needs the argument 'sf_field_name'"):
        kind(choices=[("a", "A")])


def test_picklist_takes_choices_of_every_form() -> None:
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


def test_field_has_its_form_field() -> None:
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


def test_external_id_reads_and_writes_uuids(stored: Any) -> None:
    key = uuid.uuid4()
    assert stored(external_id=key).external_id == key
    assert raw("external_id__c") == key.hex
    assert Everything.objects.get(external_id=key) == Everything.objects.get(external_id=key.hex)
    assert stored(external_id=None).external_id is None
    with connection.cursor() as cursor:
        cursor.execute("UPDATE salesforce.everything__c SET external_id__c = 'by hand' WHERE external_id__c IS NULL")
    assert "by hand" in Everything.objects.values_list("external_id", flat=True)


def test_numbers_are_read_in_full(stored: Any) -> None:
    assert stored(number=decimal.Decimal("12.34")).number == decimal.Decimal("12.34")
    assert isinstance(raw("number__c"), float)
    assert Everything.objects.filter(number=decimal.Decimal("12.34")).count() == 1
    Everything.objects.update(number=F("number") + 1)
    assert raw("number__c") == 13.34
    assert Everything.objects.aggregate(most=Max("number"))["most"] == decimal.Decimal("13.34")
    assert stored(number=None).number is None


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_datetime_is_right_under_every_session_zone(stored: Any, zone: str) -> None:
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


def test_multi_picklist_reads_and_writes_lists(stored: Any) -> None:
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


def test_geolocation_reads_and_writes_pairs(stored: Any) -> None:
    record = stored(location=(52.5, 13.4))
    assert record.location == (52.5, 13.4)
    assert (raw("location__latitude__s"), raw("location__longitude__s")) == (52.5, 13.4)
    record.location = None
    assert record.location_latitude is None
    assert Everything.objects.filter(location_latitude__gt=50).count() == 1
    names = {field.sf_field_name for field in Everything.get_heroku_connect_fields()}
    assert {"Location__Latitude__s", "Location__Longitude__s"} <= names


# -- every value that a table can have ---------------------------------------------------------------------------------


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.floats() | st.integers(-(10**20), 10**20).map(float) | st.decimals(-1000, 1000, places=2).map(float))
@example(7.0)
@example(1e16)
@example(-0.0)
@example(float("nan"))
def test_every_number_validates_and_is_saved_unchanged(heroku: HerokuConnect, value: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO salesforce.everything__c (number__c, currency__c, whole__c, location__latitude__s) "
            "VALUES (%(value)s, %(value)s, %(value)s, %(value)s) RETURNING id",
            {"value": value},
        )
        key = cursor.fetchone()[0]
        record = Everything.objects.get(pk=key)
        record.full_clean()
        record.save()
        for column in ("number__c", "currency__c", "whole__c", "location__latitude__s"):
            cursor.execute(f"SELECT float8send({column}) = float8send(%s) FROM salesforce.everything__c", [value])
            assert cursor.fetchall() == [(True,)], column
        cursor.execute("TRUNCATE salesforce.everything__c")


@given(st.integers(-(10**8) + 1, 10**8 - 1))
@settings(max_examples=50, derandomize=True, deadline=None)
@example(7)
@example(10**7)
def test_whole_numbers_validate_without_a_table(value: int) -> None:
    field = hc_models.Number(sf_field_name="X", max_digits=8, decimal_places=0)
    number = field.from_db_value(float(value), None, connection)
    assert str(number) == str(value)
    assert field.clean(number, None) == value


def test_stored_values_validate_and_others_do_not(stored: Any) -> None:
    record = stored(picklist="a", url="https://example.com")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE salesforce.everything__c SET picklist__c = 'gone', url__c = 'www', lookup__c = 'absent'")
    record.refresh_from_db()
    record.full_clean()
    for field, wrong in (("picklist", "other"), ("url", "ww"), ("lookup_id", "unknown")):
        record.refresh_from_db()
        setattr(record, field, wrong)
        with pytest.raises(ValidationError) as error:
            record.full_clean()
        assert list(error.value.message_dict) == [field.removesuffix("_id")]
    with pytest.raises(ValidationError):
        Everything(pk=record.pk, picklist="gone").full_clean(validate_unique=False)


@pytest.mark.parametrize("text", ["by hand", "0" * 31 + "A", "6f9619ffA0864011b42d00cf4fc964ff"])
def test_external_id_is_written_as_read(stored: Any, text: str) -> None:
    stored()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE salesforce.everything__c SET external_id__c = %s", [text])
    record = Everything.objects.get()
    for each in (record, copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        each.full_clean()
        each.save()
        assert raw("external_id__c") == text
    assert Everything.objects.filter(external_id=record.external_id).exists()
    with pytest.raises(ValidationError):
        stored(external_id="typed by the app")


def test_selection_is_a_list_with_the_stored_text() -> None:
    record = Everything(multi_picklist=["b", "a"], tags="x;y")
    assert (record.multi_picklist, str(record.multi_picklist), f"{record.tags}") == (["b", "a"], "b;a", "x;y")
    assert record.get_multi_picklist_display() == "B, A"
    record.tags = ""
    assert record.tags is None
    record.tags = ("q",)
    record.tags.append("r")
    assert str(copy.deepcopy(record).tags) == str(pickle.loads(pickle.dumps(record)).tags) == "q;r"


# -- copies ------------------------------------------------------------------------------------------------------------

COMMON = {
    "verbose_name": st.just("a name"),
    "null": st.booleans(),
    "blank": st.booleans(),
    "unique": st.booleans(),
    "db_index": st.booleans(),
    "editable": st.booleans(),
    "upsert": st.booleans(),
    "help_text": st.just("help"),
    "db_column": st.sampled_from(["own", None, ""]),
    "default": st.sampled_from([None, "a", str, models.NOT_PROVIDED]),
    "serialize": st.booleans(),
    "validators": st.just([str]),
    "error_messages": st.just({"null": "no"}),
}
LENGTHS = {"max_length": st.sampled_from([18, 40, 80, 200, 254, 255, 1300, 4099])}
CHOICES = {"choices": st.sampled_from([[("a", "A")], [("g", [("a", "A")])]])}
DIGITS = {"max_digits": st.integers(10, 18), "decimal_places": st.integers(0, 5)}
STAMPS = {"auto_now": st.booleans()}
RELATION = {
    "to": st.sampled_from(["sfdc.user", "self"]),
    "on_delete": st.just(models.DO_NOTHING),
    "to_field": st.just("sf_id"),
    "related_name": st.just("+"),
}
PICKLIST = (hc_models.Picklist, "choices")
REQUIRED = ("to", "on_delete", "max_digits", "decimal_places")
ARGUMENTS: dict[Any, dict[str, Any]] = {
    **{kind: {} for kind in (hc_models.AnyType, hc_models.TextAreaLong, hc_models.Checkbox, hc_models.Integer)},
    **dict.fromkeys((hc_models.Number, hc_models.Currency, hc_models.Percent), DIGITS),
    **dict.fromkeys((hc_models.Date, hc_models.DateTime, hc_models.Time), STAMPS),
    **dict.fromkeys((hc_models.Lookup, hc_models.MasterDetail), RELATION),
    **dict.fromkeys((hc_models.Picklist, hc_models.MultiPicklist, hc_models.TextArea), LENGTHS | CHOICES),
    **dict.fromkeys((hc_models.ID, hc_models.EncryptedString, hc_models.Text, hc_models.FormulaText), LENGTHS),
    **dict.fromkeys((hc_models.Email, hc_models.Phone, hc_models.URL, hc_models.ExternalID), LENGTHS),
}


def test_arguments_name_every_field_class() -> None:
    kinds = [kind for kind in vars(hc_models).values() if isinstance(kind, type)]
    fields = {kind for kind in kinds if issubclass(kind, models.Field)}
    assert fields == ARGUMENTS.keys()


def state(field: Any) -> dict[str, Any]:
    """Return all properties of a field that a clone must keep."""
    relation = vars(field.remote_field) if field.remote_field else {}
    skipped = ("creation_counter", "remote_field", "field", "related_model")
    return {name: value for name, value in (vars(field) | relation).items() if name not in skipped}


@pytest.mark.parametrize("kind", ARGUMENTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=25, derandomize=True, deadline=None)
def test_clone_equals_the_original(kind: Any, data: st.DataObject) -> None:
    own = ARGUMENTS[kind]
    required = {name: each for name, each in own.items() if name in REQUIRED or (kind, name) == PICKLIST}
    optional = {name: each for name, each in (COMMON | own).items() if name not in required}
    arguments = data.draw(st.fixed_dictionaries(required, optional=optional))
    if kind in (hc_models.ID, hc_models.ExternalID):
        arguments.pop("max_length", None)
    original = kind(sf_field_name="Some__c", **arguments)
    clone = original.clone()
    assert state(clone) == state(original)
    assert clone.deconstruct() == original.deconstruct()
    written = MigrationWriter.serialize(original)[0]
    assert MigrationWriter.serialize(clone)[0] == written
