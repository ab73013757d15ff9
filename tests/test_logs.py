"""The log and the spans: no values of records on the console, the whole exception for a handler of the project."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from example.crm.models import Account

from hc_signals import signals
from hc_signals.delivery import pulse
from hc_signals.observability import tracing
from hc_signals.testing import HerokuConnect
from tests.conftest import deliver
from tests.test_worker_process import start


def fails(**kwargs: Any) -> None:
    raise ValueError("Top Secret")


def test_json_log_has_one_object_per_line(captured: HerokuConnect) -> None:
    captured.insert(Account, name="Top Secret Ltd")
    process = start("hc_listen", "--once", "--log-format", "json", "-v", "3", FAILING_RECEIVER="1")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    lines = [json.loads(line) for line in output.splitlines()]
    for line in lines:
        assert {"time", "level", "logger", "message", "consumer"} <= line.keys()
    (failed,) = [line for line in lines if "failed on CREATE of crm.Account" in line["message"]]
    assert failed["level"] == "warning"
    assert failed["model"] == "crm.Account"
    assert failed["shard"] == 0
    assert failed["receiver"] == "tests.sfdc.apps._fail"
    assert failed["change_id"] > 0
    assert failed["delivery_id"] > 0
    assert (failed["attempt"], failed["attempts"], failed["change_type"]) == (1, 10, "CREATE")
    assert failed["record_id"].startswith("001")
    assert failed["next_attempt_at"].endswith("+00:00")
    assert failed["error"].startswith("ValueError at ") and failed["error_type"] == "ValueError"
    assert failed["command"] == f"manage.py hc_deliveries show {failed['delivery_id']}"
    assert "Secret" not in output


def test_handler_gets_the_receivers_traceback(
    captured: HerokuConnect, connect: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("hc_signals.receivers"), "handlers", [caplog.handler])
    connect(signals.record_created, fails, Account)
    captured.create(Account, 1)
    deliver(RETRY_SECONDS=0.0001)
    deliver(MAX_ATTEMPTS=2)
    first, second = [record for record in caplog.records if record.name == "hc_signals.receivers"]
    for record, attempt in ((first, 1), (second, 2)):
        assert record.exc_info is not None
        assert record.exc_info[1] is not None
        assert str(record.exc_info[1]) == "Top Secret"
        assert record.receiver == f"{__name__}.fails"  # type: ignore[attr-defined]
        assert record.attempt == attempt  # type: ignore[attr-defined]
        trace = record.exc_info[2]
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        assert trace is not None
        assert trace.tb_frame.f_code.co_name == "fails"
    assert all(record.exc_info is None for record in caplog.records if record.name == "hc_signals")


def test_stderr_stays_empty_without_a_handler(
    captured: HerokuConnect, connect: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's
    connect(signals.record_created, fails, Account)
    captured.create(Account, 1)
    deliver(RETRY_SECONDS=600)
    assert "Secret" not in capfd.readouterr().err


def test_sentry_gets_one_event_per_failed_attempt(captured: HerokuConnect, connect: Any) -> None:
    import sentry_sdk
    from sentry_sdk.integrations.logging import LoggingIntegration
    from sentry_sdk.transport import Transport

    sent: list[Any] = []

    class Kept(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            sent.extend(item.payload.json for item in envelope.items if item.headers.get("type") == "event")

    client = sentry_sdk.Client(
        dsn="https://key@sentry.invalid/1",
        transport=Kept,
        default_integrations=False,
        integrations=[LoggingIntegration()],
    )
    connect(signals.record_created, fails, Account)
    captured.create(Account, 1)
    with sentry_sdk.isolation_scope() as scope:
        scope.set_client(client)
        deliver(RETRY_SECONDS=600)
        client.close(timeout=2)
    (event,) = sent
    assert event["logger"] == "hc_signals.receivers"
    (exception,) = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("ValueError", "Top Secret")
    assert exception["stacktrace"]["frames"][-1]["function"] == "fails"


@pytest.fixture
def spans() -> Iterator[Any]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traced = tracing.Tracing(provider.get_tracer("hc_signals"))
    pulse.observe(traced)
    yield exporter.get_finished_spans
    pulse.unobserve(traced)


def test_page_and_receiver_calls_have_spans(captured: HerokuConnect, connect: Any, spans: Any) -> None:
    connect(signals.record_created, fails, Account)
    deliver()
    assert spans() == (), "an empty page is not worth a span"
    captured.insert(Account, name="Top Secret Ltd")
    deliver(RETRY_SECONDS=600)
    by_name = {span.attributes.get("hc_signals.receiver", "page"): span for span in spans()}
    page, call = by_name["page"], by_name[f"{__name__}.fails"]
    assert call.parent.span_id == page.context.span_id
    assert page.start_time <= call.start_time <= call.end_time <= page.end_time
    assert page.attributes == {
        "hc_signals.consumer": "default",
        "hc_signals.shard": 0,
        "hc_signals.changes": 1,
    }
    assert dict(call.attributes) == {
        "hc_signals.receiver": f"{__name__}.fails",
        "hc_signals.signal": "record_created",
        "hc_signals.model": "crm.Account",
        "hc_signals.change_type": "CREATE",
        "hc_signals.change_origin": "heroku_connect",
        "error.type": "ValueError",
    }
    assert not call.status.is_ok
    assert "Secret" not in "".join(span.to_json() for span in spans())


def test_tracing_is_off_without_a_tracer_provider() -> None:
    assert not tracing.is_set_up()
