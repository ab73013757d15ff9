"""Runs the figures and prints the table: ``make bench BENCH="--only drain,latency --rounds 3"``."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import django
from django.db import DatabaseError

from benchmarks import baseline, report
from benchmarks.options import Options, parse
from benchmarks.rows import Row, say
from benchmarks.server import Server, running


@dataclass(frozen=True)
class Figure:
    """Where a figure is measured, and what it needs."""

    module: str
    seconds: int
    """A rough estimate for the default options on two cores, to show how much of a run is left."""
    function: str = "measure"
    megabytes: int = 500
    quick: bool = True
    """Short enough for ``--quick``."""


FIGURES = {
    "drain": Figure("drain", 120),
    "calls": Figure("drain", 3, "measure_calls"),
    "effects": Figure("drain", 25, "measure_effects"),
    "latency": Figure("latency", 60),
    "sync": Figure("sync", 40),
    "capture": Figure("capture", 60),
    "jit": Figure("jit", 30),
    "writers": Figure("writers", 90, quick=False),
    "batches": Figure("batches", 180, quick=False),
    "app_writes": Figure("app_writes", 60, quick=False),
    "backlog": Figure("backlog", 60, megabytes=1500, quick=False),
    "snapshot": Figure("snapshot", 100, megabytes=2000, quick=False),
    "idle": Figure("idle", 150, quick=False),
    "memory": Figure("memory", 60, quick=False),
    "scaling": Figure("scaling", 60, quick=False),
    "start": Figure("start", 20),
    "network": Figure("network", 90, quick=False),
    "far": Figure("latency", 60, "measure_network", quick=False),
    "receivers": Figure("receivers", 40, quick=False),
    "shards": Figure("shards", 30, quick=False),
    "models": Figure("models", 90, quick=False),
}


def main() -> int:
    """Measure the chosen figures; return the exit code."""
    options = parse(None, list(FIGURES))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the server ends too
    with running(options) as server:
        os.environ["BENCH_URL"] = server.create()
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
        django.setup()
        import_module("benchmarks.workload").set_up()
        gc.freeze()  # as hc_listen does; the bare loops benefit as well
        rows = _measure_all(_chosen(options), options, server)
        version = server.version()
    print("\n" + "\n".join([*report.conditions(version), "", *report.lines(rows)]), flush=True)
    if options.document:
        report.write(rows, version)
    if options.write_baseline:
        baseline.write(rows)
    failures = baseline.compare(rows) if options.check else []
    for failure in failures:
        print(f"bench: {failure}", file=sys.stderr)
    return int(bool(failures))


def _chosen(options: Options) -> list[str]:
    if options.only:
        return list(options.only)
    if options.check or options.write_baseline:
        return list(baseline.FIGURES)
    return [name for name, figure in FIGURES.items() if figure.quick or not options.quick]


def _measure_all(names: list[str], options: Options, server: Server) -> list[Row]:
    rows: list[Row] = []
    for number, name in enumerate(names):
        left = "" if options.quick else f"; about {_minutes_of(names[number:])} minutes left with the default options"
        say(f"{name} begins, {number + 1} of {len(names)}{left}")
        rows += _measure(name, options, server)
    return rows


def _minutes_of(names: list[str]) -> int:
    return -(-sum(FIGURES[name].seconds for name in names) // 60)


def _measure(name: str, options: Options, server: Server) -> list[Row]:
    """Measure one figure; if it fails, say why and leave it out."""
    figure = FIGURES[name]
    if not server.has_room(figure.megabytes):
        say(f"{name} is left out: it needs {figure.megabytes} MB of disk and 1 GB to spare")
        return []
    measure: Callable[[Options, Server], list[Row]] = getattr(
        import_module(f"benchmarks.figures.{figure.module}"), figure.function
    )
    try:
        return measure(options, server)
    except (TimeoutError, RuntimeError, DatabaseError) as error:
        if options.check:
            raise
        say(f"{name} is left out, it could not be measured: {error}")
        return []


if __name__ == "__main__":
    sys.exit(main())
