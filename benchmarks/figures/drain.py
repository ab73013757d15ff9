"""How fast a backlog is delivered: one worker, ordered, a signal for each change, effects exactly once.

The bare loop reads the same number of records through the ORM, in pages as large, and sends a Django signal for each:
fetch, ``Model.from_db``, ``Signal.send``. It has no log, no old values, no position, no isolation of receivers.
"""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from django.db import transaction
from django.dispatch import Signal

from benchmarks import peers, workload
from benchmarks.options import Options
from benchmarks.records import receivers
from benchmarks.records.models import BareCaptured, Effect
from benchmarks.rows import Row, alternate, median, percent, rate, ratio
from benchmarks.server import Server
from hc_signals.conf import Conf

PAGE = Conf().BATCH_SIZE
_bare_signal = Signal()


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    count = options.size(20_000, 2_000)
    workload.capture_backlog(count)
    connect_bare()
    runs: dict[str, Callable[[], float]] = {
        "bare loop": lambda: count / bare_loop(count),
        "hc_signals": lambda: count / deliver("nothing", count),
        "records_changed": lambda: count / deliver("bulk", count),
    }
    runs |= peers.runs(options, server)
    values = alternate("drain", options, runs, rounds=options.size(options.rounds, 3 * options.rounds))
    shown = {name: rate(median(rates)) for name, rates in values.items()}
    ours, bare, bulk = values["hc_signals"], values["bare loop"], values["records_changed"]
    rows = [
        _row("backlog, a signal for each change", shown["hc_signals"], shown["bare loop"], percent(ours, bare), 60),
        _row(
            "backlog, records_changed",
            shown["records_changed"],
            shown["bare loop"],
            percent(bulk, bare),
            90,
            steady=False,
        ),
    ]
    for peer in peers.PEERS:
        if peer.label in values:
            measured = ratio(ours, values[peer.label])
            against = f"{peer.label}: {shown[peer.label]}"
            what = "the same, and a peer's backlog"
            rows.append(Row("drain", what, shown["hc_signals"], against, measured, "×", at_least=peer.at_least))
    return rows


def _row(what: str, ours: str, bare: str, measured: float, target: float, *, steady: bool = True) -> Row:
    return Row("drain", what, ours, f"bare loop: {bare}", measured, "%", at_least=target, steady=steady)


def measure_calls(options: Options, server: Server) -> list[Row]:
    """Count the calls of Python and C functions per change: a figure that neither machine nor load can change.

    It finds code that was added to the way of each change. It does not see how long a call takes.
    """
    count = 2 * PAGE
    workload.capture_backlog(count)
    connect_bare()
    ours = _calls(lambda: deliver("nothing", count)) / count
    bare = _calls(lambda: bare_loop(count)) / count
    return [
        Row(
            "calls",
            "function calls per change",
            f"{ours:.1f}",
            f"bare loop: {bare:.1f}",
            ours / bare,
            "×",
            at_most=2,
            steady=True,
            exact=True,
        )
    ]


def _calls(run: Callable[[], object]) -> int:
    """Return how many functions the run calls in this thread, after a first run that fills caches."""
    run()
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def measure_effects(options: Options, server: Server) -> list[Row]:
    """Measure a receiver that writes one row by the ORM.

    The bare loop makes the same writes in pages. A second one puts each write into a block of ``atomic()``, so that one
    that fails does not take the page along: that is what a receiver's call has here.
    """
    count = options.size(5_000, 500)
    workload.capture_backlog(count)
    runs = {
        "bare loop": lambda: count / bare_writes(count),
        "bare loop with savepoints": lambda: count / bare_writes(count, savepoints=True),
        "hc_signals": lambda: count / deliver("write", count),
    }
    values = alternate("effects", options, runs, rounds=options.size(options.rounds, 3 * options.rounds))
    ours, what = values["hc_signals"], "backlog, the receiver writes a row"
    rows = []
    for name, limit in (("bare loop", 85), ("bare loop with savepoints", None)):
        against, measured = f"{name}: {rate(median(values[name]))}", percent(ours, values[name])
        rows.append(
            Row("effects", what, rate(median(ours)), against, measured, "%", at_least=limit, steady=bool(limit))
        )
    return rows


def deliver(receiver: str, count: int, *, ahead: bool = True) -> float:
    """Deliver the whole backlog to one receiver; return the seconds.

    Args:
        ahead: read the next page while the receiver is called.
    """
    worker = workload.worker()
    receivers.connect(receiver)
    try:
        began = time.perf_counter()
        worker.deliver_once(ahead=ahead)
        seconds = time.perf_counter() - began
    finally:
        receivers.disconnect()
    if worker.delivered != count:
        raise RuntimeError(f"{worker.delivered} of {count} changes were delivered")
    return seconds


def connect_bare() -> None:
    """Connect the receiver of the bare loop."""
    _bare_signal.connect(_nothing, sender=BareCaptured)


def bare_loop(count: int) -> float:
    """Fetch, from_db, send; return the seconds."""
    began = time.perf_counter()
    done = last = 0
    while done < count:
        for instance in BareCaptured.objects.filter(pk__gt=last).order_by("pk")[: min(PAGE, count - done)]:
            _bare_signal.send(sender=BareCaptured, instance=instance, using="default")
            done, last = done + 1, instance.pk
    return time.perf_counter() - began


def bare_writes(count: int, *, savepoints: bool = False) -> float:
    """Write the rows that the receiver would write, each in a savepoint if wanted; return the seconds."""
    began = time.perf_counter()
    for first in range(0, count, PAGE):
        with transaction.atomic():
            for number in range(first, min(first + PAGE, count)):
                with transaction.atomic() if savepoints else nullcontext():
                    Effect.objects.create(event_id=f"{number}-1700000000000000", name=f"Changed {number}")
    return time.perf_counter() - began


def _nothing(**kwargs: Any) -> None:
    pass
