"""Captures and delivers changes in turns, with JIT on and off, on the server of BENCH_URL; prints processor times."""

import json
import os
import sys
import time

import django

from benchmarks import processor

COUNT = 2000
"""Changes of a turn."""
BATCH = 500


def main(rounds: int) -> None:
    """Print the milliseconds of processor time by part and by the value of ``jit``, the least of ``rounds`` turns."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    django.setup()
    from benchmarks import workload
    from benchmarks.records.models import BareCaptured

    workload.set_up(BareCaptured, records=COUNT)
    found: dict[str, dict[str, list[float]]] = {"capture": {"on": [], "off": []}, "delivery": {"on": [], "off": []}}
    for number in range(rounds):
        for jit in ("on", "off") if number % 2 else ("off", "on"):
            found["capture"][jit].append(_capture(jit))
            found["delivery"][jit].append(_deliver(jit))
    print(json.dumps({part: {jit: min(times) for jit, times in by.items()} for part, by in found.items()}))


def _capture(jit: str) -> float:
    from benchmarks import workload

    workload.clear()
    pid = _new_session(jit)
    before = processor.used([pid])
    for _ in range(COUNT // BATCH):
        workload.as_heroku_connect(workload.updates(BATCH))
    return 1000 * (processor.used([pid]) - before)


def _deliver(jit: str) -> float:
    from benchmarks.figures.drain import deliver

    pid = _new_session(jit)
    before = processor.used([pid]) + time.process_time()
    deliver("nothing", COUNT, ahead=False)
    return 1000 * (processor.used([pid]) + time.process_time() - before)


def _new_session(jit: str) -> int:
    """Connect Django's database in a new session; return the id of the server's process."""
    from django.db import connection

    from benchmarks import workload

    connection.close()
    os.environ["PGOPTIONS"] = f"-c jit={jit}"
    ((pid,),) = workload.execute("SELECT pg_backend_pid()")
    return int(pid)


if __name__ == "__main__":
    main(int(sys.argv[1]))
