"""Where connected models are better than those of django-heroku-connect: its known bugs as regression tests."""

import subprocess
import sys
from typing import Any

import pytest
from django.db import models
from django.test.utils import isolate_apps

from hc_signals import signals
from hc_signals.capture import triggers
from hc_signals.conf import Conf
from hc_signals.db import models as hc_models
from hc_signals.testing import HerokuConnect
from hc_signals.worker.loop import Worker


@isolate_apps("tests.sfdc")
def test_children_of_an_abstract_model_keep_meta() -> None:
    class Base(hc_models.HerokuConnectModel):
        class Meta:
            app_label = "sfdc"
            abstract = True
            ordering = ("-system_mod_stamp",)
            get_latest_by = "system_mod_stamp"

    class Child(Base):
        sf_object_name = "Child__c"

    assert Child._meta.ordering == ("-system_mod_stamp",)
    assert Child._meta.get_latest_by == "system_mod_stamp"
    assert Child._meta.app_label == "sfdc"
    assert Child._meta.db_table == 'salesforce"."child__c'
    assert Child._meta.managed is False


@isolate_apps("tests.sfdc")
def test_inherited_meta_and_object_name_give_a_table() -> None:
    class Base(hc_models.HerokuConnectModel):
        sf_object_name = "Shared__c"

        class Meta:
            app_label = "sfdc"
            abstract = True

    class Plain(Base):
        pass

    class WithMeta(Base):
        sf_object_name = "Other__c"

        class Meta(Base.Meta):
            verbose_name = "other"

    assert Plain._meta.db_table == 'salesforce"."shared__c'
    assert WithMeta._meta.db_table == 'salesforce"."other__c'


@isolate_apps("tests.sfdc")
def test_abstract_user_model_has_a_child() -> None:
    class BaseUser(hc_models.HerokuConnectModel):
        sf_object_name = "User"

        class Meta:
            app_label = "sfdc"
            abstract = True

    class Person(BaseUser):
        username = hc_models.Text(sf_field_name="Username", max_length=80)

    assert "is_deleted" not in {field.name for field in Person._meta.get_fields()}
    assert not hasattr(Person(), "is_deleted")
    assert Person().username is None


@isolate_apps("tests.sfdc")
def test_explicit_options_override_defaults() -> None:
    class Own(hc_models.HerokuConnectModel):
        sf_object_name = "Own__c"

        class Meta:
            app_label = "sfdc"
            db_table = 'elsewhere"."own'
            managed = True

    assert Own._meta.db_table == 'elsewhere"."own'
    assert Own._meta.managed is False, "Heroku Connect owns its tables, whatever is said"
    assert Own.get_heroku_connect_table_name() == "own"


def test_models_import_without_the_app() -> None:
    script = (
        "from django.conf import settings; settings.configure(INSTALLED_APPS=[]); import django; django.setup(); "
        "from hc_signals.db import models as hc_models; print(hc_models.HerokuConnectModel.sf_access)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "read_only\n", done.stderr


@pytest.mark.parametrize("object_name", ["X" * 67 + "__c", "Order", "Группа__c", "select"])
def test_awkward_object_names_are_captured(heroku: HerokuConnect, connect: Any, object_name: str) -> None:
    with isolate_apps("tests.sfdc"):
        meta = type("Meta", (), {"app_label": "sfdc"})
        name = hc_models.Text(sf_field_name="Name", max_length=80)
        body = {"__module__": __name__, "Meta": meta, "sf_object_name": object_name, "name": name}
        model: Any = type("Awkward", (hc_models.HerokuConnectModel,), body)
    got: list[tuple[str, str]] = []
    connect(signals.record_changed, lambda event, instance, **kw: got.append((event.change_type, instance.name)), model)
    simulator = HerokuConnect(models=[model])
    simulator.create_tables()
    assert triggers.install(model, "default").state == "installed"
    (sfid,) = simulator.insert(model, name="a")
    simulator.update(model, sfid, name="b")
    simulator.delete(model, sfid)
    Worker("default", Conf(), [model]).deliver_once()
    assert got == [("CREATE", "a"), ("UPDATE", "b"), ("DELETE", "b")]
    triggers.uninstall(model, "default")
    assert triggers.status(model, "default").state == "missing"


@isolate_apps("tests.sfdc")
def test_upsert_field_without_unique_is_an_error() -> None:
    class Loose(hc_models.HerokuConnectModel):
        sf_object_name = "Loose__c"
        sf_access = hc_models.READ_WRITE
        external_id = hc_models.ExternalID(sf_field_name="External_ID__c", unique=False)

        class Meta:
            app_label = "sfdc"

    (error,) = Loose.check()
    assert (error.id, error.msg) == ("hc_signals.E003", "sfdc.Loose.external_id is an upsert field that is not unique.")


def test_plain_child_of_a_connected_model_is_managed() -> None:
    from tests.sfdc.models import Kennel

    assert Kennel._meta.managed is True
    assert Kennel._meta.db_table == "sfdc_kennel"
    assert isinstance(Kennel._meta.pk, models.OneToOneField)
