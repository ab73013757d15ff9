"""What reading ahead gains over a network: a backlog delivered with and without it, at several round-trip times.

Reading ahead stays in the worker as long as it gains 15 % at 1 ms; on Heroku a server is about that far away.
"""

from benchmarks import workload
from benchmarks.figures.drain import deliver
from benchmarks.options import Options
from benchmarks.rows import Row, alternate, median, percent, rate
from benchmarks.server import Server
from benchmarks.slow_network import round_trips_of

ROUND_TRIPS = (0, 1, 5)
"""Milliseconds."""
RECEIVERS = {"nothing": "a signal for each change", "bulk": "records_changed"}


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    count = options.size(20_000, 5_000)
    workload.capture_backlog(count)
    return [_measure(options, count, time, receiver) for time in ROUND_TRIPS for receiver in RECEIVERS]


def _measure(options: Options, count: int, milliseconds: int, receiver: str) -> Row:
    runs = {
        "with": lambda: count / deliver(receiver, count),
        "without": lambda: count / deliver(receiver, count, ahead=False),
    }
    with round_trips_of(milliseconds):
        values = alternate(f"network, {milliseconds} ms", options, runs)
    ours, without = values["with"], values["without"]
    return Row(
        "network",
        f"backlog, round trips of {milliseconds} ms, {RECEIVERS[receiver]}, reading ahead",
        rate(median(ours)),
        f"without: {rate(median(without))}",
        percent(ours, without),
        "%",
        at_least=115 if milliseconds == 1 else None,
    )
