"""OpenTelemetry: Django and psycopg are instrumented, with comments in each statement."""

from typing import Any

from tests.ecosystem.page import run_block
from tests.ecosystem.records import lead
from tests.ecosystem.site import equal

PACKAGES = (
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-django",
    "opentelemetry-instrumentation-psycopg",
)
exporters: list[Any] = []


def prepare() -> None:
    """Instrument before Django is set up, as manage.py and wsgi.py of a project do."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exported = InMemorySpanExporter()
    exporters.append(exported)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    trace.set_tracer_provider(provider)
    run_block("from opentelemetry.instrumentation.django")


def models() -> None:
    lead()


def check(site: Any) -> None:
    from django.core.management import call_command

    from hc_signals.signals import record_created
    from tests.ecosystem.shop.models import Lead

    counted: list[int] = []
    record_created.connect(lambda **kwargs: counted.append(Lead.objects.count()), sender=Lead, weak=False)
    site.heroku.insert(Lead, company="Acme")
    (exported,) = exporters
    exported.clear()
    call_command("hc_listen", "--once", verbosity=0)
    site.check_deliveries()
    equal(counted, [1])
    spans = {span.context.span_id: span for span in exported.get_finished_spans()}
    (count,) = (span for span in spans.values() if "COUNT(*)" in str(span.attributes.get("db.statement")))
    assert spans[count.parent.span_id].attributes["hc_signals.model"] == "shop.Lead", "not below the call's span"
