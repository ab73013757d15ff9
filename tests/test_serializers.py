"""Connected models with Django REST framework, django-import-export and django-filter: the real packages."""

import re
import sys
from io import BytesIO
from types import ModuleType
from typing import Any
from unittest.mock import patch

import django_filters
import pytest
from django.db import connection
from django.http import QueryDict
from django.test.utils import isolate_apps
from import_export.resources import ModelResource, modelresource_factory
from rest_framework.parsers import JSONParser
from rest_framework.renderers import JSONRenderer
from rest_framework.serializers import ModelSerializer

from hc_signals.contrib.import_export import HerokuConnectModelResource
from hc_signals.contrib.rest_framework import HerokuConnectModelSerializer
from hc_signals.db import models as hc_models
from hc_signals.testing import HerokuConnect
from tests.awkward import COLUMNS, different, fill, rows
from tests.pages import BLOCKS
from tests.sfdc.models import Everything


@pytest.fixture
def awkward(heroku: HerokuConnect) -> None:
    """The rows of the forms' tests, with numbers that JSON and Django's number_format() can write."""
    fill(heroku)
    with connection.cursor() as cursor:
        for column in ("currency__c", "percent__c", "location__longitude__s"):
            cursor.execute(f"UPDATE salesforce.everything__c SET {column} = 1e17 WHERE {column} IN ('NaN', 'Infinity')")


class Serializer(HerokuConnectModelSerializer):
    class Meta:
        model = Everything
        fields = [field.name for field in Everything._meta.fields if field.column in COLUMNS]


def over_the_wire(data: Any) -> Any:
    return JSONParser().parse(BytesIO(JSONRenderer().render(data)))


def test_serializer_accepts_its_own_output(awkward: None) -> None:
    before = rows()
    for record in Everything.objects.all():
        serializer = Serializer(record, over_the_wire(Serializer(record).data))
        assert serializer.is_valid(), serializer.errors
        serializer.save()
    assert different(before) == {}


def test_serializer_changes_one_field(awkward: None) -> None:
    record = Everything.objects.get(pk=2)
    output = over_the_wire(Serializer(record).data)
    assert output["multi_picklist"] == ["a", "no longer"]
    assert output["tags"] == ["p", " q ", ""]
    assert output["lookup"] == "005000000000009AAA"
    before = rows()
    serializer = Serializer(record, output | {"multi_picklist": ["b", "no longer"]})
    serializer.is_valid(raise_exception=True)
    serializer.save()
    assert different(before) == {(2, "multi_picklist__c"): ("a;no longer", "b;no longer")}
    new = {"multi_picklist": ["b"], "lookup": "005000000000001AAA", "number": "1.5", "picklist": "a", "tags": ["x"]}
    serializer = Serializer(data=new)
    serializer.is_valid(raise_exception=True)
    assert serializer.save().lookup.username == "one"
    for wrong in ({"multi_picklist": ["no longer"]}, {"lookup": "x"}, {"number": "x"}, {"picklist": "no longer"}):
        assert Serializer(data=new | wrong).is_valid() is False
    assert Serializer(record, new | {"multi_picklist": ["c"]}).is_valid() is False
    assert Serializer(record, new | {"multi_picklist": "b"}).is_valid() is False


def test_stock_serializer_refuses_lists(awkward: None) -> None:
    class Stock(ModelSerializer):
        class Meta:
            model = Everything
            fields = ["multi_picklist", "tags"]

    record = Everything.objects.get(pk=1)
    assert Stock(record).data == {"multi_picklist": ["b", "a"], "tags": "p;q"}
    serializer = Stock(record, {"tags": "p;q"})
    serializer.is_valid(raise_exception=True)
    assert serializer.save().tags == ["p", "q"]
    assert Stock(record, {"multi_picklist": ["b", "a"]}).is_valid() is False


@pytest.mark.parametrize("base", [ModelResource, HerokuConnectModelResource])
def test_imported_export_changes_nothing(awkward: None, base: type[ModelResource]) -> None:
    resource = modelresource_factory(Everything, resource_class=base)()
    data = resource.export(Everything.objects.order_by("pk"))
    before = rows()
    assert data["multi_picklist"][:3] == ["b;a", "a;no longer", "no longer"]
    result = resource.import_data(data.load(data.export("csv"), "csv"))
    assert not result.has_errors(), [str(error.error) for error in result.rows[0].errors]
    changed = {column for _, column in different(before)}
    assert changed == set() if base is HerokuConnectModelResource else "multi_picklist__c" not in changed


class Filter(django_filters.FilterSet):
    multi_picklist = django_filters.MultipleChoiceFilter(
        lookup_expr="includes", conjoined=True, choices=Everything._meta.get_field("multi_picklist").choices
    )

    class Meta:
        model = Everything
        fields = ["picklist", "tags"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("multi_picklist=a", {1, 2}),
        ("multi_picklist=a&multi_picklist=b", {1}),
        ("tags=p;q", {1}),
        ("picklist=b", {4}),
    ],
)
def test_filter_set_finds_selections(awkward: None, query: str, found: set[int]) -> None:
    result = Filter(QueryDict(query.replace(";", "%3B")), Everything.objects.all())
    assert result.is_valid(), result.errors
    assert {record.pk for record in result.qs} == found


def test_includes_lookup_finds_selections(heroku: HerokuConnect) -> None:
    for value in (["x"], ["x", "y"], ["xy"], None):
        Everything.objects.create(tags=value)

    def found(**wanted: Any) -> list[Any]:
        return [record.tags for record in Everything.objects.filter(**wanted).order_by("pk")]

    assert found(tags__includes="x") == [["x"], ["x", "y"]]
    assert found(tags__includes="x;y") == found(tags__includes=["y", "x"]) == [["x", "y"]]
    assert found(tags__in=[["x"], "xy"]) == [["x"], ["xy"]]
    assert found(tags__isnull=True) == [None]
    assert Everything.objects.exclude(tags__includes="x").count() == 2


FORMS_MODULES = ("models", "serializers", "plain_serializers", "resources", "filters")
"""The modules that the page writes into the app ``crm``."""


@isolate_apps("tests.sfdc")
def test_blocks_of_forms_md_run(heroku: HerokuConnect, capsys: pytest.CaptureFixture[str]) -> None:
    modules = {name: ModuleType(f"tests.sfdc.{name}") for name in FORMS_MODULES}
    vars(modules["models"])["hc_models"] = hc_models
    said: list[str] = []
    with patch.dict(sys.modules, {f"crm.{name}": module for name, module in modules.items()}):
        for block in [block for block in BLOCKS if block.page == "forms.md"]:
            file = re.match(r"# crm/(\w+)\.py", block.code)
            exec(block.code, vars(modules[file[1]]) if file else {"__name__": "page"})
            said += re.findall(r"^print\(.*  # (.*)$", block.code, re.M)
    assert said == capsys.readouterr().out.splitlines()
    site = modules["models"].Site
    heroku.create_table(site)
    serializer = modules["serializers"].SiteSerializer(data={"name": "Harbour", "services": ["gas"]})
    serializer.is_valid(raise_exception=True)
    serializer.save()
    plain = modules["plain_serializers"].PlainSiteSerializer
    for services in (["power", "no longer"], None):
        site.objects.update(services=services)
        again = plain(site.objects.get(), data=plain(site.objects.get()).data)
        assert again.is_valid(), again.errors
        assert again.save().services == services == site.objects.get().services
    site.objects.update(services=["gas"])
    resource = modules["resources"].SiteResource()
    data = resource.export(site.objects.all())
    assert data["services"] == ["gas"]
    for query, count in (("services=gas", 1), ("services=gas&services=power", 0), ("name=Harbour", 1)):
        assert modules["filters"].SiteFilter(QueryDict(query), site.objects.all()).qs.count() == count
    heroku.drop_table(site)
