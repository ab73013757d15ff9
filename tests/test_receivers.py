"""@on_change: which receivers are called, under which name failures are stored, what is refused at import."""

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from example.crm.models import Account, CompoundModel, Contact, Seen, SFObjectModel

from hc_signals.delivery.connections import connections_of
from hc_signals.delivery.identity import receiver_path
from hc_signals.delivery.listeners import Extras, Listeners
from hc_signals.events import ChangeEvent
from hc_signals.exceptions import ConfigurationError
from hc_signals.receivers import on_change
from hc_signals.signals import record_created
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, deliver
from tests.sfdc.models import EverythingProxy

pytestmark = pytest.mark.usefixtures("disconnected")

ROOT = Path(__file__).parent.parent


class Calls(list[str]):
    """A receiver that records the change type and the name of the record of each call."""

    def connect(self, *models: Any, **filters: Any) -> "Calls":
        def note(event: ChangeEvent[Any], **kwargs: Any) -> None:
            self.append(f"{event.change_type} {event.instance.name}")

        for model in models:
            on_change(model, **filters)(note)
        return self


def test_filters(captured: HerokuConnect) -> None:
    everything = Calls().connect(Account)
    fields = Calls().connect(Account, fields=["industry", "annual_revenue"])
    to = Calls().connect(Account, to={"industry": "Retail"})
    both = Calls().connect(Account, to={"industry": "Retail"}, from_={"industry": lambda old: old == "Energy"})
    big = Calls().connect(Account, to={"annual_revenue": lambda value: value is not None and value > 100})
    gone = Calls().connect(Account, types=["DELETE"], from_={"industry": "Retail"})
    never = Calls().connect(Account, types=["DELETE"], to={"industry": "Retail"})
    (sfid,) = captured.insert(Account, name="a", industry="Retail", annual_revenue=50)
    captured.update(Account, sfid, name="b")
    captured.update(Account, sfid, industry="Energy", annual_revenue=500)
    captured.update(Account, sfid, industry="Retail", name="c")
    captured.update(Account, sfid, name="d")
    captured.delete(Account, sfid)
    deliver()
    assert everything == ["CREATE a", "UPDATE b", "UPDATE b", "UPDATE c", "UPDATE d"]
    assert fields == ["CREATE a", "UPDATE b", "UPDATE c"]
    assert to == ["CREATE a", "UPDATE c"]
    assert both == ["UPDATE c"]
    assert big == ["UPDATE b"]
    assert gone == ["DELETE d"]
    assert never == []


def test_relations_are_compared_by_their_key(captured: HerokuConnect) -> None:
    seen: list[Any] = []

    @on_change(Contact, fields=["account"], to={"account": "001A"}, from_={"account": None})
    def linked(instance: Contact, event: ChangeEvent[Contact], **kwargs: Any) -> None:
        seen.append(instance.last_name)

    (sfid,) = captured.insert(Contact, last_name="x")
    captured.update(Contact, sfid, account_id="001A")
    deliver()
    assert seen == ["x"]


def test_several_decorators_on_one_function_call_it_once(captured: HerokuConnect) -> None:
    seen: list[str] = []

    @on_change(Contact)
    @on_change(Account, fields=["name"])
    @on_change(Account, to={"industry": "Retail"})
    def either(event: ChangeEvent[Any], **kwargs: Any) -> None:
        seen.append(event.entity_name + event.change_type)

    (sfid,) = captured.insert(Account, name="a")
    captured.update(Account, sfid, name="b", industry="Retail")
    captured.update(Account, sfid, industry="Retail")
    captured.insert(Contact, last_name="x")
    deliver()
    assert seen == ["AccountCREATE", "AccountUPDATE", "ContactCREATE"]


def test_methods_of_two_objects(captured: HerokuConnect) -> None:
    class Counter:
        count = 0

        def add(self, **kwargs: Any) -> None:
            self.count += 1

    one, two = Counter(), Counter()
    on_change(Account)(one.add)
    on_change(Account)(two.add)
    captured.create(Account)
    deliver()
    assert (one.count, two.count) == (1, 1)


def test_rows_read_again_after_a_gap_reach_their_receiver(captured: HerokuConnect) -> None:
    to, from_ = Calls().connect(Account, to={"industry": "Retail"}), Calls().connect(Account, from_={"name": "old"})
    created = Calls().connect(Account, types=["CREATE"])
    snapshots = Calls().connect(Account, types=["SNAPSHOT"], fields=["name"])
    news = Calls().connect(Account, types=["CREATE", "SNAPSHOT"])
    captured.insert(Account, name="a", industry="Retail")
    names = Listeners(Extras()).names(Account)
    for_all, for_these = None, json.dumps({"receivers": [name for name in names if ".note#" in name]})
    for operation, note in (
        ("GAP_UPDATE", None),
        ("GAP_CREATE", None),
        ("SNAPSHOT", for_all),
        ("SNAPSHOT", for_these),
    ):
        as_heroku_connect(
            "INSERT INTO public.hc_signals_change (table_name, operation, origin, record_key, record_id, new, note) "
            "SELECT table_name, %s, origin, record_key, record_id, new, %s FROM public.hc_signals_log LIMIT 1",
            [operation, note],
        )
    deliver()
    assert to == ["CREATE a", "GAP_UPDATE a", "GAP_CREATE a", "SNAPSHOT a"]
    assert from_ == ["GAP_UPDATE a"]
    assert created == ["CREATE a", "GAP_CREATE a", "SNAPSHOT a"]
    assert snapshots == ["SNAPSHOT a", "SNAPSHOT a"]
    assert news == ["CREATE a", "GAP_CREATE a", "SNAPSHOT a", "SNAPSHOT a"]


def test_proxies_and_children(captured: HerokuConnect) -> None:
    seen: list[str] = []

    @on_change(CompoundModel, fields=["data"])
    @on_change(EverythingProxy, fields=["text"])
    async def note(instance: Any, **kwargs: Any) -> None:
        seen.append(type(instance).__name__)

    key = uuid.uuid4()
    captured.insert(SFObjectModel, external_id=key, data="1")
    CompoundModel(hc_model_id=key, external_id=key, more_data="m").save_base(raw=True)
    captured.create(EverythingProxy._meta.concrete_model, 1)  # type: ignore[arg-type]
    deliver()
    assert sorted(seen) == ["CompoundModel", "EverythingProxy"]


broken = True


def write_then_fail(instance: Account, event: ChangeEvent[Account], using: str, **kwargs: Any) -> None:
    Seen.objects.using(using).create(
        event_id=f"{event.event_id}/{event.attempt}", sequence_number=0, entity_name=instance.name, change_type=""
    )
    if broken:
        raise ValueError("not now")


def test_failure_is_stored_under_the_functions_name(captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    decorated = on_change(Account, fields=["name"])(write_then_fail)
    assert decorated is write_then_fail
    captured.insert(Account, name="a")
    deliver(RETRY_SECONDS=0.01)
    with connection.cursor() as cursor:
        cursor.execute("SELECT receiver, state FROM public.hc_signals_delivery")
        assert cursor.fetchall() == [("tests.test_receivers.write_then_fail", "retry")]
        cursor.execute("UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp()")
    monkeypatch.setattr(sys.modules[__name__], "broken", False)
    deliver()
    (attempt,) = (
        Seen.objects.filter(entity_name="a").exclude(event_id__endswith="/1").values_list("event_id", flat=True)
    )
    assert attempt.endswith("/2")


@pytest.mark.parametrize(
    ("model", "filters", "message"),
    [
        (Account, {"fields": ["nam"]}, "crm.Account has no field of Salesforce 'nam'; did you mean 'name'"),
        (Account, {"to": {"stage": 1}}, "no field of Salesforce 'stage'"),
        (Account, {"from_": {"zzzz": 1}}, "no field of Salesforce 'zzzz'; known: .*industry, .*name"),
        (Account, {"fields": "name"}, r"'name' is one text; expected a list, \['name'\]"),
        (Account, {"fields": ["system_mod_stamp"]}, "'system_mod_stamp' is bookkeeping"),
        (Account, {"types": ["UPDATED"]}, "there is no change type 'UPDATED'; did you mean 'UPDATE'"),
        (CompoundModel, {"fields": ["more_data"]}, "no field of Salesforce 'more_data'"),
        (Seen, {}, "example.crm.models.Seen is not a connected model"),
    ],
)
def test_mistakes_are_refused_at_import(model: Any, filters: Any, message: str) -> None:
    def receiver(**kwargs: Any) -> None: ...

    with pytest.raises(ConfigurationError, match=message):
        on_change(model, **filters)(receiver)
    assert receiver_path(receiver) not in [receiver_path(each.receiver) for each in connections_of(record_created)]
    with pytest.raises(ConfigurationError, match=r"must accept \*\*kwargs"):
        on_change(Account)(lambda instance: None)  # type: ignore[arg-type]
