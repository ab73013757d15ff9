"""django-simple-history on a connected model and on a compound one: the real package, its own tables."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, models
from django.db.migrations.state import ModelState, ProjectState
from django.test.utils import isolate_apps
from simple_history.models import HistoricalRecords

from hc_signals.db import models as hc_models
from hc_signals.testing import HerokuConnect


def history() -> HistoricalRecords:
    return HistoricalRecords(app="sfdc", history_user_id_field=models.IntegerField(null=True))


@pytest.fixture
def tracked(heroku: HerokuConnect, disconnected: None) -> Iterator[tuple[Any, Any]]:
    """A connected model and its Django-managed child, both with history; with all their tables."""
    with isolate_apps("tests.sfdc"):

        class Tracked(hc_models.HerokuConnectModel):
            sf_object_name = "Tracked__c"
            sf_access = hc_models.READ_WRITE
            external_id = hc_models.ExternalID(sf_field_name="External_ID__c")
            required = hc_models.Text(sf_field_name="Required__c", max_length=80, null=False, unique=False, default="x")
            url = hc_models.URL(sf_field_name="Url__c", max_length=200)
            other = hc_models.Lookup(
                "self", sf_field_name="Other__c", to_field="sf_id", on_delete=models.DO_NOTHING, related_name="+"
            )
            services = hc_models.MultiPicklist(sf_field_name="Services__c", choices=[("a", "A"), ("b", "B")])
            history = history()

            class Meta:
                app_label = "sfdc"

        class TrackedChild(Tracked):
            tracked = models.OneToOneField(
                Tracked, on_delete=models.CASCADE, to_field="external_id", parent_link=True, db_constraint=False
            )
            note = models.TextField()
            history = history()

            class Meta:
                app_label = "sfdc"
                managed = True

        simulator = HerokuConnect(models=[Tracked])
        simulator.create_tables()
        # As migrations make tables: of what the models say about themselves.
        state = ProjectState()
        for model in (Tracked, TrackedChild, Tracked.history.model, TrackedChild.history.model):
            state.add_model(ModelState.from_model(model))
        made = [model for model in state.apps.get_models() if model._meta.managed]
        with connection.schema_editor() as editor:
            for model in made:
                editor.create_model(model)
        yield Tracked, TrackedChild
        with connection.schema_editor() as editor:
            for model in made:
                editor.delete_model(model)
        simulator.drop_table(Tracked)


def test_history_of_a_connected_model(tracked: tuple[Any, Any]) -> None:
    model, _ = tracked
    record = model.objects.create(services=["a"], url="https://example.com", other_id="unknown")
    model.objects.filter(pk=record.pk).update(sf_id="a00000000000001AAA")
    record = model.objects.get()
    for services in (["a", "b"], None):
        record.services = services
        record.save()
    record.delete()
    entries = model.history.order_by("history_id")
    assert [(entry.history_type, entry.services) for entry in entries] == [
        ("+", ["a"]),
        ("~", ["a", "b"]),
        ("~", None),
        ("-", None),
    ]
    assert {entry.other_id for entry in entries} == {"unknown"}
    assert len({entry.external_id for entry in entries}) == 1
    changes = entries[1].diff_against(entries[0]).changed_fields
    assert changes == ["services"]
    assert entries[1].instance.services == ["a", "b"]


def test_history_of_a_compound_model(tracked: tuple[Any, Any]) -> None:
    _, model = tracked
    record = model.objects.create(services=["a"], note="one")
    record.note = "two"
    record.save()
    record.refresh_from_db()
    entries = model.history.order_by("history_id")
    assert [(entry.history_type, entry.note, entry.services) for entry in entries] == [
        ("+", "one", ["a"]),
        ("~", "two", ["a"]),
    ]
    assert {entry.tracked_id for entry in entries} == {record.external_id}
    assert record.history.count() == 2
    record.delete()
    assert model.history.count() == 3
