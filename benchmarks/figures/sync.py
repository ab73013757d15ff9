"""What capture costs Heroku Connect: a batch of 500 rows written by one statement, with its own triggers on the table.

Both tables have Heroku Connect's own triggers; one has ours too. No worker runs, so none competes for the processor. A
sleeping worker would add one NOTIFY per batch.
"""

import time

from benchmarks import workload
from benchmarks.options import Options
from benchmarks.records.models import Captured, Uncaptured
from benchmarks.rows import Row, alternate, median, percent, rate
from benchmarks.server import Server

BATCH = 500


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    workload.clear()
    workload.pack(Captured, Uncaptured)
    runs = {
        "without": lambda: BATCH / _write(Uncaptured),
        "with": lambda: BATCH / _write(Captured),
    }
    for run in runs.values():
        run()
    values = alternate("sync", options, runs, rounds=6 * options.rounds)
    measured = percent(values["with"], values["without"])
    against = f"without the bridge: {rate(median(values['without']))}"
    what = "500-row sync batch, Heroku Connect's own triggers"
    return [Row("sync", what, rate(median(values["with"])), against, measured, "%", at_least=95, steady=True)]


def _write(model: type) -> float:
    """Write one batch in a transaction of its own; return the seconds."""
    began = time.perf_counter()
    workload.as_heroku_connect(workload.updates(BATCH, model))
    return time.perf_counter() - began
