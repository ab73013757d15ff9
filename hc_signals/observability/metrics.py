"""The figures of hc_listen for Prometheus: what the workers did, what they are at, what the survey found.

Counted here and not in prometheus_client's own objects: these are locked for each single value, and the path of a
change is hot. Needs prometheus_client (extra ``metrics``).
"""

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hc_signals import __version__
from hc_signals.conf import Conf
from hc_signals.delivery.event import cause_of
from hc_signals.delivery.pulse import Observer, Tally
from hc_signals.delivery.routing import OF_RECORDS, route_of
from hc_signals.observability.liveness import Liveness
from hc_signals.observability.survey import Survey
from hc_signals.tables import connected_models, table_label

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Upper bounds of both histograms in seconds."""


class Histogram:
    """Counts values by bucket."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, values: Iterable[float]) -> None:
        """Count values in seconds."""
        for value in values:
            self.counts[bisect_left(BOUNDS, value)] += 1
            self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return the upper bounds with the counts of what lies at or below."""
        names = [*map(str, map(float, BOUNDS)), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


class Metrics(Observer, Collector):
    """Counts what the workers of this process do, and gives all figures to whoever scrapes.

    Args:
        conf: the checked setting.
        threads: how many workers this process has.
        liveness: looks at the process.
        survey: gives the newest survey, None if there is none.
    """

    def __init__(
        self, conf: Conf, threads: int, liveness: Callable[[], Liveness], survey: Callable[[], Survey | None]
    ) -> None:
        self.conf, self.threads, self._liveness, self._survey = conf, threads, liveness, survey
        self._labels = {table_label(model): model._meta.label for model in connected_models()}
        self._guard = threading.Lock()
        self._delivered: Counter[tuple[str, str]] = Counter()
        self._unheard: Counter[str] = Counter()
        self._gaps: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._latency = Histogram()
        self._receivers: dict[str, Histogram] = defaultdict(Histogram)

    def page_ends(self, tally: Tally, error: BaseException | None) -> None:
        """Count a page. One that was not committed comes again: only the calls of its receivers have happened."""
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

    def describe(self) -> Iterator[Metric]:
        """Name all metrics without a look at anything; labels are in docs/metrics.md."""
        yield from (*self._counted(), *self._process(None), *self._surveyed(None))

    def collect(self) -> Iterator[Metric]:
        """Give all figures; those of the survey only where there is one."""
        with self._guard:
            yield from self._counted()
        yield from self._process(self._liveness())
        yield from self._surveyed(self._survey())

    def _counted(self) -> list[Metric]:
        delivered = CounterMetricFamily(
            "hc_signals_changes_delivered", "Changes handed on and committed.", labels=["model", "change_type"]
        )
        for labels, count in self._delivered.items():
            delivered.add_metric(labels, count)
        unheard = CounterMetricFamily(
            "hc_signals_changes_unheard", "Of them, changes of models without any receiver.", labels=["model"]
        )
        for model, count in self._unheard.items():
            unheard.add_metric([model], count)
        gaps = CounterMetricFamily("hc_signals_gaps", "Gaps told by gap_detected.", labels=["cause"])
        for cause, count in self._gaps.items():
            gaps.add_metric([cause], count)
        latency = HistogramMetricFamily("hc_signals_latency_seconds", "From the capture of a change to its receivers.")
        latency.add_metric([], self._latency.buckets(), self._latency.sum)
        calls = HistogramMetricFamily("hc_signals_receiver_seconds", "Duration of receiver calls.", labels=["receiver"])
        failures = CounterMetricFamily("hc_signals_receiver_failures", "Calls that raised.", labels=["receiver"])
        for receiver, histogram in self._receivers.items():
            calls.add_metric([receiver], histogram.buckets(), histogram.sum)
            failures.add_metric([receiver], self._failures[receiver])
        return [delivered, unheard, gaps, latency, calls, failures]

    def _process(self, found: Liveness | None) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "hc_signals_worker_info", "This process; always 1.", labels=["version", "consumer", "shards", "threads"]
        )
        info.add_metric([__version__, self.conf.CONSUMER, str(self.conf.SHARDS), str(self.threads)], 1)
        running = GaugeMetricFamily(
            "hc_signals_receiver_running_seconds", "How long the receiver of each worker has run.", labels=["worker"]
        )
        reconnects = CounterMetricFamily("hc_signals_reconnects", "Lost connections.", labels=["connection"])
        healthy = GaugeMetricFamily("hc_signals_healthy", "1 where /healthz is green.")
        listening = GaugeMetricFamily("hc_signals_listening", "1 where a ring would be heard.")
        errors = CounterMetricFamily("hc_signals_errors", "Failed tries of the threads.", labels=["task", "code"])
        trouble = GaugeMetricFamily("hc_signals_trouble", "1 where a task fails now.", labels=["task"])
        turned = GaugeMetricFamily(
            "hc_signals_helper_turn_seconds", "Time since the last turn of each helper thread.", labels=["helper"]
        )
        ping = GaugeMetricFamily("hc_signals_last_ping_timestamp_seconds", "When a ring to ourselves last came back.")
        if found is not None:
            workers: list[dict[str, Any]] = list(found.workers)
            for work in workers:
                running.add_metric([str(work["worker"])], work["receiver_seconds"])
            reconnects.add_metric(["listener"], found.bell.reconnects)
            reconnects.add_metric(["worker"], sum(work["reconnects"] for work in workers))
            for each in found.troubles:
                trouble.add_metric([each.name], bool(each.text))
                for code, count in each.errors.copy().items():
                    errors.add_metric([each.name, code], count)
            helpers: list[dict[str, Any]] = list(found.helpers)
            for helper in helpers:
                turned.add_metric([helper["helper"]], helper["turned_seconds_ago"])
            healthy.add_metric([], found.is_alive)
            listening.add_metric([], found.bell.listens)
            if found.bell.heard_at is not None:
                ping.add_metric([], found.bell.heard_at)
        yield from (info, running, reconnects, errors, trouble, turned, healthy, listening, ping)

    def _surveyed(self, found: Survey | None) -> Iterator[Metric]:
        backlog = GaugeMetricFamily("hc_signals_backlog", "Undelivered changes, counted to 10000.", labels=["shard"])
        lag = GaugeMetricFamily("hc_signals_lag_seconds", "Age of the oldest undelivered change.", labels=["shard"])
        states = GaugeMetricFamily("hc_signals_deliveries", "Failed deliveries, counted to 100000.", labels=["state"])
        drift = GaugeMetricFamily("hc_signals_drift", "1 where capture is not as it should be.", labels=["table"])
        size = GaugeMetricFamily("hc_signals_log_bytes", "Size of the log on disk.")
        workers = GaugeMetricFamily("hc_signals_workers", "Worker connections of the consumer, in all processes.")
        at = GaugeMetricFamily("hc_signals_survey_timestamp_seconds", "When these figures were taken.")
        if found is not None:
            for shard, each in found.backlogs.items():
                backlog.add_metric([str(shard)], each.count)
                lag.add_metric([str(shard)], found.lags[shard])
            for state, count in found.deliveries.items():
                states.add_metric([state], count)
            for table, has_drifted in found.drift.items():
                drift.add_metric([table], has_drifted)
            size.add_metric([], found.log_bytes)
            workers.add_metric([], found.workers)
            at.add_metric([], found.at)
        yield from (backlog, lag, states, drift, size, workers, at)
