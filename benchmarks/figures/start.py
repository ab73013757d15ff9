"""From the start of ``hc_listen`` to its first delivery, compared with ``manage.py check`` of the same project."""

import time

from benchmarks import workload
from benchmarks.options import Options
from benchmarks.processes import Mailbox, end, mailbox, start
from benchmarks.rows import Row, alternate, median, ratio
from benchmarks.server import Server


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    workload.capture_backlog(1)
    with mailbox() as box:
        runs = {"check": _check, "hc_listen": lambda: _first_delivery(box)}
        values = alternate("start", options, runs, unit="s")
    ours, check = values["hc_listen"], values["check"]
    what = "start of hc_listen to the first delivery"
    against = f"manage.py check: {median(check):.2f} s"
    return [Row("start", what, f"{median(ours):.2f} s", against, ratio(ours, check), "×", at_most=1.5)]


def _check() -> float:
    began = time.monotonic()
    process = start("-m", "django", "check")
    process.communicate()
    return time.monotonic() - began


def _first_delivery(box: Mailbox) -> float:
    workload.execute("TRUNCATE public.hc_signals_position")
    began = time.monotonic_ns()
    process = start("-m", "django", "hc_listen", "-v", "0", BENCH_RECEIVER="clock", BENCH_SOCKET=box.path)
    try:
        return (box.wait_for(1)[0][0] - began) / 1e9
    finally:
        end(process)
