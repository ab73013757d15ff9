"""Metrics by OpenTelemetry's protocol: a server decodes what hc_listen pushes; a failing one disturbs no delivery."""

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from example.crm.models import Seen
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client import CollectorRegistry

from hc_signals.conf import Conf
from hc_signals.delivery.counting import Counting
from hc_signals.exceptions import ConfigurationError
from hc_signals.observability import otlp
from hc_signals.observability.liveness import Liveness
from hc_signals.observability.metrics import Metrics
from hc_signals.worker.bell_connection import BellState
from tests.test_trouble import WorkerProcess
from tests.test_worker_process import asleep, insert, wait_until


class Collector(HTTPServer):
    """Takes metrics at /v1/metrics, and answers with ``status``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.requests: list[ExportMetricsServiceRequest] = []
        self.headers: dict[str, str] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"

    def figures(self) -> dict[str, Any]:
        """Return the metrics of the newest request by their names."""
        if not self.requests:
            return {}
        (resource,) = self.requests[-1].resource_metrics
        return {metric.name: metric for metric in resource.scope_metrics[0].metrics}

    def resource(self) -> dict[str, str]:
        return {each.key: each.value.string_value for each in self.requests[-1].resource_metrics[0].resource.attributes}


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200 and self.path == "/v1/metrics":
            self.server.headers = dict(self.headers)
            self.server.requests.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def labels(point: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in point.attributes}


@pytest.mark.usefixtures("captured")
def test_listener_pushes_its_metrics_whatever_the_answer(collector: Collector) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
        "DYNO": "worker.1",
    }
    process = WorkerProcess("--otlp-metrics", **environment)
    try:
        wait_until(asleep)
        insert(3)
        wait_until(lambda: "hc_signals_changes_delivered" in collector.figures())
        (point,) = collector.figures()["hc_signals_changes_delivered"].sum.data_points
        assert (point.as_double, labels(point)["model"]) == (3, "crm.Account")
        (latency,) = collector.figures()["hc_signals_latency_seconds"].histogram.data_points
        assert latency.count == sum(latency.bucket_counts) == 3
        wait_until(lambda: "hc_signals_log_bytes" in collector.figures())  # the database's figures
        expected = {"service.name": "hc_signals", "service.instance.id": "worker.1", "deployment.environment": "test"}
        assert expected.items() <= collector.resource().items()
        assert collector.headers["api-key"] == "secret"
        collector.status = 400
        wait_until(lambda: process.says(f"The push of metrics failed: {collector.url}/v1/metrics has not taken them:"))
        insert(2)
        wait_until(lambda: Seen.objects.count() == 5)
        assert process.is_well()
        collector.status = 200
        wait_until(lambda: process.says("The push of metrics works again"))
        assert process.stop() == 0
    finally:
        process.kill()


def test_form_of_otlp_has_the_figures_of_prometheus() -> None:
    """Each figure once, with its labels; buckets count from the bound below."""
    counting = Counting()
    alive = Liveness((), BellState("", 1.0, 2), ({"worker": 0, "receiver_seconds": 1.5, "reconnects": 0},))
    metrics = Metrics(Conf(), 1, counting, lambda: alive, lambda: None)
    counting._past.latency.add([0.0005, 0.3, 1e9])
    registry = CollectorRegistry()
    registry.register(metrics)
    data = otlp.otlp_data(metrics, otlp._resource("default"), 1)
    found = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    (latency,) = found["hc_signals_latency_seconds"].data.data_points
    assert (latency.count, latency.bucket_counts[0], latency.bucket_counts[-1]) == (3, 1, 1)
    assert len(latency.bucket_counts) == len(latency.explicit_bounds) + 1
    assert latency.sum == registry.get_sample_value("hc_signals_latency_seconds_sum")
    assert (found["hc_signals_latency_seconds"].unit, found["hc_signals_healthy"].unit) == ("s", "")
    reconnects = {p.attributes["connection"]: p.value for p in found["hc_signals_reconnects"].data.data_points}
    assert reconnects == {"listener": 2, "worker": 0}
    assert found["hc_signals_reconnects"].data.is_monotonic
    with_samples = {family.name for family in metrics.collect() if family.samples}
    assert found.keys() == with_samples


def test_only_complaints_of_our_thread_are_kept() -> None:
    push = otlp.Push(Metrics(Conf(), 1, Counting(), lambda: None, lambda: None), None, 60)  # type: ignore[arg-type, return-value]
    record = logging.makeLogRecord({"msg": "refused\nwith details", "threadName": otlp.THREAD})
    assert not push.keep_complaint(record)
    assert push._complaint == "refused"
    assert push.keep_complaint(logging.makeLogRecord({"msg": "other", "threadName": "MainThread"}))


@pytest.mark.parametrize("value", ["0", "soon"])
def test_wrong_interval_is_one_sentence(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(otlp.INTERVAL, value)
    with pytest.raises(ConfigurationError, match="expected a positive number of milliseconds"):
        otlp._interval()


def test_missing_exporter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with pytest.raises(ConfigurationError, match=r"run `pip install hc-signals\[otel-metrics\]`"):
        otlp.push_metrics(None).__enter__()  # type: ignore[arg-type]
