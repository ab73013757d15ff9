"""Whether a worker's memory grows with the changes that it has delivered: ``--only memory --changes 10000000``.

A real hc_listen delivers to one receiver. Changes are appended to the log in bulk, as a capture function appends them,
and the log is emptied whenever all are delivered, as the rotation of the log empties its buckets.
"""

import time

from benchmarks import workload
from benchmarks.options import Options
from benchmarks.processes import PATIENCE, listening, megabytes_of
from benchmarks.rows import Row, say
from benchmarks.server import Server
from hc_signals.log.backlog import backlog
from hc_signals.log.position import LogShard

CONSUMER = "memory"
STEP = 20_000
"""Changes that are appended at a time."""
READINGS = 10
"""Number of readings, evenly spaced. The first one is after a tenth of the changes, with full caches."""


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    workload.clear()
    total = options.changes
    readings: list[tuple[int, float]] = []
    with listening("nothing", BENCH_CONSUMER=CONSUMER) as process:
        for done in range(STEP, total + STEP, STEP):
            workload.append_backlog(STEP)
            _deliver()
            workload.execute("TRUNCATE public.hc_signals_change")
            if done >= total * (len(readings) + 1) / READINGS:
                readings.append((done, megabytes_of(process)))
                say(f"memory: {done:,} of {total:,} changes delivered, {readings[-1][1]:.1f} MB")
    first, last = readings[0], readings[-1]
    return [
        Row(
            "memory",
            f"worker's memory after {last[0]:,} changes",
            f"{last[1]:.1f} MB",
            f"after {first[0]:,}: {first[1]:.1f} MB",
            last[1] / first[1],
            "×",
            at_most=1.05,
        )
    ]


def _deliver() -> None:
    """Wake the worker and wait until all is delivered.

    Raises:
        TimeoutError: changes are still undelivered after PATIENCE seconds.
    """
    workload.execute("SELECT public.hc_signals_ring()")
    deadline = time.monotonic() + PATIENCE
    while backlog([LogShard("default", CONSUMER)], limit=0).count:
        if time.monotonic() > deadline:
            raise TimeoutError("hc_listen did not deliver all changes; run it by hand to see why")
        time.sleep(0.05)
