"""The examples of the models page, unchanged, and the sentences around them."""

import pytest
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.test import override_settings
from django.test.utils import isolate_apps

from hc_signals.db import models as hc_models


@isolate_apps("tests")
def test_custom_object_has_its_mapping() -> None:
    class MyCustomObject(hc_models.HerokuConnectModel):
        sf_object_name = "My_Custom_Object__c"
        custom_date = hc_models.DateTime(sf_field_name="Custom_Date__c")

        class Meta:
            app_label = "tests"

    assert MyCustomObject._meta.managed is False
    assert MyCustomObject._meta.db_table == 'salesforce"."my_custom_object__c'
    assert MyCustomObject.get_heroku_connect_table_name() == "my_custom_object__c"
    assert MyCustomObject.sf_access == hc_models.READ_ONLY == "read_only"
    assert MyCustomObject.sf_notify_enabled is False
    assert MyCustomObject.sf_polling_seconds == 600
    assert MyCustomObject._meta.get_field("custom_date").column == "custom_date__c"


@isolate_apps("tests")
@override_settings(HEROKU_CONNECT_SCHEMA="org")
def test_schema_comes_from_the_setting() -> None:
    class Lead(hc_models.HerokuConnectModel):
        sf_object_name = "Lead"

        class Meta:
            app_label = "tests"

    assert Lead._meta.db_table == 'org"."lead'


@isolate_apps("tests")
def test_user_has_no_is_deleted() -> None:
    class User(hc_models.HerokuConnectModel):
        sf_object_name = "User"

        class Meta:
            app_label = "tests"

    with pytest.raises(FieldDoesNotExist):
        User._meta.get_field("is_deleted")
    assert not hasattr(User(), "is_deleted")


def test_missing_table_name_raises_lookup_error() -> None:
    with pytest.raises(LookupError):
        hc_models.HerokuConnectModel.get_heroku_connect_table_name()


@isolate_apps("tests")
def test_mixin_and_compound_model_work() -> None:
    class ExternalIDModelMixin(hc_models.HerokuConnectModel):
        sf_access = hc_models.READ_WRITE
        external_id = hc_models.ExternalID(sf_field_name="External_ID__c")

        class Meta:
            app_label = "tests"
            abstract = True

    class SFObjectModel(ExternalIDModelMixin):
        sf_object_name = "My_Object__c"
        data = hc_models.Text(sf_field_name="Data__c", max_length=80)

        class Meta:
            app_label = "tests"

    class CompoundModel(SFObjectModel):
        hc_model = models.OneToOneField(
            SFObjectModel, on_delete=models.CASCADE, to_field="external_id", parent_link=True, db_constraint=False
        )
        more_data = models.TextField()

        class Meta:
            app_label = "tests"
            managed = True

    assert SFObjectModel._meta.db_table == 'salesforce"."my_object__c'
    assert SFObjectModel.sf_access == "read_write"
    assert SFObjectModel._meta.managed is False
    assert CompoundModel._meta.managed is True
    assert CompoundModel._meta.db_table == "tests_compoundmodel"
    assert [f.name for f in CompoundModel._meta.local_concrete_fields] == ["hc_model", "more_data"]
