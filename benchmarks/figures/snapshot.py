"""Whether an open snapshot in another session slows delivery, and how many dead rows it leaves in the log.

Short backlogs are appended and delivered repeatedly, first without and then with a REPEATABLE READ transaction open in
another session. The second half of the time under the snapshot counts. The two cannot take turns, so each delivery
takes turns with the bare loop; the figure is the share of the bare loop's rate.
"""

import time

import psycopg

from benchmarks import workload
from benchmarks.figures.drain import bare_loop
from benchmarks.options import Options
from benchmarks.records import receivers
from benchmarks.rows import Row, median, rate, say
from benchmarks.server import Server
from hc_signals.worker.loop import Worker

CYCLE = 2_000
MEGABYTES_PER_SECOND = 40
"""Megabytes that the appended changes may fill per second of the held snapshot; a slow machine filled 14."""


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    seconds = options.snapshot_seconds
    if not server.has_room(int(seconds * MEGABYTES_PER_SECOND)):
        say(f"snapshot: {seconds:.0f} s are left out: too little disk")
        return []
    workload.clear()
    receivers.connect("nothing")
    try:
        worker = workload.worker()
        say("snapshot: without")
        before = _cycles(worker, max(3.0, seconds / 3))
        with psycopg.connect(server.database_url()) as other:
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            other.execute("SELECT count(*) FROM public.hc_signals_position")
            say(f"snapshot: held open for {seconds:.0f} s (--snapshot-seconds)")
            during = _cycles(worker, seconds)
            # The server's own count since the tables were created, not autovacuum's estimate.
            workload.execute("SELECT pg_stat_force_next_flush()")
            ((dead,),) = workload.execute(
                "SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname LIKE 'hc_signals_change%'"
            )
    finally:
        receivers.disconnect()
    late = during[len(during) // 2 :]
    slower = 100 * (1 - median([share for _, share in late]) / median([share for _, share in before]))
    held = f"after {seconds:.0f} s"
    return [
        Row(
            "snapshot",
            f"delivery under a held snapshot, {held}, slower by",
            rate(median([found for found, _ in late])),
            f"without: {rate(median([found for found, _ in before]))}",
            slower,
            "%",
            at_most=5,
        ),
        Row("snapshot", f"dead rows in the log, {held}", f"{dead}", "", float(dead), "", at_most=0),
    ]


def _cycles(worker: Worker, seconds: float) -> list[tuple[float, float]]:
    """Append and deliver until the time is up; return each rate, and its share of the bare loop's."""
    rates, end = [], time.monotonic() + seconds
    while time.monotonic() < end or len(rates) < 4:
        workload.append_backlog(CYCLE)
        began = time.perf_counter()
        worker.deliver_once()
        delivered = time.perf_counter() - began
        rates.append((CYCLE / delivered, bare_loop(CYCLE) / delivered))
    return rates
