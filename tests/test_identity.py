"""Each receiver has a name that no other receiver has, whatever path they share."""

import functools
import gc
import json
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models.signals import post_save
from django.dispatch import Signal
from example.crm.models import Account, CompoundModel, SFObjectModel
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.integrations.django.signals_handlers import patch_signals

from hc_signals import signals
from hc_signals.delivery import connections
from hc_signals.delivery.connections import EVERY_SENDER, connected, connections_of
from hc_signals.delivery.listeners import Extras, Listeners
from hc_signals.exceptions import ConfigurationError
from hc_signals.models import Delivery
from hc_signals.receivers import on_change
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, deliver
from tests.sfdc.models import Everything, EverythingProxy

pytestmark = pytest.mark.usefixtures("disconnected")

ROOT = Path(__file__).parent.parent
HERE = "tests.test_identity"


class Box:
    """A receiver that records the change types that it received; ``fails`` makes it raise."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.fails = False

    def take(self, event: Any, **kwargs: Any) -> None:
        self.received.append(event.change_type)
        if self.fails:
            raise ValueError

    def __call__(self, **kwargs: Any) -> None:
        self.take(**kwargs)

    async def wait_and_take(self, **kwargs: Any) -> None:
        self.take(**kwargs)


def put(box: Box, **kwargs: Any) -> None:
    box.take(**kwargs)


def closure_over(box: Box, label: str = "") -> Callable[..., None]:
    def receive(**kwargs: Any) -> None:
        assert isinstance(label, str)
        box.take(**kwargs)

    return receive


KINDS: dict[str, Callable[[Box, str], Any]] = {
    "methods": lambda box, label: box.take,
    "async methods": lambda box, label: box.wait_and_take,
    "instances": lambda box, label: box,
    "partials": lambda box, label: functools.partial(put, box),
    "closures": lambda box, label: closure_over(box),
    "partials that differ": lambda box, label: functools.partial(put, box, label=label),
    "closures that differ": closure_over,
}


def names(signal: str = "record_created", model: Any = Account) -> list[str]:
    """Return the names of this module's receivers, in order of connection."""
    found = [each.name for each in Listeners(Extras()).receivers(signal, model, exclusive=False)]
    return [name for name in found if not name.startswith("example.")]


def fail_once(captured: HerokuConnect, box: Box) -> None:
    """Deliver a change on which the box fails; it does not fail again."""
    box.fails = True
    captured.insert(Account, name="a")
    deliver()
    box.fails = False
    make_due()


def make_due() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp() WHERE state = 'retry'"
        )


@pytest.fixture(params=[None, False, True], ids=["without Sentry", "signals_spans=False", "signals_spans=True"])
def sentry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the descriptions of the real SDK's spans; None without the SDK."""
    if request.param is None:
        yield None
        return
    monkeypatch.setattr(Signal, "_live_receivers", Signal._live_receivers)  # restored at the end
    spans: list[str] = []

    def collect(event: Any, hint: Any) -> None:
        spans.extend(span["description"] for span in event["spans"] if span["op"] == "event.django")

    with sentry_sdk.isolation_scope():
        client = sentry_sdk.Client(
            dsn="http://key@127.0.0.1:1/1",
            default_integrations=False,
            auto_enabling_integrations=False,
            traces_sample_rate=1.0,
            before_send_transaction=collect,
        )
        # The part of DjangoIntegration.setup_once() for signals: the other parts cannot be undone.
        client.integrations[DjangoIntegration.identifier] = DjangoIntegration(signals_spans=request.param)
        patch_signals()
        sentry_sdk.get_isolation_scope().set_client(client)
        yield spans if request.param else None
        client.close(timeout=0)


@pytest.mark.parametrize("kind", ["methods", "async methods", "instances", "partials", "closures"])
def test_receivers_of_proxies_and_children_are_called_once(captured: HerokuConnect, sentry: Any, kind: str) -> None:
    of_proxy, of_child, of_model, general = Box(), Box(), Box(), Box()
    for box, sender in (
        (of_proxy, EverythingProxy),
        (of_child, CompoundModel),
        (of_model, Everything),
        (general, None),
    ):
        signals.record_created.connect(KINDS[kind](box, ""), sender=sender, weak=False)
    key = uuid.uuid4()
    CompoundModel(hc_model_id=key, external_id=key, more_data="m").save_base(raw=True)
    captured.insert(SFObjectModel, external_id=key, data="1")
    captured.create(Everything, 1)
    with sentry_sdk.start_transaction(name="page"):
        deliver()
    assert not Delivery.objects.exists()
    assert [len(box.received) for box in (of_proxy, of_child, of_model, general)] == [1, 1, 1, 2]
    if sentry is not None and kind != "async methods":  # Sentry leaves async receivers alone
        assert len([name for name in sentry if "example" not in name]) == 5


@pytest.mark.fault("two receivers share a dotted path and one fails", outcome="it alone is retried")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failing", [0, 1])
def test_failed_receiver_alone_is_retried(captured: HerokuConnect, kind: str, failing: int) -> None:
    boxes = [Box(), Box()]
    for number, box in enumerate(boxes):
        for signal in (signals.record_created, signals.record_updated):
            signal.connect(KINDS[kind](box, str(number)), sender=Account, weak=False)
    boxes[failing].fails = True
    (sfid,) = captured.insert(Account, name="a")
    deliver()
    captured.update(Account, sfid, name="b")
    deliver()
    assert boxes[1 - failing].received == ["CREATE", "UPDATE"]
    assert boxes[failing].received == ["CREATE"], "the update waits"
    boxes[failing].fails = False
    make_due()
    deliver()
    deliver()
    assert boxes[1 - failing].received == ["CREATE", "UPDATE"], "never called for the other one"
    assert boxes[failing].received == ["CREATE", "CREATE", "UPDATE"]
    assert not Delivery.objects.exists()


def test_receiver_with_a_unique_path_is_named_by_it() -> None:
    signals.record_created.connect(put, sender=Account)
    signals.record_created.connect(Box().take, sender=Account, weak=False)
    signals.record_created.connect(functools.partial(put, Box()), sender=Account, weak=False)
    assert names() == [f"{HERE}.put", f"{HERE}.Box.take", "functools.partial"]


def test_dispatch_uid_belongs_to_the_name() -> None:
    for uid in ("mail", "fax", ("no", "text")):
        signals.record_created.connect(closure_over(Box()), sender=Account, weak=False, dispatch_uid=uid)
    path = f"{HERE}.closure_over.<locals>.receive"
    assert names() == [f"{path}#mail", f"{path}#fax", path]


@pytest.mark.parametrize("uid", ["nul \x00", "surrogate \udc80", "two\nlines", "smile \U0001f600"])
def test_name_is_storable_and_fits_a_line(captured: HerokuConnect, uid: str) -> None:
    """A name that the database refuses would stop the page, and with it all other receivers."""
    box = Box()
    signals.record_created.connect(closure_over(box), sender=Account, weak=False, dispatch_uid=uid)
    fail_once(captured, box)
    name = Delivery.objects.get().receiver
    assert name == names()[0]
    assert name.isprintable() and name.encode("latin-1")
    deliver()
    assert box.received == ["CREATE", "CREATE"]
    assert not Delivery.objects.exists()


def test_sender_may_be_given_as_a_text(captured: HerokuConnect) -> None:
    """As with Django's signals of models; a typing error is refused, and not silent."""
    box = Box()
    signals.record_created.connect(box.take, sender="crm.Account")
    captured.insert(Account, name="a")
    deliver()
    assert box.received == ["CREATE"]
    with pytest.raises(ValueError, match="Invalid model reference"):
        signals.record_created.connect(box.take, sender="Account")


def test_closures_for_different_models_share_their_path() -> None:
    for model in (Account, SFObjectModel):
        signals.record_created.connect(closure_over(Box(), model.__name__), sender=model, weak=False)
    assert names() == names(model=SFObjectModel) == [f"{HERE}.closure_over.<locals>.receive"]


def test_receiver_has_one_name_in_all_signals() -> None:
    one, two = Box(), Box()
    for signal, order in ((signals.record_created, (one, two)), (signals.record_updated, (two, one))):
        for box in order:
            signal.connect(box.take, sender=Account)
    assert names("record_created") == list(reversed(names("record_updated")))
    assert len(set(names())) == 2


@pytest.mark.fault(
    "the order in which receivers connect changes", outcome="each delivery is retried with its own receiver"
)
@pytest.mark.parametrize("kind", ["partials that differ", "closures that differ"])
def test_retry_finds_its_receiver_when_the_order_changes(captured: HerokuConnect, kind: str) -> None:
    boxes = {label: Box() for label in "abc"}
    for label in "ab":
        signals.record_created.connect(KINDS[kind](boxes[label], label), Account, weak=False, dispatch_uid=(label,))
    fail_once(captured, boxes["b"])
    for label in "ab":
        assert signals.record_created.disconnect(sender=Account, dispatch_uid=(label,))
    for label in "cba":  # another process, after a deployment
        signals.record_created.connect(KINDS[kind](boxes[label], label), Account, weak=False, dispatch_uid=(label,))
    deliver()
    assert [len(box.received) for box in boxes.values()] == [1, 2, 0]
    assert not Delivery.objects.exists()


@pytest.mark.fault("a stored name fits several receivers", outcome="none is called; the delivery has the error")
def test_name_that_fits_several_is_stored_as_an_error(captured: HerokuConnect) -> None:
    boxes = [Box(), Box()]
    signals.record_created.connect(boxes[0].take, sender=Account)
    fail_once(captured, boxes[0])
    assert Delivery.objects.get().receiver == f"{HERE}.Box.take"
    signals.record_created.connect(boxes[1].take, sender=Account)
    deliver()
    assert [len(box.received) for box in boxes] == [1, 0]
    error = Delivery.objects.get().error
    both = ", ".join(sorted(names()[:2]))
    assert error.startswith(f"RedeliveryError: {HERE}.Box.take fits 2 connected receivers ({both})")
    assert "dispatch_uid" in error


def test_counted_names_are_not_mixed_up(captured: HerokuConnect) -> None:
    boxes = [Box(), Box(), Box()]
    for box in boxes[:2]:
        signals.record_created.connect(box.take, sender=Account)
    assert [name[-5:] for name in names()] == ["-1of2", "-2of2"]
    fail_once(captured, boxes[1])
    signals.record_created.disconnect(boxes[0].take, sender=Account)
    signals.record_created.connect(boxes[0].take, sender=Account)
    signals.record_created.connect(boxes[2].take, sender=Account)
    deliver()
    assert [len(box.received) for box in boxes] == [1, 1, 0]
    assert "is not connected to record_created of crm.Account any more" in Delivery.objects.get().error


def test_delivery_outlives_a_dispatch_uid_given_later(captured: HerokuConnect) -> None:
    box = Box()
    signals.record_changed.connect(box.take, sender=Account)
    fail_once(captured, box)
    signals.record_changed.disconnect(box.take, sender=Account)
    signals.record_changed.connect(box.take, sender=Account, dispatch_uid="box")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp() + interval '1 h'")
    captured.update(Account, Delivery.objects.get().record_id, name="b")
    deliver()
    assert box.received == ["CREATE"], "the update waits behind it"
    make_due()
    deliver()
    deliver()
    assert box.received == ["CREATE", "CREATE", "UPDATE"]
    assert not Delivery.objects.exists()


CONNECT = """
import functools, django
django.setup()
from example.crm.models import Account
from hc_signals.delivery.listeners import Extras, Listeners
from hc_signals.signals import record_deleted
def put(label, **kwargs): ...
for label in {"a", "b", "c", "d"}:
    record_deleted.connect(functools.partial(put, label, to=[Account, {"x", "y"}]), sender=Account, weak=False)
for each in Listeners(Extras()).receivers("record_deleted", Account, exclusive=False):
    print(each.call.args[0], each.name)
"""


def test_names_are_the_same_in_every_process() -> None:
    found = []
    for seed in ("1", "2"):
        environment = {"DJANGO_SETTINGS_MODULE": "example.settings", "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}"}
        environment |= {"PYTHONHASHSEED": seed, "DATABASE_URL": "postgres://none@127.0.0.1:1/none"}
        done = subprocess.run(
            [sys.executable, "-c", CONNECT], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.splitlines())
    first, second = found
    assert first != second, "the order of connection was the same"
    assert sorted(first) == sorted(second)
    assert len({line.split()[1] for line in first}) == 4


def test_commands_take_names_and_refuse_what_fits_several(captured: HerokuConnect) -> None:
    boxes = [Box(), Box()]
    for box in boxes:
        signals.record_created.connect(box.take, sender=Account)
    first, second = names()
    captured.insert(Account, name="a")
    deliver()
    for command in (("hc_replay", "--since", "1h"), ("hc_backfill", "crm.Account")):
        with pytest.raises(CommandError, match=f"did you mean {first} or {second}"):
            call_command(*command, "--receiver", f"{HERE}.Box.take", verbosity=0)
        call_command(*command, "--receiver", second, verbosity=0)
        deliver()
    assert [box.received for box in boxes] == [["CREATE"], ["CREATE", "CREATE", "SNAPSHOT"]]


def test_snapshot_for_a_name_that_fits_several_is_stored(captured: HerokuConnect) -> None:
    boxes = [Box(), Box()]
    captured.insert(Account, name="a")
    as_heroku_connect(
        "INSERT INTO public.hc_signals_change (table_name, operation, origin, record_key, record_id, new, note) "
        "SELECT table_name, 'SNAPSHOT', origin, record_key, record_id, new, %s FROM public.hc_signals_log LIMIT 1",
        [json.dumps({"receivers": [f"{HERE}.Box.take"]})],
    )
    for box in boxes:
        signals.record_changed.connect(box.take, sender=Account)
    deliver()
    assert [box.received for box in boxes] == [["CREATE"], ["CREATE"]]
    delivery = Delivery.objects.get()
    assert (delivery.receiver, delivery.operation) == (f"{HERE}.Box.take", "SNAPSHOT")
    assert "fits 2 connected receivers" in delivery.error


def test_on_change_takes_a_dispatch_uid(captured: HerokuConnect) -> None:
    boxes = [Box(), Box()]
    for number, box in enumerate(boxes):
        on_change(Account, dispatch_uid=f"box {number}")(closure_over(box))
    on_change(Account, fields=["industry"], dispatch_uid="box")(functools.partial(put, Box()))
    path = f"{HERE}.closure_over.<locals>.receive"
    assert names() == [f"{path}#box 0", f"{path}#box 1", "functools.partial#box"]
    fail_once(captured, boxes[1])
    deliver()
    assert [len(box.received) for box in boxes] == [1, 2]


def test_receivers_that_are_gone_are_not_called(captured: HerokuConnect) -> None:
    gone, disconnected, last = Box(), Box(), Box()
    signals.record_created.connect(gone.take, sender=Account)

    def disconnect(**kwargs: Any) -> None:
        signals.record_created.disconnect(disconnected.take, sender=Account)
        signals.record_created.connect(last.take, sender=Account)

    signals.record_created.connect(disconnect, sender=Account)
    signals.record_created.connect(disconnected.take, sender=Account)
    reference, gone = weakref.ref(gone), Box()
    gc.collect()
    assert reference() is None
    captured.insert(Account, name="a")
    captured.insert(Account, name="b")
    deliver(BATCH_SIZE=1)
    assert [len(box.received) for box in (disconnected, last)] == [1, 1], (
        "a page calls the receivers that were connected when it began"
    )


def test_signal_that_caches_its_receivers(captured: HerokuConnect) -> None:
    one, two, of_proxy = Box(), Box(), Box()

    def to(box: Box) -> Callable[..., None]:
        return lambda **kwargs: box.received.append("saved")

    post_save.connect(to(one), sender=Everything, weak=False)
    post_save.connect(to(of_proxy), sender=EverythingProxy, weak=False)
    captured.create(Everything, 1)
    deliver(DJANGO_SIGNALS=True)
    post_save.connect(to(two), sender=Everything, weak=False)
    captured.create(Everything, 1)
    deliver(DJANGO_SIGNALS=True)
    assert [len(box.received) for box in (one, two, of_proxy)] == [2, 1, 2]


def test_relies_on_signals_private_parts() -> None:
    """If this fails after an upgrade of Django, compare hc_signals/delivery/connections.py with it."""
    box = Box()
    for signal in (Signal(), Signal(use_caching=True)):
        signal.connect(put)
        signal.connect(box.take, sender=Account)
        signal.connect(box.wait_and_take, sender=Account, dispatch_uid="uid")
        signal.connect(closure_over(box), sender=EverythingProxy, weak=False)
        assert [(each.sender_id, each.is_async) for each in connections_of(signal)] == [
            (EVERY_SENDER, False),
            (id(Account), False),
            (id(Account), True),
            (id(EverythingProxy), False),
        ]
        assert [each.receiver for each in connections_of(signal)][:3] == [put, box.take, box.wait_and_take]
        assert [each.uid for each in connections_of(signal)][2] == "uid"
        sync, asynchronous = signal._live_receivers(Account)
        assert (sync, asynchronous) == ([put, box.take], [box.wait_and_take])
        assert [call for _, call in connected(signal, Account)] == [put, box.take, box.wait_and_take]


def test_replaced_live_receivers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    signals.record_created.connect(put, sender=Account)
    monkeypatch.setattr(Signal, "_live_receivers", lambda *args: ([], []))
    monkeypatch.setattr(connections, "PAUSE", 0)
    with pytest.raises(ConfigurationError, match="_live_receivers returns 0 receivers for Account, expected the 1"):
        names()


def test_receivers_connected_by_another_thread_are_named() -> None:
    is_over = threading.Event()

    def connect_and_disconnect() -> None:
        while not is_over.is_set():
            box = Box()
            signals.record_created.connect(box.take, sender=Account)
            signals.record_created.disconnect(box.take, sender=Account)

    thread = threading.Thread(target=connect_and_disconnect)
    thread.start()
    try:
        for _ in range(300):
            assert all(name.startswith(f"{HERE}.Box.take") for name in names())
    finally:
        is_over.set()
        thread.join()
