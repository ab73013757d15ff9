"""Forms keep values that the user did not edit: Django's admin, for every field class and awkward values."""

import uuid
from html.parser import HTMLParser
from typing import Any

import pytest
from django import forms
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User as Login
from django.forms import modelform_factory
from django.test import Client, override_settings
from django.urls import path
from example.crm.models import CompoundModel, SFObjectModel

from hc_signals.admin import ReadOnlyModelAdmin
from hc_signals.testing import HerokuConnect
from tests.awkward import COLUMNS, different, fill, rows
from tests.sfdc.models import Dog, Everything, User

SFID = "005000000000001AAA"
NEW: dict[str, tuple[Any, Any]] = {
    "any_type": ("new", "new"),
    "external_id": (str(uuid.UUID(int=9)), uuid.UUID(int=9).hex),
    "checkbox": ("unknown", None),
    "number": ("8.25", "8.25"),
    "currency": ("8.25", "8.25"),
    "percent": ("8.25", "8.25"),
    "whole": ("8", "8"),
    "date": ("2025-01-02", "2025-01-02"),
    "date_time": (("2025-01-02", "03:04:05"), "2025-01-02T09:04:05"),
    "time": ("03:04:05", "03:04:05"),
    "email": ("new@example.com", "new@example.com"),
    "encrypted": ("new", "new"),
    "phone": ("new", "new"),
    "picklist": ("b", "b"),
    "text": ("new", "new"),
    "text_area": ("new", "new"),
    "text_area_long": ("new", "new"),
    "url": ("example.com", "https://example.com"),
    "integer": ("8", "8"),
    "multi_picklist": (["a"], "a"),
    "tags": (" new ; one;", "new;one"),
    "location_latitude": ("8.25", "8.25"),
    "location_longitude": ("8.25", "8.25"),
    "lookup": (SFID, SFID),
    "master_detail": (SFID, SFID),
}
"""By field: the submitted value, and the stored value after it."""


site = AdminSite("stock")
site.register(Everything)


class ByKey(ModelAdmin):
    raw_id_fields = ("lookup", "master_detail")


class Searched(ModelAdmin):
    autocomplete_fields = ("lookup", "master_detail")
    radio_fields = {"picklist": 1}


class UserAdmin(ReadOnlyModelAdmin):
    search_fields = ("username",)


class Listing(ModelAdmin):
    list_display = ("id", "multi_picklist", "tags", "get_multi_picklist_display", "picklist")
    list_filter = ("multi_picklist", "tags", "picklist")


site.register(User, UserAdmin)


class Editable(ModelAdmin):
    list_display = ("id", *(name for name in NEW if name not in ("currency", "percent")))  # Django cannot list NaN
    list_editable = list_display[1:]


editable = AdminSite("editable")
editable.register(Everything, Editable)
editable.register(CompoundModel)
sites = {"stock": site, "by_key": AdminSite("by_key"), "searched": AdminSite("searched")}
listing = AdminSite("listing")
listing.register(Everything, Listing)
for _name, _admin in (("by_key", ByKey), ("searched", Searched)):
    sites[_name].register(Everything, _admin)
    sites[_name].register(User, UserAdmin)
urlpatterns = [path(f"{each.name}/", each.urls) for each in (*sites.values(), listing, editable)]

UNSENT = ("submit", "file", "button", "checkbox", "radio")
"""Input types that a browser submits only if they are checked."""


class Form(HTMLParser):
    """Reads the data that a browser would submit for a page's form."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.data: dict[str, list[str]] = {}
        self._select = self._textarea = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        name, value = found.get("name") or "", found.get("value") or ""
        if tag == "select":
            self._select = name
        elif tag == "option" and self._select and "selected" in found:
            self.data.setdefault(self._select, []).append(value)
        elif tag == "textarea":
            self._textarea = name
            self.data[name] = [""]
        elif tag == "input" and name and (found.get("type") not in UNSENT or "checked" in found):
            self.data.setdefault(name, []).append(value)

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "textarea":
            text = self.data[self._textarea][0].removeprefix("\n")  # the tag includes the first line end
            self.data[self._textarea] = [text.replace("\r\n", "\n").replace("\n", "\r\n")]
            self._textarea = ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.data[self._textarea][0] += data


@pytest.fixture
def admin(heroku: HerokuConnect) -> Any:
    """A client of the admin, and five rows with the awkward values."""
    fill(heroku)
    client = Client()
    client.force_login(Login.objects.create_superuser("admin"))
    with override_settings(ROOT_URLCONF=__name__):
        yield client


def submit(admin: Client, url: str, /, **changes: Any) -> None:
    page = admin.get(url)
    assert page.status_code == 200
    data = Form(page.content.decode()).data | changes
    answer = admin.post(url, data)
    assert answer.status_code == 302, answer.context["adminform"].form.errors


def test_columns_name_every_editable_field() -> None:
    editable = {field.column for field in Everything._meta.fields if field.editable and not field.primary_key}
    assert editable == set(COLUMNS)


@pytest.mark.parametrize("name", sites)
def test_unchanged_form_changes_nothing(admin: Client, name: str) -> None:
    before = rows()
    for key in {key for key, _ in before}:
        submit(admin, f"/{name}/sfdc/everything/{key}/change/")
    assert different(before) == {}


@pytest.mark.parametrize("name", sites)
def test_changed_field_changes_no_other(admin: Client, name: str) -> None:
    assert NEW.keys() == {field.name for field in Everything._meta.fields if field.column in COLUMNS}
    of_widget = ("lookup", "master_detail", "picklist")
    for number, (field, (submitted, stored)) in enumerate(NEW.items()):
        if name != "stock" and field not in of_widget:
            continue
        key = number % 5 + 1
        before = rows()
        parts = {field: submitted}
        if isinstance(submitted, tuple):
            parts = {f"{field}_{part}": each for part, each in enumerate(submitted)}
        submit(admin, f"/{name}/sfdc/everything/{key}/change/", **parts)
        column = Everything._meta.get_field(field).column
        changed = different(before)
        assert changed.keys() <= {(key, column)}, field
        assert rows()[key, column] == stored, field


def selected(admin: Client, key: int, field: str) -> list[str]:
    page = admin.get(f"/stock/sfdc/everything/{key}/change/").content.decode()
    return Form(page).data.get(field, [])


def test_multi_picklist_is_a_multiple_choice(admin: Client) -> None:
    url = "/stock/sfdc/everything/{}/change/"
    assert selected(admin, 2, "multi_picklist") == ["a", "no longer"]
    submit(admin, url.format(2), multi_picklist=["a", "b", "no longer"])
    assert rows()[2, "multi_picklist__c"] == "a;no longer;b", "what was selected keeps its order"
    submit(admin, url.format(2), multi_picklist=["b", "no longer"])
    assert rows()[2, "multi_picklist__c"] == "no longer;b"
    submit(admin, url.format(2), multi_picklist=[])
    assert rows()[2, "multi_picklist__c"] is None
    assert selected(admin, 1, "tags") == ["p;q"]


@pytest.mark.parametrize("field", ["picklist", "multi_picklist", "lookup", "url", "number"])
def test_form_refuses_an_invalid_new_value(admin: Client, field: str) -> None:
    before = rows()
    for key in (1, 5):
        url = f"/stock/sfdc/everything/{key}/change/"
        answer = admin.post(url, Form(admin.get(url).content.decode()).data | {field: ["no longer"]})
        assert list(answer.context["adminform"].form.errors) == [field]
    assert different(before) == {}


def test_required_field_stays_required() -> None:
    form_class = modelform_factory(Dog, fields=["breed"], widgets={"breed": forms.TextInput()})
    form_class.base_fields["breed"].required = True
    dog = Dog(id=1)
    dog._state.adding = False
    assert form_class({"breed": ""}, instance=dog).errors == {"breed": ["This field is required."]}
    assert form_class({"breed": ""}, instance=Dog()).errors == {"breed": ["This field is required."]}


def test_untouched_field_is_not_in_changed_data(admin: Client) -> None:
    form_class = modelform_factory(Everything, fields="__all__")
    for record in Everything.objects.all():
        data = {bound.html_name: bound.value() for bound in form_class(instance=record)}
        texts = ("text_area", "text_area_long", "any_type", "text", "email")
        assert not set(form_class(data, instance=record).changed_data) & set(texts)
    submit(admin, "/stock/sfdc/everything/1/change/")
    assert LogEntry.objects.get().get_change_message() == "No fields changed."


def test_admin_lists_and_filters_selections(admin: Client) -> None:
    page = admin.get("/listing/sfdc/everything/").content.decode()
    assert 'class="field-multi_picklist">b, a<' in page
    assert 'class="field-tags">p, q<' in page
    assert 'class="field-get_multi_picklist_display">A, no longer<' in page
    found = admin.get("/listing/sfdc/everything/", {"multi_picklist__includes": "a"}).context["cl"]
    assert sorted(each.pk for each in found.result_list) == [1, 2]
    (choice,) = [each for each in found.filter_specs[0].choices(found) if each["selected"]]
    assert choice["display"] == "A"
    found = admin.get("/listing/sfdc/everything/", {"multi_picklist__isnull": "True"}).context["cl"]
    assert [each.pk for each in found.result_list] == [5]
    found = admin.get("/listing/sfdc/everything/", {"multi_picklist__includes": "a", "_facets": "True"})
    assert "A (2)" in found.content.decode()


def test_editable_list_keeps_untouched_values(admin: Client) -> None:
    url, before = "/editable/sfdc/everything/", rows()
    data = Form(admin.get(url).content.decode()).data | {"_save": ["Save"], "action": [""]}
    number = {key: number for number, (key,) in enumerate(data[f"form-{n}-id"] for n in range(5))}["2"]
    for changes in ({}, {f"form-{number}-multi_picklist": ["b", "no longer"]}):
        assert admin.post(url, data | changes).status_code == 302
    assert different(before) == {(2, "multi_picklist__c"): ("a;no longer", "no longer;b")}


def test_admin_saves_and_deletes_compound_records(admin: Client) -> None:
    url = "/editable/crm/compoundmodel/"
    submit(admin, f"{url}add/", data="a", more_data="b")
    record = CompoundModel.objects.get()
    submit(admin, f"{url}{record.pk}/change/", data="a2")
    assert list(CompoundModel.objects.values_list("data", "more_data")) == [("a2", "b")]
    assert admin.post(f"{url}{record.pk}/delete/", {"post": "yes"}).status_code == 302
    assert CompoundModel.objects.count() == SFObjectModel.objects.count() == 0
