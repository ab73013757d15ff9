"""Multi-table children of connected models are saved, loaded, updated and deleted like any other of Django."""

import uuid
from typing import Any

import pytest
from django.db import IntegrityError, NotSupportedError, connection
from django.test.utils import CaptureQueriesContext
from example.crm.models import CompoundModel, SFObjectModel

from hc_signals.testing import HerokuConnect
from tests.sfdc.models import Animal, Dog, Kennel

KEY, OTHER = uuid.UUID(int=7), uuid.UUID(int=8)


def halves() -> tuple[list[Any], list[Any]]:
    """Return the rows of both tables."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT external_id__c, data__c FROM salesforce.my_object__c ORDER BY id")
        theirs = cursor.fetchall()
        cursor.execute("SELECT hc_model_id, more_data FROM crm_compoundmodel ORDER BY more_data, hc_model_id")
        return theirs, cursor.fetchall()


@pytest.mark.parametrize("how", ["create", "save", "by_parent", "by_value", "by_new_value", "get_or_create"])
def test_compound_record_is_saved_as_two_rows(heroku: HerokuConnect, how: str) -> None:
    values = {"data": "a", "more_data": "b"}
    if how in ("by_parent", "by_value"):
        parent = SFObjectModel.objects.create(external_id=KEY, data="before")
    match how:
        case "create":
            record = CompoundModel.objects.create(external_id=KEY, **values)
        case "save":
            record = CompoundModel(external_id=KEY, **values)
            record.save()
        case "by_parent":
            record = CompoundModel(hc_model=parent, **values)
            record.save()
        case "by_value" | "by_new_value":
            record = CompoundModel(hc_model_id=KEY, **values)
            record.save()
        case "get_or_create":
            record, _ = CompoundModel.objects.get_or_create(external_id=KEY, defaults=values)
    expected = ([(KEY.hex, "a")], [(KEY.hex, "b")])
    assert halves() == expected
    assert (record.pk, record.hc_model_id, record.external_id) == (KEY, KEY, KEY)
    assert record.id == SFObjectModel.objects.get().id
    for _ in range(2):
        record.save()
        assert halves() == expected
        record.refresh_from_db()
    assert CompoundModel.objects.get(pk=KEY) == record
    assert record.hc_model == SFObjectModel.objects.get()
    assert record.hc_model.compoundmodel == record


def test_default_key_links_the_halves(heroku: HerokuConnect) -> None:
    record = CompoundModel.objects.create(more_data="b")
    assert halves() == ([(record.external_id.hex, None)], [(record.external_id.hex, "b")])


def test_loaded_record_is_updated_and_deleted(heroku: HerokuConnect) -> None:
    CompoundModel.objects.create(external_id=OTHER, data="x", more_data="y")
    CompoundModel.objects.create(external_id=KEY, data="a", more_data="b")
    record = CompoundModel.objects.get(external_id=KEY)
    record.data, record.more_data = "a2", "b2"
    record.full_clean()
    with CaptureQueriesContext(connection) as queries:
        record.save()
    assert [query["sql"].split()[0] for query in queries] == ["BEGIN", "UPDATE", "UPDATE", "COMMIT"]
    record.data, record.more_data = "a3", "b3"
    record.save(update_fields=["data"])
    assert halves() == ([(OTHER.hex, "x"), (KEY.hex, "a3")], [(KEY.hex, "b2"), (OTHER.hex, "y")])
    record.save(update_fields=["more_data"])
    record.delete()
    assert halves() == ([(OTHER.hex, "x")], [(OTHER.hex, "y")])
    SFObjectModel.objects.get().delete()
    assert halves() == ([], [])


def test_query_sets_update_and_delete_both_halves(heroku: HerokuConnect) -> None:
    for key in (KEY, OTHER):
        CompoundModel.objects.create(external_id=key, data="a", more_data="b")
    assert CompoundModel.objects.filter(external_id=KEY).update(data="a2", more_data="b2") == 1
    assert CompoundModel.objects.filter(more_data="b").update(data="x") == 1
    assert halves() == ([(KEY.hex, "a2"), (OTHER.hex, "x")], [(OTHER.hex, "b"), (KEY.hex, "b2")])
    records = list(CompoundModel.objects.order_by("external_id"))
    for record in records:
        record.data = record.more_data = "bulk"
    with pytest.raises(NotSupportedError, match=r"cannot write 'data', a field of crm.SFObjectModel. Use save\(\)"):
        CompoundModel.objects.bulk_update(records, ["data", "more_data"])
    CompoundModel.objects.bulk_update(records, ["more_data"])
    assert halves() == ([(KEY.hex, "a2"), (OTHER.hex, "x")], [(KEY.hex, "bulk"), (OTHER.hex, "bulk")])
    CompoundModel.objects.filter(data="a2", external_id=KEY).delete()
    assert halves() == ([(OTHER.hex, "x")], [(OTHER.hex, "bulk")])


def test_deferred_fields_are_loaded_and_saved(heroku: HerokuConnect) -> None:
    key = CompoundModel.objects.create(external_id=KEY, data="a", more_data="b").id
    record = CompoundModel.objects.only("more_data").get()
    assert (record.id, record.external_id, record.hc_model.id) == (key, KEY, key)
    record = CompoundModel.objects.defer("id", "external_id").get()
    record.data = record.more_data = "c"
    record.save()
    assert halves() == ([(KEY.hex, "c")], [(KEY.hex, "c")])
    assert list(CompoundModel.objects.values_list("id", "hc_model__id", "hc_model__data")) == [(key, key, "c")]


def test_both_halves_follow_a_new_external_id(heroku: HerokuConnect) -> None:
    record = CompoundModel.objects.create(external_id=KEY, data="a", more_data="b")
    record.external_id = OTHER
    record.save(update_fields=["more_data"])
    assert halves() == ([(KEY.hex, "a")], [(KEY.hex, "b")])
    record.external_id = OTHER
    record.save()
    assert halves() == ([(OTHER.hex, "a")], [(OTHER.hex, "b")])
    assert CompoundModel.objects.get() == record


def test_record_without_a_key_leaves_no_half(heroku: HerokuConnect) -> None:
    with pytest.raises(IntegrityError):
        CompoundModel.objects.create(external_id=None, more_data="b")
    assert halves() == ([], [])


def test_copy_is_a_record_of_its_own(heroku: HerokuConnect) -> None:
    record = CompoundModel.objects.create(external_id=KEY, data="a", more_data="b")
    record.pk = record.id = None
    record._state.adding = True
    record.external_id = OTHER
    record.save()
    assert halves() == ([(KEY.hex, "a"), (OTHER.hex, "a")], [(KEY.hex, "b"), (OTHER.hex, "b")])


def test_children_of_children(heroku: HerokuConnect) -> None:
    kennel = Kennel.objects.create(external_id=KEY, name="Rex", breed="pug", number=1)
    for _ in range(2):
        kennel.refresh_from_db()
        assert (kennel.pk, kennel.animal_id, kennel.external_id, kennel.id) == (KEY, KEY, KEY, Animal.objects.get().id)
        kennel.number += 1
        kennel.save()
    assert Kennel.objects.filter(number=3).update(name="Bo", breed="cur", number=4) == 1
    assert list(Kennel.objects.values_list("name", "breed", "number")) == [("Bo", "cur", 4)]
    assert (Animal.objects.get().name, Dog.objects.get().breed) == ("Bo", "cur")
    kennel.refresh_from_db()
    kennel.external_id = OTHER
    kennel.save()
    assert Kennel.objects.get(pk=OTHER).name == "Bo"
    kennel.delete()
    assert (Animal.objects.count(), Dog.objects.count(), Kennel.objects.count()) == (0, 0, 0)
