"""What Django would have done itself: on_delete, post_save and post_delete, for changes that Salesforce makes."""

import uuid
from typing import Any

import pytest
from django.db import models
from django.db.models.signals import post_delete, post_save, pre_delete
from example.crm.models import CompoundModel, Contact, SFObjectModel

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.exceptions import ConfigurationError
from hc_signals.models import Delivery
from hc_signals.testing import HerokuConnect
from hc_signals.worker.loop import Worker
from tests.conftest import deliver
from tests.sfdc.models import Animal, Comment, DatabaseNote, Everything, EverythingProxy, Note, User

KEY = uuid.UUID(int=7)


def test_on_delete_is_left_alone_unless_asked_for(captured: HerokuConnect) -> None:
    (sfid,) = captured.create(User)
    Note.objects.create(set_null_id=sfid, text="x")
    captured.delete(User, sfid)
    deliver()
    assert Note.objects.get().set_null_id == sfid


def test_every_on_delete(captured: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
    (sfid,) = captured.create(User)
    for relation in ("set_null", "set_default", "protect", "restrict", "nothing"):
        Note.objects.create(**{f"{relation}_id": sfid, "text": relation})
    captured.delete(User, sfid)
    deliver(APPLY_ON_DELETE=True)
    notes = {note.text: note for note in Note.objects.all()}
    assert len(notes) == 5
    assert notes["set_null"].set_null_id is None
    assert notes["set_default"].set_default_id == "fallback"
    assert notes["protect"].protect_id == notes["restrict"].restrict_id == notes["nothing"].nothing_id == sfid
    assert "1 row(s) of sfdc.Note point at a deleted record of sfdc.User and say PROTECT" in caplog.text
    assert "and say RESTRICT" in caplog.text
    assert Delivery.objects.count() == 0


def test_rules_of_the_database_are_applied(captured: HerokuConnect) -> None:
    (sfid,) = captured.create(User)
    for relation in ("set_null", "set_default", "cascade"):
        DatabaseNote.objects.create(**{f"{relation}_id": sfid, "text": relation})
    DatabaseNote.objects.create(text="stays")
    Note.objects.create(set_null_id=sfid, text="of Django")
    captured.delete(User, sfid)
    deliver(APPLY_ON_DELETE=True)
    notes = {note.text: note for note in DatabaseNote.objects.all()}
    assert notes.keys() == {"set_null", "set_default", "stays"}
    assert notes["set_null"].set_null_id is None
    default = "of the database" if hasattr(models, "DB_SET_DEFAULT") else "of Django"
    assert notes["set_default"].set_default_id == default
    assert Note.objects.get().set_null_id is None, "the other relations are applied as well"
    assert Delivery.objects.count() == 0


def test_cascade_goes_on_in_django_and_tells_its_signals(captured: HerokuConnect, connect: Any) -> None:
    gone: list[str] = []
    connect(pre_delete, lambda instance, **kwargs: gone.append(type(instance).__name__), Note)
    connect(pre_delete, lambda instance, **kwargs: gone.append(type(instance).__name__), Comment)
    (sfid,) = captured.insert(Animal, external_id=KEY, name="Rex")
    note = Note.objects.create(cascade_id=KEY, text="goes")
    Comment.objects.create(note=note)
    Note.objects.create(text="stays")
    captured.delete(Animal, sfid)
    deliver(APPLY_ON_DELETE=["sfdc.Animal"])
    assert [note.text for note in Note.objects.all()] == ["stays"]
    assert Comment.objects.count() == 0
    assert sorted(gone) == ["Comment", "Note"]


def test_the_django_half_of_a_compound_model_goes_with_its_record(captured: HerokuConnect, connect: Any) -> None:
    told: list[str] = []
    connect(signals.record_deleted, lambda instance, **kwargs: told.append(instance.more_data), CompoundModel)
    (sfid,) = captured.insert(SFObjectModel, external_id=KEY, data="a")
    CompoundModel(hc_model_id=KEY, more_data="ours").save_base(raw=True)
    captured.delete(SFObjectModel, sfid)
    assert CompoundModel._base_manager.values_list("hc_model_id").count() == 1
    deliver(APPLY_ON_DELETE=True)
    assert CompoundModel._base_manager.values_list("hc_model_id").count() == 0
    assert told == ["ours"], "it heard of the deletion before it went"


def test_only_the_chosen_models_and_wrong_labels_are_named(captured: HerokuConnect) -> None:
    (sfid,) = captured.create(User)
    Note.objects.create(set_null_id=sfid, text="x")
    captured.delete(User, sfid)
    deliver(APPLY_ON_DELETE=["sfdc.Animal"])
    assert Note.objects.get().set_null_id == sfid
    for key in ("APPLY_ON_DELETE", "DJANGO_SIGNALS"):
        with pytest.raises(ConfigurationError, match=f"{key}'] names 'sfdc.Nope', which is no connected model; conn"):
            Worker("default", Conf(**{key: ["sfdc.Nope"]}))
        with pytest.raises(ConfigurationError, match="expected True, False or a list of model labels"):
            Conf(**{key: "sfdc.User"})


def test_djangos_own_signals(captured: HerokuConnect, connect: Any) -> None:
    got: list[Any] = []

    def on_save(sender: Any, instance: Any, signal: Any, **named: Any) -> None:
        names = ("created", "raw", "update_fields", "using")
        got.append((sender, instance.username, *(named[name] for name in names)))

    connect(post_save, on_save, User)
    connect(post_delete, lambda sender, instance, using, **kwargs: got.append((sender, instance.username)), User)
    (sfid,) = captured.insert(User, username="one")
    captured.update(User, sfid, username="two")
    captured.delete(User, sfid)
    deliver(CONSUMER="without")
    assert got == []
    deliver(DJANGO_SIGNALS=["sfdc.User"])
    assert got == [
        (User, "one", True, False, None, "default"),
        (User, "two", False, False, frozenset({"username"}), "default"),
        (User, "two"),
    ]


def test_a_receiver_that_saves_is_not_called_again(captured: HerokuConnect, connect: Any) -> None:
    calls: list[str] = []

    def on_save(instance: Contact, created: bool, **kwargs: Any) -> None:
        calls.append(instance.last_name)
        if len(calls) < 10 and instance.last_name != instance.last_name.upper():
            Contact.objects.filter(pk=instance.pk).update(last_name=instance.last_name.upper())

    connect(post_save, on_save, Contact)
    captured.insert(Contact, last_name="Ada")
    deliver(DJANGO_SIGNALS=True)
    deliver(DJANGO_SIGNALS=True)
    captured.send_app_writes()
    captured.echo(Contact)
    deliver(DJANGO_SIGNALS=True)
    assert calls == ["Ada"]


def test_a_raising_post_save_receiver_harms_nobody_else(captured: HerokuConnect, connect: Any) -> None:
    got: list[str] = []

    def bad(**kwargs: Any) -> None:
        raise ValueError("no")

    connect(post_save, bad, User)
    connect(post_save, lambda instance, **kwargs: got.append(instance.username), User)
    captured.insert(User, username="one")
    deliver(DJANGO_SIGNALS=True)
    assert got == ["one"]
    assert [d.error.splitlines()[0] for d in Delivery.objects.all()] == ["ValueError: no"]


def test_a_receiver_of_every_sender_hears_once(captured: HerokuConnect, connect: Any) -> None:
    got: list[Any] = []
    connect(post_save, lambda sender, **kwargs: got.append(sender))
    connect(post_save, lambda sender, **kwargs: got.append(sender), EverythingProxy)
    captured.create(Everything)
    deliver(DJANGO_SIGNALS=True)
    from example.crm.models import Seen

    assert [sender for sender in got if sender is not Seen] == [Everything, EverythingProxy]


def test_linked_and_refused_app_writes(captured: HerokuConnect, connect: Any) -> None:
    got: list[Any] = []
    changed: list[Any] = []
    connect(signals.record_linked, lambda instance, **kwargs: got.append(("linked", instance.sf_id)), Contact)
    connect(signals.sync_failed, lambda message, instance, **kw: got.append((message, instance.last_name)), Contact)
    connect(signals.record_changed, lambda event, **kwargs: changed.append(event.changed_fields), Contact)
    row = captured.app_insert(Contact, last_name="Ada", external_id=KEY)
    captured.send_app_writes()
    deliver()
    (sfid,) = captured.sfids(Contact)
    assert got == [("linked", sfid)]
    captured.echo(Contact)
    deliver()
    changed.clear()
    captured.app_update(Contact, row, last_name="Zed")
    captured.send_app_writes(refuse="REQUIRED_FIELD_MISSING")
    deliver()
    assert got[1:] == [('{"msg": "REQUIRED_FIELD_MISSING"}', "Zed")]
    assert changed == []
    captured.update(Contact, sfid, last_name="Salesforce's", email="a@b.example")
    deliver()
    assert changed == [("last_name", "email")]


def test_the_sfid_may_first_come_with_an_echo_that_changes_something(captured: HerokuConnect, connect: Any) -> None:
    got: list[Any] = []
    connect(signals.record_linked, lambda instance, **kwargs: got.append(instance.sf_id), Contact)
    connect(signals.record_updated, lambda event, **kwargs: got.append(event.changed_fields), Contact)
    captured.app_insert(Contact, last_name="Ada", external_id=KEY)
    sfid = "003000000000001AAA"
    captured.poll(Contact, [{"sf_id": sfid, "external_id": KEY, "last_name": "Ada", "email": "x@example.com"}])
    deliver()
    assert got == [sfid, ("email",)]
