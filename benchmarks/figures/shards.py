"""The read of the log that a worker makes before it falls asleep, with 1, 16 and 64 shards."""

import time

from benchmarks import processor, workload
from benchmarks.options import Options
from benchmarks.rows import Row, alternate
from benchmarks.server import Server
from hc_signals.conf import Conf
from hc_signals.delivery.failures import waiting_shards

LIMITS = {1: None, 16: None, 64: 250.0}
"""Most microseconds by number of shards."""
READS = 200


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    workload.capture_backlog(1_000)
    confs = {}
    for shards in LIMITS:
        worker = workload.worker(SHARDS=shards)
        worker.deliver_once()
        confs[f"{shards} shards"] = worker.conf
    is_countable = processor.is_countable("shards", server)
    ((pid,),) = workload.execute("SELECT pg_backend_pid()")
    used: dict[str, list[float]] = {name: [] for name in confs}

    def microseconds(name: str, conf: Conf) -> float:
        before, began = processor.used([pid]) if is_countable else 0.0, time.perf_counter()
        for _ in range(READS):
            waiting, _ = waiting_shards("default", conf)
        seconds = time.perf_counter() - began
        if waiting:
            raise RuntimeError(f"{len(waiting)} of {name} have something to deliver")
        used[name].append((processor.used([pid]) - before) * 1e6 / READS if is_countable else 0.0)
        return seconds * 1e6 / READS

    runs = {name: lambda name=name, conf=conf: microseconds(name, conf) for name, conf in confs.items()}  # type: ignore[misc]
    least = {name: min(found) for name, found in alternate("shards", options, runs, unit="µs").items()}
    return [
        Row(
            "shards",
            f"a read of the log, {shards} shards",
            f"{least[name]:.0f} µs",
            f"of it, cpu of the server: {min(used[name]):.0f} µs" if is_countable else "",
            least[name],
            "µs",
            at_most=limit,
        )
        for (shards, limit), name in zip(LIMITS.items(), confs, strict=True)
    ]
