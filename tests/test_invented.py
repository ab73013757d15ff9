"""Invented records fit any model, and their related records exist."""

import datetime
from typing import Any

import pytest
from django.db import connection, models, transaction
from django.test.utils import isolate_apps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hc_signals.db import models as hc_models
from hc_signals.testing import HerokuConnect
from hc_signals.testing.inventing import NoValueLeftError
from tests import any_mapping
from tests.conftest import server_url
from tests.sfdc.models import Animal, Dog, Everything, User

LENGTHS = st.integers(1, 40)
CHOICES = st.lists(st.text("abcé ", min_size=1, max_size=9), min_size=1, max_size=4, unique=True)


@st.composite
def fields(draw: st.DrawFn) -> Any:
    """A field of any class, with arguments."""
    kind = draw(
        st.sampled_from(
            [
                *(hc_models.Text, hc_models.EncryptedString, hc_models.AnyType, hc_models.Email, hc_models.URL),
                *(hc_models.Phone, hc_models.TextArea, hc_models.TextAreaLong, hc_models.FormulaText, hc_models.ID),
                *(hc_models.Number, hc_models.Currency, hc_models.Percent, hc_models.Integer, hc_models.Checkbox),
                *(hc_models.Date, hc_models.DateTime, hc_models.Time, hc_models.ExternalID, hc_models.Picklist),
                hc_models.MultiPicklist,
            ]
        )
    )
    arguments: dict[str, Any] = {"unique": draw(st.booleans())}
    if kind in (hc_models.Text, hc_models.EncryptedString):
        arguments["max_length"] = draw(LENGTHS)
    if issubclass(kind, hc_models.Number):
        arguments["decimal_places"] = draw(st.integers(1, 4))
        arguments["max_digits"] = arguments["decimal_places"] + draw(st.integers(2, 12))
    if kind is hc_models.Picklist or (kind is hc_models.MultiPicklist and draw(st.booleans())):
        arguments["choices"] = [(value, value) for value in draw(CHOICES)]
    if draw(st.booleans()) and kind is not hc_models.Checkbox:
        arguments["null"] = False
    return kind, arguments


@pytest.mark.django_db
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(fields(), max_size=6), st.integers(0, 6))
def test_invented_records_validate_for_any_fields(made: list[Any], upsert: int) -> None:
    """Django's own validation accepts every record: unique, not NULL, length, choices."""
    attrs: dict[str, Any] = {
        "__module__": "tests.sfdc.models",
        "sf_object_name": "Invented__c",
        "sf_access": "read_write",
    }
    for number, (kind, arguments) in enumerate(made):
        more = {"upsert": True} if number == upsert else {}
        attrs[f"field_{number}"] = kind(sf_field_name=f"F{number}__c", **arguments, **more)
    with isolate_apps("tests.sfdc"):
        model: Any = type("Invented", (hc_models.HerokuConnectModel,), attrs)
    heroku = HerokuConnect(models=[model])
    with transaction.atomic():
        heroku.create_tables()
        try:
            heroku.create(model)
            heroku.bulk_load(model, 25)
        except NoValueLeftError:
            few = [field for field in model._meta.fields if field.unique and (not field.null or field.upsert)]
            assert any(
                len(field.choices or ()) in range(1, 26) or isinstance(field, models.BooleanField) for field in few
            )
        for record in model.objects.all():
            record.full_clean()
        transaction.set_rollback(True)


@pytest.mark.django_db
@pytest.mark.parametrize("unique", [False, True])
def test_invented_records_fill_plain_django_fields(unique: bool) -> None:
    """hc_inspect also writes fields for types that Heroku Connect never creates."""
    kinds: list[Any] = [
        *(models.BigIntegerField, models.SmallIntegerField, models.FloatField, models.DateTimeField, models.UUIDField),
        *(models.JSONField, models.BinaryField, models.DurationField, models.GenericIPAddressField),
    ]
    attrs: dict[str, Any] = {kind.__name__.lower(): kind(unique=unique, null=True) for kind in kinds}
    attrs["numeric"] = models.DecimalField(max_digits=2, decimal_places=2, unique=unique, null=True)
    more = {"__module__": "tests.sfdc.models", "sf_object_name": "Own__c", "sf_access": "read_write"}
    with isolate_apps("tests.sfdc"):
        model: Any = type("Own", (hc_models.HerokuConnectModel,), attrs | more)
    heroku = HerokuConnect(models=[model])
    heroku.create_tables()
    heroku.create(model, 20)
    heroku.bulk_load(model, 20)
    for record in model.objects.all():
        record.full_clean(exclude=[name for name in attrs if record.__dict__[name] is None])
    assert model.objects.exclude(jsonfield__isnull=True).exclude(durationfield=None).count() > 20


@pytest.mark.django_db
def test_related_records_exist(heroku_connect: HerokuConnect) -> None:
    """The key may be an external id; a NOT NULL relation gets its record created first."""
    heroku_connect.create(Dog, 3)
    assert Animal.objects.count() == 3
    assert Dog.objects.count() == 3, "each dog has its own animal"
    heroku_connect.create(Animal, 2)
    heroku_connect.create(Dog, 2)
    assert (Animal.objects.count(), Dog.objects.count()) == (5, 5)
    heroku_connect.create(Everything, 30)
    assert {each.lookup for each in Everything.objects.all()} == {None}, "the table has no other record"


@pytest.mark.django_db
def test_create_takes_values_for_some_fields(heroku_connect: HerokuConnect) -> None:
    at = datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC)
    values = {"date_time": at, "multi_picklist": ["b", "a"], "location": (1.5, 2.5), "text": None}
    (user,) = heroku_connect.create(User, sf_id="005000000000999AAA")
    heroku_connect.create(Everything, 20, lookup=User.objects.get(), **values)
    records = list(Everything.objects.all())
    assert len(records) == 20
    for record in records:
        assert record.lookup_id == user == "005000000000999AAA"
        assert {name: getattr(record, name) for name in values} == values
    assert len({record.picklist for record in records}) > 1, "the other values are invented"
    with pytest.raises(LookupError, match=r"no field 'nmae'.*Did you mean 'name'"):
        heroku_connect.create(Animal, nmae="x")


@pytest.mark.django_db
def test_create_uses_the_given_parent(heroku_connect: HerokuConnect) -> None:
    heroku_connect.create(Animal, 1)
    heroku_connect.create(Dog, 1, animal=Animal.objects.get())
    assert Animal.objects.count() == 1


@pytest.mark.django_db
def test_second_simulator_does_not_collide(heroku_connect: HerokuConnect) -> None:
    first, second = HerokuConnect(), HerokuConnect()
    for simulator in (first, second, first):
        simulator.create(Animal, 2)
        simulator.app_insert(Animal, name="by the app")
        simulator.send_app_writes()
    assert len(set(Animal.objects.values_list("sf_id", flat=True))) == Animal.objects.count() == 9


@pytest.mark.django_db
def test_invented_values_avoid_existing_ones(heroku_connect: HerokuConnect) -> None:
    with isolate_apps("tests.sfdc"):

        class Tiny(hc_models.HerokuConnectModel):
            __module__ = "tests.sfdc.models"
            sf_object_name = "Tiny__c"
            code = hc_models.Text(sf_field_name="Code__c", max_length=1, upsert=True)

    heroku = HerokuConnect(models=[Tiny])
    heroku.create_tables()
    heroku.insert(Tiny, *({"code": letter} for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    heroku.create(Tiny, 10)
    assert set(Tiny.objects.values_list("code", flat=True)) == set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    with pytest.raises(NoValueLeftError, match=r"sfdc.Tiny.code is unique .* too few of its 36 possible values"):
        heroku.create(Tiny)
    steps = [step.action for step, _ in zip(heroku.play(poll_size=20), range(30), strict=False)]
    assert "delete" in steps, "it deletes records to free values"


def test_any_mapping_is_delivered_as_the_orm_reads() -> None:
    """`make any-mapping` tries more mappings, with more changes."""
    for seed in (2, 3):
        outcome = any_mapping.try_seed(seed, 60, server_url())
        assert outcome.is_well, str(outcome)


@pytest.mark.django_db
def test_invented_records_meet_the_tables_constraints() -> None:
    """Two columns that are unique together, an enum, and a field with the name of an argument."""
    with isolate_apps("tests.sfdc"):

        class Pair(hc_models.HerokuConnectModel):
            __module__ = "tests.sfdc.models"
            sf_object_name = "Pair__c"
            sf_access = hc_models.READ_WRITE
            sf_without_upsert = True
            model = hc_models.Text(sf_field_name="Model__c", max_length=80)
            letter = hc_models.Picklist(sf_field_name="Letter__c", choices=[("a", "a"), ("b", "b")])
            mood = models.TextField(null=True)

    heroku = HerokuConnect(models=[Pair])
    heroku.create_tables()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TYPE salesforce.mood AS ENUM ('good', 'it''s')")
        cursor.execute("ALTER TABLE salesforce.pair__c ALTER mood TYPE salesforce.mood USING NULL")
        cursor.execute("CREATE UNIQUE INDEX ON salesforce.pair__c (letter__c, lower(model__c))")
        cursor.execute("ALTER TABLE salesforce.pair__c ADD twice integer GENERATED ALWAYS AS (id * 2) STORED")
    heroku.bulk_load(Pair, 300)
    heroku.create(Pair, 20)
    assert set(Pair.objects.values_list("mood", flat=True)) == {"good", "it's"}
    (sfid,) = heroku.insert(Pair, model="S")
    heroku.update(Pair, sfid, model="T")
    heroku.app_update(Pair, heroku.app_insert(Pair, model="U"), model="V")
    assert set(Pair.objects.filter(model__in="STUV").values_list("model", flat=True)) == {"T", "V"}
    heroku.reload(Pair)
    assert Pair.objects.count() == 322
