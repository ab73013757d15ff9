"""The processor time of the worker's process for one change, with 1, 10 and 100 receivers that do nothing.

The receivers of ``records_changed`` are called once for each page; the one here reads no instance, so none is built.
The bare loop is that of the figure ``drain``.
"""

import time
from collections.abc import Callable
from typing import Any

from benchmarks import workload
from benchmarks.figures.drain import bare_loop, connect_bare, deliver
from benchmarks.options import Options
from benchmarks.records.models import BareCaptured
from benchmarks.rows import Row, alternate
from benchmarks.server import Server
from hc_signals.signals import record_changed

LIMITS = {1: 20.0, 10: None, 100: 100.0}
"""Most microseconds by number of receivers."""


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    count = options.size(5_000, 1_000)
    workload.capture_backlog(count)
    connect_bare()
    runs: dict[str, Callable[[], object]] = {
        "bare loop": lambda: bare_loop(count),
        "records_changed": lambda: deliver("bulk", count),
    }
    runs |= {f"{number} receivers": lambda number=number: _deliver(number, count) for number in LIMITS}  # type: ignore[misc]
    timed = {name: lambda run=run: _microseconds(run, count) for name, run in runs.items()}  # type: ignore[misc]
    # The least of the rounds: processor time only grows with other load.
    least = {name: min(found) for name, found in alternate("receivers", options, timed, unit="µs").items()}
    bare = f"bare loop: {least['bare loop']:.1f} µs"
    rows = [
        _row(
            f"processor time of a change, receivers that do nothing: {number}",
            least[f"{number} receivers"],
            bare,
            limit,
        )
        for number, limit in LIMITS.items()
    ]
    return [*rows, _row("processor time of a change, records_changed", least["records_changed"], bare, 11.0)]


def _row(what: str, ours: float, bare: str, limit: float | None) -> Row:
    return Row("receivers", what, f"{ours:.1f} µs", bare, ours, "µs", at_most=limit)


def _microseconds(run: Callable[[], object], count: int) -> float:
    began = time.process_time()
    run()
    return (time.process_time() - began) * 1e6 / count


def _deliver(number: int, count: int) -> None:
    worker, receivers = workload.worker(), [_receiver() for _ in range(number)]
    for index, receiver in enumerate(receivers):
        record_changed.connect(receiver, sender=BareCaptured, dispatch_uid=f"benchmark {index}")
    try:
        worker.deliver_once()
    finally:
        for index in range(number):
            record_changed.disconnect(sender=BareCaptured, dispatch_uid=f"benchmark {index}")
    if worker.delivered != count:
        raise RuntimeError(f"{worker.delivered} of {count} changes were delivered")


def _receiver() -> Callable[..., None]:
    def nothing(instance: Any, event: Any, **kwargs: Any) -> None:
        pass

    return nothing
