"""Whether a page costs more with a longer backlog or with more retained changes; and the worker's memory.

A separate process delivers pages from the start of ever longer backlogs, and pages behind many delivered changes. Its
peak memory is read at the end. The first page opens the window and does not count. Backlogs of different lengths cannot
take turns, so each page takes turns with the bare loop; the figure is how many times as long it takes.
"""

import json
from dataclasses import dataclass

from benchmarks import workload
from benchmarks.figures.drain import PAGE
from benchmarks.options import Options
from benchmarks.processes import start
from benchmarks.rows import Row, median, ratio, say
from benchmarks.server import Server

SHORTEST = 20 * PAGE
"""At least as many changes as are read: a page without changes takes no time."""
MEGABYTES_PER_MILLION = 1_300
"""Bytes of one change with its index entries; 1,160 were measured."""


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    sizes = [SHORTEST, 1_000_000, 10_000_000] if options.large else [SHORTEST, options.size(300_000, 50_000)]
    retained = 5_000_000 if options.large else options.size(300_000, 50_000)
    workload.clear()
    rows: list[Row] = []
    waiting, base = 0, None
    for size in sizes:
        if not server.has_room((size - waiting) * MEGABYTES_PER_MILLION // 1_000_000):
            say(f"backlog: {size:,} is left out: too little disk")
            continue
        _append(size - waiting)
        waiting = size
        pages = _pages(options, f"from-{size}")
        base = base or pages
        rows += _rows(f"a page of {PAGE:,}, backlog of {size:,}", pages, base)
    if not server.has_room(max(0, retained - waiting) * MEGABYTES_PER_MILLION // 1_000_000):
        say(f"backlog: {retained:,} retained is left out: too little disk")
        return rows
    _append(max(0, retained - waiting))
    workload.skip_to_now("retained")
    _append(SHORTEST)
    pages = _pages(options, "retained")
    return rows + _rows(f"a page of {PAGE:,}, {max(retained, waiting):,} retained", pages, base or pages)


def _append(count: int) -> None:
    step = 100_000
    for done in range(0, count, step):
        workload.append_backlog(min(step, count - done))
        if (done // step) % 10 == 9:
            say(f"backlog: {done + step:,} of {count:,} appended")
    workload.execute("ANALYZE public.hc_signals_change")


@dataclass(frozen=True)
class Pages:
    """What one process measured."""

    milliseconds: float
    """Of a page."""
    times: float
    """Duration of a page divided by that of the bare loop."""
    megabytes: float


def _pages(options: Options, consumer: str) -> Pages:
    """Deliver pages to a consumer in a separate process."""
    process = start("-m", "benchmarks.paging", consumer, str(options.size(19, 10)))
    output, _ = process.communicate()
    found = json.loads(output)
    times = ratio(found["seconds"][1:], found["bare"][1:])
    pages = Pages(1000 * median(found["seconds"][1:]), times, found["megabytes"])
    said = f"{pages.milliseconds:.1f} ms a page, {times:.2f} × the bare loop, {pages.megabytes:.0f} MB"
    say(f"backlog: {consumer}: {said}")
    return pages


def _rows(what: str, pages: Pages, base: Pages) -> list[Row]:
    rows = [Row("backlog", f"{what}, memory", f"{pages.megabytes:.0f} MB", "", pages.megabytes, "MB", at_most=200)]
    if pages is not base:
        shown = f"{pages.milliseconds:.1f} ms, {pages.times:.2f} × the bare loop"
        against = f"backlog of {SHORTEST:,}: {base.milliseconds:.1f} ms, {base.times:.2f} ×"
        rows.insert(0, Row("backlog", what, shown, against, pages.times / base.times, "×", at_most=1.1))
    return rows
