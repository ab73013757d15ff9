"""The metrics of hc_listen for Prometheus: counts of deliveries, the state of the process, figures of the database.

hc_signals.delivery.counting counts: prometheus_client's objects take a lock for each value, and every change counts.
Needs prometheus_client (extra ``metrics``).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hc_signals import __version__
from hc_signals.conf import Conf
from hc_signals.delivery.counting import Counting, Counts
from hc_signals.delivery.routing import route_of
from hc_signals.log.histogram import Histogram
from hc_signals.models import Delivery
from hc_signals.observability.liveness import Liveness
from hc_signals.observability.surveyor import Figures
from hc_signals.tables import connected_models, table_label


class Metrics(Collector):
    """Gives all figures of this process and its ``threads`` workers to prometheus_client.

    ``counting`` counts their work, ``liveness`` returns the state of the process, ``figures`` the newest figures of the
    database or None.
    """

    def __init__(
        self,
        conf: Conf,
        threads: int,
        counting: Counting,
        liveness: Callable[[], Liveness],
        figures: Callable[[], Figures | None],
    ) -> None:
        self.conf, self.threads, self._counting = conf, threads, counting
        self._liveness, self._figures = liveness, figures
        self._labels = {table_label(model): model._meta.label for model in connected_models()}

    def collect(self) -> Iterator[Metric]:
        """Return all metrics with their figures, those of the database if there are any; see docs/metrics.md."""
        yield from self._counted(self._counting.total())
        yield from self._process(self._liveness())
        yield from self._surveyed(self._figures())

    def _counted(self, found: Counts) -> Iterator[Metric]:
        delivered: Counter[tuple[str, str]] = Counter()
        for (table, operation), count in found.changes.items():
            if table in self._labels:
                delivered[self._labels[table], route_of(operation).change_type] += count
        unheard = {self._labels[table]: count for table, count in found.unheard.items() if table in self._labels}
        yield _counter("changes_delivered", "Changes delivered and committed.", delivered, "model", "change_type")
        yield _counter("changes_unheard", "Of these, changes of models without a receiver.", unheard, "model")
        yield _counter("gaps", "Gaps sent by gap_detected.", found.gaps, "cause")
        yield _histogram("latency", "From the capture of a change to its receivers.", {(): found.latency})
        fresh = {self._labels[table]: each for table, each in found.freshness.items() if table in self._labels}
        yield _histogram("freshness", "From systemmodstamp to the capture, of a sample of changes.", fresh, "model")
        yield _histogram("receiver", "Duration of receiver calls.", found.receivers, "receiver")
        failures = {receiver: found.failures[receiver] for receiver in found.receivers}
        yield _counter("receiver_failures", "Calls that raised.", failures, "receiver")

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
        names = [*Delivery.State.values, "waiting"]
        states = {state: found.consumer.deliveries.get(state, 0) for state in names} if found else {}
        yield _gauge("deliveries", "Stored deliveries, counted to 100000.", states, "state")
        yield _gauge("drift", "1 if capture does not work as it should.", found.drift if found else {}, "table")
        yield _gauge("log_bytes", "Size of the log on disk.", {(): found.log_bytes} if found else {})
        workers = {(): found.consumer.workers} if found else {}
        yield _gauge("workers", "Worker connections of the consumer, in all processes.", workers)
        yield _gauge("survey_timestamp_seconds", "When these figures were read.", {(): found.at} if found else {})


def _counter(name: str, text: str, values: Mapping[Any, float], *labels: str) -> Metric:
    return _filled(CounterMetricFamily(f"hc_signals_{name}", text, labels=labels), values)


def _gauge(name: str, text: str, values: Mapping[Any, float], *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(f"hc_signals_{name}", text, labels=labels), values)


def _histogram(name: str, text: str, values: Mapping[Any, Histogram], *labels: str) -> Metric:
    family = HistogramMetricFamily(f"hc_signals_{name}_seconds", text, labels=labels)
    for each, histogram in values.items():
        family.add_metric([each] if isinstance(each, str) else each, histogram.buckets(), histogram.sum)
    return family


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[Any, float]) -> Metric:
    """Add the values, by the one label or by the tuple of labels."""
    for labels, value in values.items():
        family.add_metric([labels] if isinstance(labels, str) else labels, value)
    return family
