"""The metrics of hc_listen for Prometheus: counts of deliveries, the state of the process, figures of the database.

This module counts itself, because prometheus_client's objects take a lock for each value, and every change counts.
Needs prometheus_client (extra ``metrics``).
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hc_signals import __version__
from hc_signals.conf import Conf
from hc_signals.delivery.event import cause_of
from hc_signals.delivery.pulse import Observer, Tally
from hc_signals.delivery.routing import OF_RECORDS, route_of
from hc_signals.log.histogram import Histogram
from hc_signals.models import Delivery
from hc_signals.observability.liveness import Liveness
from hc_signals.observability.surveyor import Figures
from hc_signals.tables import connected_models, table_label


class Metrics(Observer, Collector):
    """Counts the work of this process's workers, ``threads`` of them, and gives all figures to prometheus_client.

    ``liveness`` returns the state of the process, ``figures`` the newest figures of the database or None.
    """

    def __init__(
        self, conf: Conf, threads: int, liveness: Callable[[], Liveness], figures: Callable[[], Figures | None]
    ) -> None:
        self.conf, self.threads, self._liveness, self._figures = conf, threads, liveness, figures
        self._labels = {table_label(model): model._meta.label for model in connected_models()}
        self._guard = threading.Lock()
        self._delivered: Counter[tuple[str, str]] = Counter()
        self._unheard: Counter[str] = Counter()
        self._gaps: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._latency = Histogram()
        self._receivers: dict[str, Histogram] = defaultdict(Histogram)

    def page_ends(self, tally: Tally, error: BaseException | None) -> None:
        """Count a page. If it was not committed, count its calls alone: it is delivered again."""
        with self._guard:
            self._count_calls(tally.calls)
            if error is None:
                self._count_changes(tally)

    def _count_calls(self, calls: list[tuple[str, float, bool]]) -> None:
        times: dict[str, list[float]] = defaultdict(list)
        for receiver, seconds, failed in calls:
            times[receiver].append(seconds)
            self._failures[receiver] += failed
        for receiver, seconds_of in times.items():
            self._receivers[receiver].add(seconds_of)

    def _count_changes(self, tally: Tally) -> None:
        self._latency.add(max(0.0, at - change.captured_at.timestamp()) for change, at in tally.delivered)
        kinds = Counter((change.table_name, change.operation) for change, _ in tally.delivered)
        for (table, operation), count in kinds.items():
            if table in self._labels:
                self._delivered[self._labels[table], route_of(operation).change_type] += count
                if table in tally.unheard and operation in OF_RECORDS:
                    self._unheard[self._labels[table]] += count
        self._gaps.update(tally.gaps)
        of_tables = {operation for _, operation in kinds if route_of(operation).change_type == "GAP_OVERFLOW"}
        if of_tables:
            self._gaps.update(cause_of(change) for change, _ in tally.delivered if change.operation in of_tables)

    def collect(self) -> Iterator[Metric]:
        """Return all metrics with their figures, those of the database if there are any; see docs/metrics.md."""
        with self._guard:
            yield from self._counted()
        yield from self._process(self._liveness())
        yield from self._surveyed(self._figures())

    def _counted(self) -> Iterator[Metric]:
        yield _counter("changes_delivered", "Changes delivered and committed.", self._delivered, "model", "change_type")
        yield _counter("changes_unheard", "Of these, changes of models without a receiver.", self._unheard, "model")
        yield _counter("gaps", "Gaps sent by gap_detected.", self._gaps, "cause")
        latency = HistogramMetricFamily("hc_signals_latency_seconds", "From the capture of a change to its receivers.")
        latency.add_metric([], self._latency.buckets(), self._latency.sum)
        calls = HistogramMetricFamily("hc_signals_receiver_seconds", "Duration of receiver calls.", labels=["receiver"])
        for receiver, histogram in self._receivers.items():
            calls.add_metric([receiver], histogram.buckets(), histogram.sum)
        yield from (latency, calls)
        yield _counter("receiver_failures", "Calls that raised.", self._failures, "receiver")

    def _process(self, found: Liveness) -> Iterator[Metric]:
        workers: Sequence[Any] = found.workers
        info = {(__version__, self.conf.CONSUMER, str(self.conf.SHARDS), str(self.threads)): 1}
        yield _gauge("worker_info", "This process; always 1.", info, "version", "consumer", "shards", "threads")
        running = {str(each["worker"]): each["receiver_seconds"] for each in workers}
        yield _gauge("receiver_running_seconds", "Seconds since the receiver of each worker began.", running, "worker")
        lost = {"listener": found.bell.reconnects, "worker": sum(each["reconnects"] for each in workers)}
        yield _counter("reconnects", "Lost connections.", lost, "connection")
        errors = {(each.name, code): count for each in found.troubles for code, count in each.errors.copy().items()}
        yield _counter("errors", "Failed tries of the threads.", errors, "task", "code")
        trouble = {each.name: bool(each.text) for each in found.troubles}
        yield _gauge("trouble", "1 while a task fails.", trouble, "task")
        helpers: Sequence[Any] = found.helpers
        turned = {each["helper"]: each["turned_seconds_ago"] for each in helpers}
        yield _gauge("helper_turn_seconds", "Seconds since the last turn of each helper thread.", turned, "helper")
        yield _gauge("healthy", "1 if /healthz is green.", {(): found.is_alive})
        yield _gauge("listening", "1 if NOTIFY wakes this process.", {(): found.bell.listens})
        answered = {} if found.bell.heard_at is None else {(): found.bell.heard_at}
        yield _gauge("last_ping_timestamp_seconds", "When the LISTEN connection last answered.", answered)

    def _surveyed(self, found: Figures | None) -> Iterator[Metric]:
        shards = found.consumer.by_shard if found else ()
        counts = {str(shard): backlog.count for shard, backlog in enumerate(shards)}
        yield _gauge("backlog", "Undelivered changes, counted to 10000.", counts, "shard")
        lags = {str(shard): seconds for shard, seconds in enumerate(found.lags if found else ())}
        yield _gauge("lag_seconds", "Age of the oldest undelivered change.", lags, "shard")
        states = {state: found.consumer.deliveries.get(state, 0) for state in Delivery.State.values} if found else {}
        yield _gauge("deliveries", "Failed deliveries, counted to 100000.", states, "state")
        yield _gauge("drift", "1 if capture does not work as it should.", found.drift if found else {}, "table")
        yield _gauge("log_bytes", "Size of the log on disk.", {(): found.log_bytes} if found else {})
        workers = {(): found.consumer.workers} if found else {}
        yield _gauge("workers", "Worker connections of the consumer, in all processes.", workers)
        yield _gauge("survey_timestamp_seconds", "When these figures were read.", {(): found.at} if found else {})


def _counter(name: str, text: str, values: Mapping[Any, float], *labels: str) -> Metric:
    return _filled(CounterMetricFamily(f"hc_signals_{name}", text, labels=labels), values)


def _gauge(name: str, text: str, values: Mapping[Any, float], *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(f"hc_signals_{name}", text, labels=labels), values)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[Any, float]) -> Metric:
    """Add the values, by the one label or by the tuple of labels."""
    for labels, value in values.items():
        family.add_metric([labels] if isinstance(labels, str) else labels, value)
    return family
