"""The trigger log as models: rows of the app's writes, capture of a record, redo of a refused write."""

import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import FieldDoesNotExist
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from example.crm.models import Contact

from hc_signals import models
from hc_signals.heroku.trigger_log.words import TriggerLogAction, TriggerLogState, WriteAlgorithm
from hc_signals.models import TriggerLog, TriggerLogArchive
from hc_signals.postgres.hstore import hstore_text_to_dict
from hc_signals.postgres.moments import aware, shown
from hc_signals.signals import record_changed, sync_failed
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, as_the_app, deliver
from tests.sfdc.models import Animal, Dog, User

ROOT = Path(__file__).parent.parent
BOTH = pytest.mark.parametrize("log_model", [TriggerLog, TriggerLogArchive])
KEY = "0123456789abcdef0123456789abcdef"


def archive(log: TriggerLog) -> TriggerLogArchive:
    """Move a row to the archive, as Heroku Connect does after it has sent the write."""
    as_heroku_connect(
        "WITH gone AS (DELETE FROM salesforce._trigger_log WHERE id = %s RETURNING *) "
        "INSERT INTO salesforce._trigger_log_archive SELECT * FROM gone",
        [log.pk],
    )
    return TriggerLogArchive.objects.get(pk=log.pk)


def failed_log(heroku: HerokuConnect, action: str = "UPDATE") -> TriggerLog:
    """Return the row of a write that Salesforce refused."""
    row = heroku.app_insert(Contact, last_name="Ada", email="ada@example.com", external_id=KEY)
    if action != "INSERT":
        heroku.send_app_writes()
        TriggerLog.objects.all().delete()
        if action == "UPDATE":
            heroku.app_update(Contact, row, last_name="Grace")
        else:
            as_the_app("DELETE FROM salesforce.contact")
    heroku.send_app_writes(refuse="REQUIRED_FIELD_MISSING")
    return TriggerLog.objects.get(action=action)


# -- the models --------------------------------------------------------------------------------------------------------


@BOTH
def test_models_have_their_options_and_fields(log_model: Any) -> None:
    opts = log_model._meta
    name = {TriggerLog: "_trigger_log", TriggerLogArchive: "_trigger_log_archive"}[log_model]
    assert (opts.db_table, opts.managed) == (f'salesforce"."{name}', False)
    assert (opts.ordering, opts.get_latest_by, opts.app_label) == (("id",), "created_at", "hc_signals")
    assert {field.name for field in opts.fields} == {
        *("id", "txid", "created_at", "updated_at", "processed_at", "table_name", "record_id", "sf_id"),
        *("action", "state", "sf_message", "values", "old"),
    }
    assert opts.get_field("sf_id").column == "sfid"
    assert [f.name for f in opts.fields if f.editable and not f.primary_key] == ["state"]
    assert log_model.is_archived is (log_model is TriggerLogArchive)


def test_constants_have_django_heroku_connects_values() -> None:
    states = ["SUCCESS", "MERGED", "IGNORED", "FAILED", "READONLY", "NEW", "IGNORE", "PENDING", "REQUEUE", "REQUEUED"]
    assert {name: str(models.TRIGGER_LOG_STATE[name]) for name in states} == {name: name for name in states}
    assert len(models.TRIGGER_LOG_STATE) == 10
    assert sorted(models.TRIGGER_LOG_ACTION) == ["DELETE", "INSERT", "UPDATE"]
    for choices in (models.TRIGGER_LOG_STATE_CHOICES, models.TRIGGER_LOG_ACTION_CHOICES):
        assert choices == sorted(choices)
    assert models.TRIGGER_LOG_STATE.FAILED == "FAILED"


def test_row_of_heroku_connect_is_read(heroku: HerokuConnect) -> None:
    before = datetime.datetime.now(datetime.UTC)
    log = failed_log(heroku)
    assert TriggerLog.objects.latest() == log
    assert (log.action, log.state, log.table_name) == (TriggerLogAction.UPDATE, TriggerLogState.FAILED, "contact")
    assert log.sf_message == "REQUIRED_FIELD_MISSING"
    assert log.sf_id == heroku.sfids(Contact)[0]
    assert log.record_id == Contact.objects.get().pk
    assert log.txid and log.created_at and aware(log.created_at) >= before
    assert log.values_as_dict == {"lastname": "Grace"}
    assert log.old_as_dict["lastname"] == "Ada"
    when = shown(log.created_at)
    assert str(log) == f"#{log.pk} UPDATE contact {log.record_id} [FAILED] [{when}]"


def test_row_without_values_or_date_is_read(heroku: HerokuConnect) -> None:
    log = failed_log(heroku, "DELETE")
    assert log.values is None
    assert log.values_as_dict == {}
    log.created_at = None
    assert str(log).endswith("[no date]")


@BOTH
def test_failed_and_related_find_rows(log_model: Any, heroku: HerokuConnect) -> None:
    new, failed, other_record, other_table = (
        log_model(id=number, action="INSERT", state=state, table_name=table, record_id=record)
        for number, state, table, record in [
            (1, "NEW", "contact", 1),
            (2, "FAILED", "contact", 1),
            (3, "NEW", "contact", 2),
            (4, "FAILED", "account", 1),
        ]
    )
    log_model.objects.bulk_create([new, failed, other_record, other_table])
    assert list(log_model.objects.failed()) == [failed, other_table]
    assert list(log_model.objects.related_to(new)) == [new, failed]
    assert list(log_model.objects.filter(state="FAILED").related_to(new)) == [failed]
    loaded = log_model.objects.get(pk=1)
    assert list(loaded.related()) == [new, failed]
    assert list(loaded.related(exclude_self=True)) == [failed]


@BOTH
def test_get_model_finds_the_connected_model(log_model: Any) -> None:
    assert log_model(table_name="contact").get_model() is Contact
    assert log_model(table_name="user").get_model() is User
    assert log_model(table_name="dog__c").get_model() is Dog
    assert log_model(table_name="gone__c").get_model() is None
    assert log_model(table_name="crm_seen").get_model() is None


# -- capture -----------------------------------------------------------------------------------------------------------


@BOTH
def test_capture_insert_adds_a_row(log_model: Any, heroku: HerokuConnect) -> None:
    sfid = heroku.insert(Contact, last_name="Ada", email="ada@example.com")[0]
    record = Contact.objects.get(sf_id=sfid)
    (log,) = log_model.capture_insert_from_model("contact", record.pk)
    assert type(log) is TriggerLog
    assert (log.action, log.state, log.record_id, log.table_name) == ("INSERT", "NEW", record.pk, "contact")
    assert log.values_as_dict["lastname"] == "Ada"
    assert TriggerLog.objects.get() == log


def test_excluded_fields_are_left_out_by_name(heroku: HerokuConnect) -> None:
    """The name is passed as a value: as an identifier it would be the value of a column of that name."""
    heroku.insert(Contact, last_name="email", email="lastname")
    pk = Contact.objects.get().pk
    (log,) = TriggerLog.capture_insert_from_model("contact", pk, exclude_fields=["last_name", "sf_id", "id"])
    assert log.values_as_dict["email"] == "lastname"
    assert "lastname" not in log.values_as_dict
    assert {"id", "sfid"} <= log.values_as_dict.keys()


def test_capture_update_adds_a_row(heroku: HerokuConnect) -> None:
    sfid = heroku.insert(Contact, last_name="Ada", email="ada@example.com")[0]
    pk = Contact.objects.get().pk
    (log,) = TriggerLog.capture_update_from_model("contact", pk)
    assert (log.action, log.state, log.sf_id) == ("UPDATE", "NEW", sfid)
    assert {"lastname", "email", "id", "sfid"} <= log.values_as_dict.keys()
    (log,) = TriggerLog.capture_update_from_model("contact", pk, update_fields=["last_name"])
    assert log.values_as_dict == {"lastname": "Ada"}
    (log,) = TriggerLog.capture_update_from_model("contact", pk, update_columns=("email",))
    assert log.values_as_dict == {"email": "ada@example.com"}
    (log,) = log.capture_update(update_fields=("last_name",), update_columns=("email",))
    assert log.values_as_dict == {"lastname": "Ada", "email": "ada@example.com"}


@BOTH
def test_capture_accepts_an_instance(log_model: Any, heroku: HerokuConnect) -> None:
    heroku.insert(Contact, last_name="Ada", email="ada@example.com")
    log = log_model(table_name="contact", record_id=Contact.objects.get().pk)
    (captured,) = log.capture_insert(exclude_fields=["email"])
    assert captured.values_as_dict["lastname"] == "Ada"
    assert "email" not in captured.values_as_dict
    (captured,) = log.capture_update(update_fields=["email"])
    assert captured.values_as_dict == {"email": "ada@example.com"}


@pytest.mark.parametrize("capture", [TriggerLog.capture_insert_from_model, TriggerLog.capture_update_from_model])
def test_capture_of_a_missing_record_adds_nothing(capture: Any, heroku: HerokuConnect) -> None:
    with pytest.raises(Contact.DoesNotExist, match="no record with id 4711 in contact"):
        capture("contact", 4711)
    with pytest.raises(LookupError, match=r"No connected model has the table salesforce\.gone__c"):
        capture("gone__c", 1)
    assert not TriggerLog.objects.exists()


def test_capture_with_an_unknown_field_is_refused(heroku: HerokuConnect) -> None:
    heroku.create(Contact)
    pk = Contact.objects.get().pk
    with pytest.raises(FieldDoesNotExist, match="nmae"):
        TriggerLog.capture_insert_from_model("contact", pk, exclude_fields=["nmae"])
    with pytest.raises(FieldDoesNotExist, match="nmae"):
        TriggerLog.capture_update_from_model("contact", pk, update_fields=["nmae"])
    with pytest.raises(FieldDoesNotExist, match=r"'contacts' of crm\.Account has no column in account"):
        TriggerLog.capture_update_from_model("account", 1, update_fields=["contacts"])
    assert not TriggerLog.objects.exists()


def test_capture_with_a_field_of_another_table_is_refused(heroku: HerokuConnect) -> None:
    heroku.insert(Animal, external_id=KEY, name="Rex")
    heroku.insert(Dog, animal=KEY, breed="Beagle")
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM salesforce.dog__c")
        pk = cursor.fetchone()[0]
    (log,) = TriggerLog.capture_update_from_model("dog__c", pk, update_fields=["breed", "sf_id"])
    assert log.values_as_dict == {"breed__c": "Beagle", "sfid": heroku.sfids(Dog)[0]}
    with pytest.raises(FieldDoesNotExist, match=r"'name' of sfdc\.Dog has no column in dog__c"):
        TriggerLog.capture_update_from_model("dog__c", pk, update_fields=["name"])


def test_capture_quotes_tables_and_values(heroku: HerokuConnect) -> None:
    name = 'O"Brien\\, \'x\' => NULL,\n"a"=>"b" %s'
    heroku.insert(User, username=name)
    (log,) = TriggerLog.capture_insert_from_model("user", User.objects.get().pk)
    assert log.table_name == "user"
    assert log.values_as_dict["username"] == name
    with pytest.raises(LookupError):
        TriggerLog.capture_insert_from_model('user" t; DROP TABLE salesforce.user; --', 1)


def test_capture_reads_a_column_named_as_the_alias(heroku: HerokuConnect) -> None:
    heroku.insert(User, username="ada")
    heroku.add_column(User, "t")
    (log,) = TriggerLog.capture_insert_from_model("user", User.objects.get().pk)
    assert log.values_as_dict["t"] is None


HSTORE_MOVES = {
    True: ["ALTER EXTENSION hstore SET SCHEMA heroku_ext"],
    False: [
        "ALTER FUNCTION public.hstore(anyelement) SET SCHEMA heroku_ext",
        "ALTER FUNCTION public.hstore_to_jsonb(public.hstore) SET SCHEMA heroku_ext",
        "ALTER DOMAIN public.hstore SET SCHEMA heroku_ext",
    ],
}


def test_capture_finds_hstore_in_another_schema(heroku: HerokuConnect) -> None:
    """With the real extension if the server has it, else with the replacement."""
    heroku.insert(Contact, last_name="Ada")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'hstore')")
        for move in ["CREATE SCHEMA heroku_ext", *HSTORE_MOVES[cursor.fetchone()[0]]]:
            cursor.execute(move)
        cursor.execute("SET LOCAL search_path = public, heroku_ext")
        (log,) = TriggerLog.capture_insert_from_model("contact", Contact.objects.get().pk)
        assert log.values_as_dict["lastname"] == "Ada"
        transaction.set_rollback(True)


def test_capture_is_rolled_back_with_its_transaction(heroku: HerokuConnect) -> None:
    heroku.create(Contact)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        TriggerLog.capture_update_from_model("contact", Contact.objects.get().pk)
        raise ZeroDivisionError
    assert not TriggerLog.objects.exists()


# -- redo --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archived", [False, True])
def test_redo_captures_an_insert_with_ordered_writes(heroku: HerokuConnect, archived: bool) -> None:
    log: Any = failed_log(heroku, "INSERT")
    heroku.app_update(Contact, log.record_id, last_name="Grace")
    log = archive(log) if archived else log
    again = log.redo()
    assert type(again) is TriggerLog
    assert (again.action, again.state, again.record_id) == ("INSERT", "NEW", log.record_id)
    assert again.values_as_dict["lastname"] == "Grace", "the values of now"
    log.refresh_from_db()
    assert log.state == "REQUEUED"
    assert heroku.send_app_writes() == 2


@pytest.mark.parametrize("archived", [False, True])
def test_redo_captures_the_same_columns_with_ordered_writes(heroku: HerokuConnect, archived: bool) -> None:
    log: Any = failed_log(heroku)
    log = archive(log) if archived else log
    again = log.redo(WriteAlgorithm.ORDERED_WRITES)
    assert type(again) is TriggerLog
    assert (again.action, again.state, again.sf_id) == ("UPDATE", "NEW", log.sf_id)
    assert again.values_as_dict == {"lastname": "Grace"}
    log.refresh_from_db()
    assert log.state == "REQUEUED"


@pytest.mark.parametrize(
    ("action", "write_algorithm"),
    [
        ("INSERT", WriteAlgorithm.MERGE_WRITES),
        ("UPDATE", WriteAlgorithm.MERGE_WRITES),
        ("DELETE", WriteAlgorithm.MERGE_WRITES),
        ("DELETE", WriteAlgorithm.ORDERED_WRITES),
    ],
)
def test_redo_renews_the_row(heroku: HerokuConnect, action: str, write_algorithm: WriteAlgorithm) -> None:
    log = failed_log(heroku, action)
    count = TriggerLog.objects.count()
    assert log.redo(write_algorithm=write_algorithm) is log
    log.refresh_from_db()
    assert (log.state, TriggerLog.objects.count()) == ("NEW", count)

    log.set_state(TriggerLogState.FAILED)
    archived = archive(log)
    again = archived.redo(write_algorithm=write_algorithm)
    assert type(again) is TriggerLog
    again.refresh_from_db()
    for name in ("txid", "created_at", "table_name", "record_id", "sf_id", "action", "values", "old"):
        assert getattr(again, name) == getattr(archived, name), name
    assert (again.state, again.sf_message, again.processed_at) == ("NEW", None, None)
    assert again.pk != archived.pk
    archived.refresh_from_db()
    assert (archived.state, archived.sf_message) == ("REQUEUED", "REQUIRED_FIELD_MISSING")


@pytest.mark.parametrize("write_algorithm", list(WriteAlgorithm))
@pytest.mark.parametrize("archived", [False, True])
def test_sync_failed_is_sent_for_a_second_refusal(
    captured: HerokuConnect, connect: Any, write_algorithm: WriteAlgorithm, archived: bool
) -> None:
    """Heroku Connect's status trigger turns a second FAILED into SYNCED, so redo() writes PENDING in between."""
    heard: list[str] = []
    connect(sync_failed, lambda message, **kwargs: heard.append(json.loads(message)["msg"]), Contact)
    changed: list[Any] = []
    connect(record_changed, lambda event, **kwargs: changed.append(event), Contact)
    log: Any = failed_log(captured)
    deliver()
    log = archive(log) if archived else log
    log.redo(write_algorithm)
    assert deliver() == 0, "it is bookkeeping, and no change of the record"
    assert TriggerLog.objects.filter(state="NEW").count() == 1, "and no write of the app"
    captured.send_app_writes(refuse="STILL MISSING")
    deliver()
    assert (heard, changed) == (["REQUIRED_FIELD_MISSING", "STILL MISSING"], [])
    assert list(Contact.objects.values_list("_hc_lastop", flat=True)) == ["FAILED"]
    with connection.cursor() as cursor:
        cursor.execute("SHOW xmlbinary")
        assert cursor.fetchone()[0] == "base64"


def test_redo_changes_only_a_failed_record(heroku: HerokuConnect) -> None:
    log = failed_log(heroku)
    as_heroku_connect("UPDATE salesforce.contact SET _hc_lastop = 'UPDATED'")
    log.redo()
    assert list(Contact.objects.values_list("_hc_lastop", flat=True)) == ["UPDATED"]


def test_redo_with_merged_writes_needs_no_table(heroku: HerokuConnect) -> None:
    log = failed_log(heroku)
    TriggerLog.objects.update(table_name="gone__c")
    log.refresh_from_db()
    assert log.redo(WriteAlgorithm.MERGE_WRITES).state == "NEW"


def test_redo_of_an_empty_update_updates_no_column(heroku: HerokuConnect) -> None:
    log = failed_log(heroku)
    TriggerLog.objects.update(values="")
    log.refresh_from_db()
    assert log.redo() is log
    assert TriggerLog.objects.get().state == "NEW"


def test_redo_changes_nothing_if_the_record_is_gone(heroku: HerokuConnect) -> None:
    log = failed_log(heroku)
    as_heroku_connect("DELETE FROM salesforce.contact")
    with pytest.raises(Contact.DoesNotExist):
        log.redo()
    log.refresh_from_db()
    assert log.state == "FAILED"


def test_redo_refuses_a_row_that_was_archived(heroku: HerokuConnect) -> None:
    log = failed_log(heroku)
    archive(log)
    with pytest.raises(TriggerLog.DoesNotExist):
        log.redo()
    with pytest.raises(DatabaseError):
        log.set_state(TriggerLogState.IGNORED)
    assert not TriggerLog.objects.exists()


def test_redo_writes_the_state_alone(heroku: HerokuConnect) -> None:
    log = failed_log(heroku)
    TriggerLog.objects.update(sf_message="newer")
    log.redo(WriteAlgorithm.MERGE_WRITES)
    assert TriggerLog.objects.get().sf_message == "newer"


# -- hstore ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, {}),
        ("", {}),
        ('""=>""', {"": ""}),
        ('"a"=>"1", "b"=>NULL', {"a": "1", "b": None}),
        ('"a"=>"NULL"', {"a": "NULL"}),
        ('"a"=>"1, 2", "b"=>"x\ny"', {"a": "1, 2", "b": "x\ny"}),
        (r'"q\"k"=>"v\"w", "b\\"=>"\\\\"', {'q"k': 'v"w', "b\\": "\\\\"}),
        (r'"a"=>"\"b\"=>\"c\", "', {"a": '"b"=>"c", '}),
        (' "a" => null , "ü"=>"日本" ', {"a": None, "ü": "日本"}),
    ],
)
def test_hstore_text_is_parsed(text: str | None, expected: dict[str, str | None]) -> None:
    assert hstore_text_to_dict(text) == expected


@pytest.mark.parametrize("text", ["a", '"a"', '"a"=>', '"a"=>"1",', '"a"=>"1" "b"=>"2"', '"a"=>"1', ",", '"a"=>NULLx'])
def test_text_that_is_no_hstore_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at character"):
        hstore_text_to_dict(text)


def test_long_hstore_is_parsed_quickly() -> None:
    text = '"a"=>"' + '\\\\\\"x' * 300_000 + '"'
    assert len(str(hstore_text_to_dict(text)["a"])) == 900_000
    with pytest.raises(ValueError, match="at character 0"):
        hstore_text_to_dict(text[:-1])


# -- settings and documentation ----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_makemigrations_finds_no_changes() -> None:
    call_command("makemigrations", "hc_signals", check=True, dry_run=True, verbosity=0)


OTHER_SCHEMA = """
from tests.settings import *
HEROKU_CONNECT_SCHEMA = "user"
"""
PROBE = """
import django; django.setup()
from django.core.management import call_command
from django.db import connection, transaction
from hc_signals.models import TriggerLog, TriggerLogArchive
from hc_signals.testing import HerokuConnect
from tests.sfdc.models import User
print(TriggerLog._meta.db_table, TriggerLogArchive._meta.db_table)
call_command("makemigrations", "hc_signals", check=True, dry_run=True)
with transaction.atomic():
    heroku = HerokuConnect(models=[User])
    heroku.create_tables()
    heroku.insert(User, username="ada")
    log, = TriggerLog.capture_update_from_model("user", User.objects.get().pk, update_fields=["username"])
    print(log.redo().values_as_dict)
    transaction.set_rollback(True)
"""


def test_schema_may_be_a_reserved_word(tmp_path: Path) -> None:
    """The class reads the setting when it is created, so the test needs its own process."""
    (tmp_path / "other_schema.py").write_text(OTHER_SCHEMA)
    path = os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "example")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE],
        env=os.environ | {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "other_schema"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first == 'user"."_trigger_log user"."_trigger_log_archive'
    assert last == "{'username': 'ada'}"


def test_examples_of_the_docs_run(heroku: HerokuConnect) -> None:
    log = failed_log(heroku)
    names: dict[str, Any] = {"record_id": log.record_id}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "trigger-log.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(block, names)
    assert TriggerLog.objects.get(pk=log.pk).state == "REQUEUED"
