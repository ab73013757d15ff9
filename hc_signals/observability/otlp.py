"""Pushes the metrics by OpenTelemetry's protocol (OTLP over HTTP), for processes that nothing can scrape.

Endpoint, headers, certificates, timeout and compression are OpenTelemetry's own variables of the environment
(``OTEL_EXPORTER_OTLP_ENDPOINT`` …). Needs opentelemetry-exporter-otlp-proto-http (extra ``otel-metrics``).
"""

import logging
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from hc_signals import __version__
from hc_signals.exceptions import ConfigurationError, ExportError
from hc_signals.observability.metrics import Metrics
from hc_signals.worker.threads import Helper, keep_turning

THREAD = "hc_listen-otlp"
INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
"""OpenTelemetry's variable for the milliseconds between two pushes; default: 60000."""
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.metric_exporter"
_UNITS = {"_seconds": "s", "_bytes": "By"}


@contextmanager
def push_metrics(metrics: Metrics) -> Iterator[str]:
    """For the length of the block, push the metrics in a thread of its own; yield the endpoint.

    No failure disturbs a worker: it is logged, at growing intervals, and the next push is tried.

    Raises:
        ConfigurationError: the exporter is not installed, or a variable of the environment is wrong.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError:
        needed = "--otlp-metrics needs OpenTelemetry's exporter; run `pip install hc-signals[otel-metrics]`."
        raise ConfigurationError(needed) from None
    push, stopping = Push(metrics, OTLPMetricExporter(), _interval()), threading.Event()
    arguments = ("push of metrics", push.turn, stopping)
    thread = threading.Thread(target=keep_turning, name=THREAD, args=arguments, daemon=True)
    complaints = logging.getLogger(_EXPORTER)
    complaints.addFilter(push.keep_complaint)
    thread.start()
    try:
        yield push.endpoint
    finally:
        stopping.set()
        thread.join(timeout=1)  # a push to an endpoint that does not answer ends with the process
        complaints.removeFilter(push.keep_complaint)


def _interval() -> float:
    given = os.environ.get(INTERVAL) or "60000"
    try:
        seconds = float(given) / 1000
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise ConfigurationError(f"{INTERVAL} is {given!r}; expected a positive number of milliseconds.")
    return seconds


class Push:
    """Sends all metrics to the endpoint of ``exporter``."""

    def __init__(self, metrics: Metrics, exporter: Any, interval: float) -> None:
        self._metrics, self._exporter, self._interval = metrics, exporter, interval
        self._since = time.time_ns()
        self._resource: Any = None
        self._complaint = ""

    @property
    def endpoint(self) -> str:
        """The address to which the metrics go."""
        return str(getattr(self._exporter, "_endpoint", "its endpoint"))

    def turn(self, helper: Helper) -> float:
        """Push once; return the seconds until the next push.

        Raises:
            ExportError: the endpoint has not taken the metrics.
        """
        from opentelemetry.sdk.metrics.export import MetricExportResult

        self._complaint = ""
        if self._resource is None:
            self._resource = _resource(self._metrics.conf.CONSUMER)
        if (
            self._exporter.export(otlp_data(self._metrics, self._resource, self._since))
            is not MetricExportResult.SUCCESS
        ):
            raise ExportError(f"{self.endpoint} has not taken them: {self._complaint or 'no reason was given'}")
        return self._interval

    def keep_complaint(self, record: logging.LogRecord) -> bool:
        """Keep what the exporter logs in our thread: it would log each failed push, and each try of one."""
        if record.threadName != THREAD:
            return True
        self._complaint = (record.getMessage().strip().splitlines() or [""])[0][:200]
        return False


def _resource(consumer: str) -> Any:
    """Return who sends, by the environment's ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME``, else by ours."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    instance = os.environ.get("DYNO") or f"{socket.gethostname()}-{os.getpid()}"
    own = {"service.name": "hc_signals", "service.instance.id": instance, "hc_signals.consumer": consumer}
    return Resource.create().merge(Resource(own)).merge(OTELResourceDetector().detect())


def otlp_data(metrics: Metrics, resource: Any, since: int) -> Any:
    """Return the metrics in the form of OpenTelemetry's SDK, counted since a time in nanoseconds.

    A counter has no suffix ``_total`` there: Prometheus adds it.
    """
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    now = time.time_ns()
    converted = [found for family in metrics.collect() if (found := _metric(family, since, now)) is not None]
    scope = ScopeMetrics(InstrumentationScope("hc_signals", __version__), converted, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(family: Any, since: int, now: int) -> Any:
    """Return one family of prometheus_client; None if it has no figure."""
    from opentelemetry.sdk.metrics import export as otel

    if not family.samples:
        return None
    data: Any
    if family.type == "histogram":
        points = [_histogram(labels, found, since, now) for labels, found in _by_labels(family.samples)]
        data = otel.Histogram(points, otel.AggregationTemporality.CUMULATIVE)
    elif family.type == "counter":
        numbers = [otel.NumberDataPoint(s.labels, since, now, float(s.value)) for s in family.samples]
        data = otel.Sum(numbers, otel.AggregationTemporality.CUMULATIVE, is_monotonic=True)
    else:
        data = otel.Gauge([otel.NumberDataPoint(s.labels, None, now, float(s.value)) for s in family.samples])  # type: ignore[arg-type]
    unit = next((unit for suffix, unit in _UNITS.items() if family.name.endswith(suffix)), "")
    return otel.Metric(family.name, family.documentation, unit, data)


def _by_labels(samples: Sequence[Any]) -> Iterator[tuple[Mapping[str, str], Sequence[Any]]]:
    """Group the samples of a histogram by their labels without ``le``."""
    found: dict[tuple[tuple[str, str], ...], list[Any]] = defaultdict(list)
    for sample in samples:
        found[tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))].append(sample)
    for labels, group in found.items():
        yield dict(labels), group


def _histogram(labels: Mapping[str, str], samples: Sequence[Any], since: int, now: int) -> Any:
    """Return one histogram: Prometheus counts all values up to each bound, OTLP those between two bounds."""
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    upto = [(float(sample.labels["le"]), sample.value) for sample in samples if sample.name.endswith("_bucket")]
    counts = [0, *(int(count) for _, count in upto)]
    total: Any = next((sample.value for sample in samples if sample.name.endswith("_sum")), 0.0)
    nothing: Any = None  # neither the lowest nor the highest value was kept
    return HistogramDataPoint(
        attributes=labels,
        start_time_unix_nano=since,
        time_unix_nano=now,
        count=counts[-1],
        sum=total,
        bucket_counts=[after - before for before, after in pairwise(counts)],
        explicit_bounds=[bound for bound, _ in upto[:-1]],
        min=nothing,
        max=nothing,
    )
