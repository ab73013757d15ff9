"""Reads the figures of a crew for the metrics, wherever they go: to /metrics, or by OpenTelemetry's protocol."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hc_signals.exceptions import ConfigurationError
from hc_signals.observability.liveness import liveness
from hc_signals.observability.surveyor import Surveyor
from hc_signals.worker.crew import Crew

if TYPE_CHECKING:
    from hc_signals.observability.metrics import Metrics


@contextmanager
def measured(crew: Crew) -> "Iterator[Metrics]":
    """For the length of the block, read the figures of the database now and then; the metrics have all figures.

    Raises:
        ConfigurationError: prometheus_client is not installed.
    """
    try:
        from hc_signals.observability.metrics import Metrics
    except ImportError:
        needed = "Metrics need prometheus_client; run `pip install hc-signals[metrics]`, or leave out the option."
        raise ConfigurationError(needed) from None
    surveyor = Surveyor(crew.using, crew.conf, crew.watchdog)
    surveyor.start()
    try:
        yield Metrics(crew.conf, crew.size, crew.counting, lambda: liveness(crew.bell), lambda: surveyor.newest)
    finally:
        surveyor.stop()
