"""The delivered instance is the one that the ORM loads: for every field class, value, time zone and inheritance."""

import datetime
import decimal
import uuid
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from django.db import connection, models
from django.db.models.signals import ModelSignal, post_init
from django.test.utils import isolate_apps
from example.crm.models import Contact

from hc_signals import signals
from hc_signals.db import models as hc_models
from hc_signals.db.models import fields as hc_fields
from hc_signals.delivery import instances
from hc_signals.delivery.instances import Maker
from hc_signals.models import Delivery
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, deliver
from tests.sfdc.models import WIDE_COLUMNS, Animal, Dog, Everything, EverythingProxy, Kennel, User, Wide

KEY = uuid.UUID(int=7)
OTHER_KEY = uuid.UUID(int=8)


def state(instance: models.Model) -> dict[str, Any]:
    """Return the loaded values of an instance as type and text, because NaN is not equal to itself."""
    values = {field.attname: instance.__dict__[field.attname] for field in instance._meta.concrete_fields}
    return {name: f"{type(value).__name__} {value!r}" for name, value in values.items()}


@pytest.fixture
def compared(connect: Any) -> Callable[[type[models.Model]], list[models.Model]]:
    """Return a function that connects a receiver, which compares each instance with the ORM's; and its instances."""

    def start(model: type[models.Model]) -> list[models.Model]:
        seen: list[models.Model] = []

        def compare(instance: models.Model, **kwargs: Any) -> None:
            loaded = model._base_manager.get(pk=instance.pk)
            assert type(instance) is type(loaded)
            assert state(instance) == state(loaded)
            assert instance._state.db == loaded._state.db
            assert instance._state.adding is False
            seen.append(instance)

        def compare_or_fail(**kwargs: Any) -> None:
            try:
                compare(**kwargs)
            except Exception as error:
                pytest.fail(f"{error}")  # no Exception: the worker lets it through

        connect(signals.record_created, compare_or_fail, model)
        connect(signals.record_updated, compare_or_fail, model)
        return seen

    return start


def test_every_field_class_is_in_the_test_model() -> None:
    classes = {getattr(hc_fields, name) for name in hc_fields.__all__}
    classes -= {hc_fields.HerokuConnectFieldMixin, hc_fields.Geolocation}
    assert {"location_latitude", "location_longitude"} <= {field.name for field in Everything._meta.fields}
    used = {type(field) for field in Everything._meta.concrete_fields}
    assert classes | {hc_models.Lookup, hc_models.MasterDetail} <= used


VALUES: list[dict[str, Any]] = [
    {},
    {field.name: None for field in Everything._meta.concrete_fields if isinstance(field, hc_fields.Text)},
    {"text": "Zoë 😀 \t\n'\"\\ \u2028", "text_area": "", "text_area_long": "x" * 5_000_000},
    {"number": decimal.Decimal("0.10"), "currency": decimal.Decimal("1e9"), "percent": decimal.Decimal("-99.99")},
    {"date": datetime.date(1, 1, 1), "date_time": datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)},
    {
        "date": datetime.date(9999, 12, 31),
        "date_time": datetime.datetime(2024, 3, 31, 2, 30, 0, 123456, tzinfo=datetime.UTC),  # a gap in Berlin
        "time": datetime.time(23, 59, 59, 999999),
    },
    {"checkbox": True, "picklist": "b", "email": "a@b.example", "url": "https://e.com/?a=b&c"},
    {"multi_picklist": ["a", "b"], "integer": 7, "formula": "f(x)", "location_latitude": 1.5},
    {"phone": "+49 30", "encrypted": "***"},
    {"external_id": KEY, "other_id": "001000000000001AAA", "lookup_id": "005000000000001AAA"},
]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns"])
def test_every_field_class_and_value_is_delivered(captured: HerokuConnect, compared: Any, zone: str) -> None:
    seen = compared(Everything)
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('TimeZone', %s, false)", [zone])
    try:
        for values in VALUES:
            (sfid,) = captured.insert(Everything, {"external_id": uuid.uuid4(), **values})
            deliver()
            captured.update(Everything, sfid, **VALUES[3])
            deliver()
        captured.create(Everything, 20)
        deliver()
    finally:
        connection.close()
    assert len(seen) == 2 * len(VALUES) - 1 + 20  # one update changed nothing


@pytest.mark.parametrize(
    "text", ["infinity", "-infinity", "294276-12-31 23:59:59", "0044-03-15 BC", "NaN", "Infinity", "1e308"]
)
def test_values_beyond_python_arrive_as_the_orm_loads_them(captured: HerokuConnect, compared: Any, text: str) -> None:
    seen = compared(Everything)
    columns = "number__c" if text in ("NaN", "Infinity", "1e308") else "date_time__c, systemmodstamp"
    values = ", ".join(["%s"] * len(columns.split(",")))
    as_heroku_connect(
        f"INSERT INTO salesforce.everything__c (sfid, {columns}) VALUES ('x', {values})",
        [text] * len(columns.split(",")),
    )
    assert deliver() == 1
    assert len(seen) == 1


def test_update_has_typed_old_values(captured: HerokuConnect, connect: Any) -> None:
    got: list[dict[str, Any]] = []
    connect(signals.record_updated, lambda event, **kwargs: got.append(dict(event.previous)), Everything)
    moment = datetime.datetime(2024, 6, 30, 12, tzinfo=datetime.UTC)
    (sfid,) = captured.insert(Everything, date_time=moment, percent=decimal.Decimal("12.50"), external_id=KEY)
    captured.update(Everything, sfid, date_time=None, percent=None, external_id=uuid.UUID(int=8))
    deliver()
    assert got == [{"date_time": moment, "percent": decimal.Decimal("12.50"), "external_id": KEY}]


def test_instance_is_not_a_later_state(captured: HerokuConnect, connect: Any) -> None:
    got: list[str | None] = []
    connect(signals.record_changed, lambda instance, **kwargs: got.append(instance.username), User)
    (sfid,) = captured.insert(User, username="one")
    captured.update(User, sfid, username="two")
    captured.delete(User, sfid)
    deliver()
    assert got == ["one", "two", "two"]


def test_proxys_receiver_gets_proxies_of_its_signals(captured: HerokuConnect, connect: Any) -> None:
    got: list[Any] = []
    everyone: list[Any] = []
    connect(signals.record_created, lambda sender, instance, **kw: got.append(type(instance)), EverythingProxy)
    connect(signals.record_created, lambda sender, **kw: everyone.append(sender))
    captured.create(Everything)
    deliver()
    assert got == [EverythingProxy]
    assert everyone == [Everything]


def test_connected_child_of_a_connected_model(captured: HerokuConnect, compared: Any) -> None:
    assert Dog._meta.managed is False
    assert Dog._meta.db_table == 'salesforce"."dog__c'
    dogs, animals = compared(Dog), compared(Animal)
    (sfid,) = captured.insert(Animal, external_id=KEY, name="Rex")
    captured.insert(Dog, animal_id=KEY, breed="Boxer")
    deliver()
    assert [(dog.name, dog.breed) for dog in dogs] == [("Rex", "Boxer")] * 2, (
        "a change of its own row, and one of its parent's"
    )
    captured.update(Animal, sfid, name="Max")
    deliver()
    assert (dogs[-1].name, animals[-1].name) == ("Max", "Max")
    as_heroku_connect("UPDATE salesforce.dog__c SET breed__c = 'Poodle'")
    deliver()
    assert (dogs[-1].name, dogs[-1].breed) == ("Max", "Poodle")
    assert len(animals) == 2, "the parent gets no change of the child's half"


def test_managed_child_of_a_child_gets_changes(captured: HerokuConnect, compared: Any) -> None:
    (sfid,) = captured.insert(Animal, external_id=KEY, name="Rex")
    captured.insert(Dog, animal_id=KEY, breed="Boxer")
    Kennel(resident_id=KEY, number=3).save_base(raw=True)
    deliver()
    kennels = compared(Kennel)
    captured.update(Animal, sfid, name="Max")
    deliver()
    assert [(kennel.name, kennel.breed, kennel.number) for kennel in kennels] == [("Max", "Boxer", 3)]


def test_unbuildable_parent_fails_alone(captured: HerokuConnect, connect: Any) -> None:
    def refuse(instance: Animal, **kwargs: Any) -> None:
        if instance.name == "Max":
            raise LookupError("not this one")

    got: list[str] = []
    connect(post_init, refuse, Animal)
    connect(signals.record_changed, lambda instance, **kwargs: got.append(instance.breed), Dog)
    sfids = [captured.insert(Animal, external_id=key, name="new")[0] for key in (KEY, OTHER_KEY)]
    for key, breed in ((KEY, "Boxer"), (OTHER_KEY, "Poodle")):
        captured.insert(Dog, animal_id=key, breed=breed)
    deliver()
    got.clear()
    for sfid, name in zip(sfids, ("Max", "Rex"), strict=True):
        captured.update(Animal, sfid, name=name)
    deliver()
    assert got == ["Poodle"]


def test_unconvertible_value_of_a_child_fails_alone(
    captured: HerokuConnect, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(value: str, *args: Any) -> str:
        if value == "Boxer":
            raise ValueError("no such breed")
        return value

    got: list[tuple[str, str]] = []
    monkeypatch.setattr(Dog._meta.get_field("breed"), "from_db_value", convert, raising=False)
    connect(signals.record_created, lambda instance, **kwargs: got.append((instance.name, instance.breed)), Dog)
    for key, breed in ((KEY, "Boxer"), (OTHER_KEY, "Poodle")):
        captured.insert(Animal, external_id=key, name="Rex")
        captured.insert(Dog, animal_id=key, breed=breed)
    deliver()
    assert got == [("Rex", "Poodle")] * 2, "a change of its own row, and one of its parent's"
    assert "no such breed" in Delivery.objects.first().error  # type: ignore[union-attr]


def test_each_change_of_a_parent_has_its_own_state(captured: HerokuConnect, connect: Any) -> None:
    got: list[str] = []
    connect(signals.record_updated, lambda instance, **kwargs: got.append(instance.name), Dog)
    (sfid,) = captured.insert(Animal, external_id=KEY, name="a")
    captured.insert(Dog, animal_id=KEY, breed="Boxer")
    for name in "bcd":
        captured.update(Animal, sfid, name=name)
    deliver()
    assert got == ["b", "c", "d"]


def test_children_are_read_once_per_page(
    captured: HerokuConnect, connect: Any, django_assert_max_num_queries: Any
) -> None:
    got: list[str] = []
    connect(signals.record_changed, lambda instance, **kwargs: got.append(instance.name), Kennel)
    keys = [uuid.UUID(int=n + 1) for n in range(100)]
    captured.insert(Animal, *({"external_id": key, "name": f"n{key.int}"} for key in keys))
    captured.insert(Dog, *({"animal_id": key, "breed": "x"} for key in keys))
    for key in keys:
        Kennel(resident_id=key, number=key.int).save_base(raw=True)
    from example.crm import receivers

    signals.record_changed.disconnect(receivers.keep_ledger)
    try:
        with django_assert_max_num_queries(60):
            deliver()
    finally:
        signals.record_changed.connect(receivers.keep_ledger)
    assert len(got) == 200


def test_instance_of_four_hundred_columns(captured: HerokuConnect, compared: Any) -> None:
    seen = compared(Wide)
    # Too long for the row, so each is stored as a pointer. A value that compresses well stays in, and 400 are too many.
    values = {f"column_{number}": f"ü {sha256(bytes(number)).hexdigest()}" for number in range(WIDE_COLUMNS)}
    (sfid,) = captured.insert(Wide, {**values})
    deliver()
    captured.update(Wide, sfid, column_399="last")
    deliver()
    assert len(seen) == 2


def test_reserved_table_name_without_is_deleted(captured: HerokuConnect, compared: Any) -> None:
    seen = compared(User)
    captured.create(User, 3)
    deliver()
    assert len(seen) == 3


def test_value_that_no_longer_fits_its_column_fails_alone(captured: HerokuConnect, connect: Any) -> None:
    from hc_signals.models import Delivery

    got: list[str] = []
    connect(signals.record_created, lambda instance, **kwargs: got.append(instance.username), User)
    captured.insert(User, *({"username": name} for name in ("7", "eight", "9")))
    as_heroku_connect(
        "ALTER TABLE salesforce.\"user\" ALTER username TYPE integer USING CASE WHEN username = 'eight' THEN 8 "
        "ELSE username::integer END"
    )
    assert deliver() == 3
    assert got == [7, 9]
    kept = Delivery.objects.filter(signal="record_created")
    assert [(d.state, d.error.splitlines()[0][:9]) for d in kept] == [("retry", "DataError")]


def _makes_like_the_orm(model: type[models.Model], *values: Any) -> list[models.Model]:
    """Make three instances; return them after comparing each with that of ``from_db``."""
    names = [field.attname for field in model._meta.concrete_fields]
    maker = Maker(model, "default", names)
    made = [maker.make(values) for _ in range(3)]
    for instance in made:
        loaded = model.from_db("default", names, values)
        assert type(instance) is model
        assert list(vars(instance)) == list(vars(loaded))
        assert {**vars(instance), "_state": None} == {**vars(loaded), "_state": None}
        assert type(instance._state) is type(loaded._state)
        assert vars(instance._state) == vars(loaded._state)
    assert len({id(instance._state) for instance in made}) == 3
    return made


def test_made_instances_equal_those_of_from_db(monkeypatch: pytest.MonkeyPatch) -> None:
    for model in (Wide, Contact, Kennel):  # Kennel's descriptors are our own, so it is always made by from_db
        _makes_like_the_orm(model, *range(len(model._meta.concrete_fields)))
    with isolate_apps("tests.sfdc"):

        class Pointing(models.Model):
            target = models.ForeignKey("self", models.CASCADE, null=True)
            file = models.FileField()

            class Meta:
                app_label = "sfdc"

    _makes_like_the_orm(Pointing, 1, 2, "name")
    for signal in ("pre_init", "post_init"):  # other tests' packages may listen to Django's own
        monkeypatch.setattr(instances, signal, ModelSignal())
    makers = [(Maker(model, "default", _names(model)), range(len(_names(model)))) for model in (Wide, Contact)]
    for maker, values in makers:
        maker.make(values)
    monkeypatch.setattr(models.Model, "__init__", None)
    assert [maker.make(values).pk for maker, values in makers] == [0, 0]


def _names(model: type[models.Model]) -> list[str]:
    return [field.attname for field in model._meta.concrete_fields]


@pytest.mark.parametrize("name", ["__init__", "from_db"])
def test_code_in_the_place_of_djangos_runs_for_each_instance(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    original, calls = getattr(models.Model, name), []

    def note(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return original.__func__(*args, **kwargs) if name == "from_db" else original(*args, **kwargs)

    monkeypatch.setattr(models.Model, name, classmethod(note) if name == "from_db" else note)
    maker = Maker(Wide, "default", _names(Wide))
    for _ in range(3):
        maker.make(range(len(_names(Wide))))
    assert len(calls) == 3


class _Behind:
    def __init__(self) -> None:
        self.code = "behind"


def test_code_of_the_project_runs_for_each_instance() -> None:
    with isolate_apps("tests.sfdc"):

        class WithInit(models.Model):
            class Meta:
                app_label = "sfdc"

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.code = "init"

        class WithFromDb(models.Model):
            class Meta:
                app_label = "sfdc"

            @classmethod
            def from_db(cls, *args: Any, **kwargs: Any) -> Any:
                instance: Any = super().from_db(*args, **kwargs)
                instance.code = "from_db"
                return instance

        class WithSetattr(models.Model):
            class Meta:
                app_label = "sfdc"

            def __setattr__(self, name: str, value: Any) -> None:
                super().__setattr__(name, value)
                self.__dict__["code"] = "setattr"

        class WithMixinBehind(models.Model, _Behind):
            class Meta:
                app_label = "sfdc"

    for model in (WithInit, WithFromDb, WithSetattr, WithMixinBehind):
        for each in _makes_like_the_orm(model, 1):
            assert each.__dict__["code"]


def test_receiver_of_post_init_runs_from_its_connection_on() -> None:
    names = _names(Wide)
    maker, seen = Maker(Wide, "default", names), []

    def note(instance: models.Model, **kwargs: Any) -> None:
        seen.append(instance)

    before = [maker.make(range(len(names))) for _ in range(3)]
    post_init.connect(note, sender=Wide)
    try:
        during = [maker.make(range(len(names))) for _ in range(3)]
    finally:
        post_init.disconnect(note, sender=Wide)
    maker.make(range(len(names)))
    assert len(before) == 3
    assert list(map(id, seen)) == list(map(id, during))
