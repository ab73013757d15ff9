"""How delivery scales with threads and with processes, for receivers that take 5 ms each.

All runs split the records into 16 shards. The rate counts from the first to the last delivered change, so starting the
processes does not count.
"""

import contextlib
import itertools
import time

from benchmarks import workload
from benchmarks.options import Options
from benchmarks.processes import Mailbox, end, mailbox, start
from benchmarks.rows import Row, alternate, median, rate, ratio
from benchmarks.server import Server

SHARDS = "16"
_consumers = itertools.count()


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    count = options.size(1600, 600)
    workload.capture_backlog(count)
    with mailbox() as box:
        runs = {
            "one": lambda: _rate(box, count, 1, 1),
            "4 threads": lambda: _rate(box, count, 1, 4),
            "4 processes": lambda: _rate(box, count, 4, 1),
        }
        values = alternate("scaling", options, runs, rounds=min(3, options.rounds))
    rows = []
    for name in ("4 threads", "4 processes"):
        measured = ratio(values[name], values["one"])
        against = f"one: {rate(median(values['one']))}"
        what = f"1 → {name}, receivers of 5 ms"
        rows.append(Row("scaling", what, rate(median(values[name])), against, measured, "×", at_least=3.6))
    return rows


def _rate(box: Mailbox, count: int, processes: int, threads: int) -> float:
    """Deliver the backlog to a new consumer; return changes per second."""
    arguments = ("-m", "django", "hc_listen", "-v", "0", "--concurrency", str(threads))
    consumer = f"scaling-{next(_consumers)}"
    environment = {"BENCH_SHARDS": SHARDS, "BENCH_CONSUMER": consumer, "BENCH_RECEIVER": "slow"}
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            stack.callback(end, start(*arguments, BENCH_SOCKET=box.path, **environment))
        letters = box.wait_for(count)
    time.sleep(0.1)
    moments = sorted(moment for moment, _ in letters)
    # The first tenth does not count: processes do not start at the same moment.
    first = count // 10
    return (count - first) * 1e9 / (moments[-1] - moments[first])
