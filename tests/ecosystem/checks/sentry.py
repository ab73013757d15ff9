"""Sentry: a receiver's failure is an event of Sentry's, with the change in it."""

from typing import Any

from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("sentry-sdk",)
sent: list[dict[str, Any]] = []


def models() -> None:
    import sentry_sdk
    from sentry_sdk.integrations.django import DjangoIntegration

    def keep(event: Any, hint: Any) -> None:
        sent.append(event)

    sentry_sdk.init(
        "https://key@127.0.0.1/1",
        before_send=keep,
        before_send_transaction=keep,
        traces_sample_rate=1.0,
        integrations=[DjangoIntegration(signals_spans=True)],
    )
    lead()


def check(site: Any) -> None:
    from hc_signals.models import Delivery
    from hc_signals.signals import record_created
    from tests.ecosystem.shop.models import Lead

    def fails(instance: Any, **kwargs: Any) -> None:
        raise ConnectionError("the mail server is away")

    record_created.connect(fails, sender=Lead)
    sent.clear()
    site.heroku.insert(Lead, company="Acme")
    site.deliver_all()
    equal(Delivery.objects.count(), 1)
    errors = [event for event in sent if event.get("exception")]
    equal([event["exception"]["values"][-1]["type"] for event in errors], ["ConnectionError"])
    Delivery.objects.all().delete()
    record_created.disconnect(fails, sender=Lead)
    salesforces_changes(site)
