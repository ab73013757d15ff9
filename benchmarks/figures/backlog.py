"""Whether the cost of a page depends on how much waits behind it, or on how much is retained; and the worker's memory.

Pages are delivered from the beginning of backlogs of growing length, and from one behind many delivered changes, by a
process of its own whose largest memory is read at the end. The middle of its page times counts, without the first page,
which opens the window.
"""

import json

from benchmarks import workload
from benchmarks.options import Options
from benchmarks.processes import start
from benchmarks.rows import Row, median, rate, say
from benchmarks.server import Server

MEGABYTES_PER_MILLION = 2_600


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    sizes = [10_000, 1_000_000, 10_000_000] if options.large else [10_000, options.size(300_000, 50_000)]
    retained = 5_000_000 if options.large else options.size(300_000, 50_000)
    workload.clear()
    rows, waiting, base = [], 0, 0.0
    for size in sizes:
        if not server.has_room((size - waiting) * MEGABYTES_PER_MILLION // 1_000_000):
            say(f"backlog: {size:,} is left out: too little disk")
            continue
        _append(size - waiting)
        waiting = size
        seconds, memory = _pages(options, f"from-{size}")
        base = base or seconds
        rows += _rows(f"a page of 500, backlog of {size:,}", seconds, base, memory, 10_000)
    if not server.has_room(max(0, retained - waiting) * MEGABYTES_PER_MILLION // 1_000_000):
        say(f"backlog: {retained:,} retained is left out: too little disk")
        return rows
    _append(max(0, retained - waiting))
    workload.skip_to_now("retained")
    _append(10_000)
    seconds, memory = _pages(options, "retained")
    return rows + _rows(f"a page of 500, {max(retained, waiting):,} retained", seconds, base, memory, 10_000)


def _append(count: int) -> None:
    step = 100_000
    for done in range(0, count, step):
        workload.append_backlog(min(step, count - done))
        if (done // step) % 10 == 9:
            say(f"backlog: {done + step:,} of {count:,} appended")
    workload.execute("ANALYZE public.hc_signals_change")


def _pages(options: Options, consumer: str) -> tuple[float, float]:
    """Return the seconds of a page, and the megabytes of the process that delivered it."""
    process = start("-m", "benchmarks.paging", consumer, str(min(19, options.size(19, 10))))
    output, _ = process.communicate()
    found = json.loads(output)
    seconds = median(found["seconds"][1:])
    say(f"backlog: {consumer}: {1000 * seconds:.1f} ms a page, {found['megabytes']:.0f} MB")
    return seconds, found["megabytes"]


def _rows(what: str, seconds: float, base: float, memory: float, base_size: int) -> list[Row]:
    shown = f"{1000 * seconds:.1f} ms, {rate(500 / seconds)}"
    against = f"backlog of {base_size:,}: {1000 * base:.1f} ms"
    rows = [Row("backlog", f"{what}, memory", f"{memory:.0f} MB", "", memory, "MB", at_most=200)]
    if seconds != base:
        rows.insert(0, Row("backlog", what, shown, against, seconds / base, "×", at_most=1.1))
    return rows
