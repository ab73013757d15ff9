"""Receivers are told apart by their connection and by a name that no other receiver has."""

import functools
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sentry_sdk
from django.db import connection
from django.dispatch import Signal
from example.crm.models import Account, CompoundModel, SFObjectModel
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.integrations.django.signals_handlers import patch_signals

from hc_signals import signals
from hc_signals.delivery.listeners import Extras, Listeners
from hc_signals.models import Delivery
from hc_signals.testing import HerokuConnect
from tests.conftest import deliver
from tests.sfdc.models import Everything, EverythingProxy

pytestmark = pytest.mark.usefixtures("disconnected")

HERE = "tests.test_identity"


class Box:
    """A receiver that notes what it was told of; ``fails`` makes it raise."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.fails = False

    def take(self, event: Any, **kwargs: Any) -> None:
        self.told.append(event.change_type)
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


def names(signal: str = "record_created", model: Any = Account, only: bool = False) -> list[str]:
    return [each.name for each in Listeners(Extras()).receivers(signal, model, only)]


def make_due() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp() WHERE state = 'retry'"
        )


@pytest.fixture(params=[None, False, True], ids=["without Sentry", "signals_spans=False", "signals_spans=True"])
def sentry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real SDK, or nothing: the descriptions of its spans, None where there are to be none."""
    if request.param is None:
        yield None
        return
    monkeypatch.setattr(Signal, "_live_receivers", Signal._live_receivers)  # so that it is put back at the end
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
        # Of DjangoIntegration.setup_once() only what concerns signals: the rest cannot be undone.
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
    assert [len(box.told) for box in (of_proxy, of_child, of_model, general)] == [1, 1, 1, 2]
    if sentry is not None and kind != "async methods":  # Sentry leaves async receivers alone
        assert len([name for name in sentry if "example" not in name]) == 5


@pytest.mark.fault("two receivers share a dotted path and one fails", outcome="that one alone is retried")
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
    assert boxes[1 - failing].told == ["CREATE", "UPDATE"]
    assert boxes[failing].told == ["CREATE"], "the update waits"
    boxes[failing].fails = False
    make_due()
    deliver()
    deliver()
    assert boxes[1 - failing].told == ["CREATE", "UPDATE"], "never called for the other one"
    assert boxes[failing].told == ["CREATE", "CREATE", "UPDATE"]
    assert not Delivery.objects.exists()
