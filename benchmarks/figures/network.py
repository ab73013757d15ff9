"""What reading ahead gains over a network: a backlog delivered with and without it, at several round-trip times.

Reading ahead stays in the worker as long as it gains 15 % at 1 ms; on Heroku a server is about that far away.
"""

from functools import partial

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
    return [row for receiver in RECEIVERS for row in _measure(options, count, receiver)]


def _measure(options: Options, count: int, receiver: str) -> list[Row]:
    runs = {
        f"{milliseconds} ms, {way}": partial(_rate, milliseconds, receiver, count, ahead=way == "ahead")
        for milliseconds in ROUND_TRIPS
        for way in ("ahead", "not ahead")
    }
    values = alternate("network", options, runs)
    rows = []
    for milliseconds in ROUND_TRIPS:
        ours, without = values[f"{milliseconds} ms, ahead"], values[f"{milliseconds} ms, not ahead"]
        what, near = f"backlog, round trips of {milliseconds} ms, {RECEIVERS[receiver]}", values["0 ms, ahead"]
        shown, least = rate(median(ours)), 115 if milliseconds == 1 else None
        against = f"without: {rate(median(without))}"
        rows.append(
            Row("network", f"{what}, reading ahead", shown, against, percent(ours, without), "%", at_least=least)
        )
        if milliseconds:
            against, least = f"through the same relay at 0 ms: {rate(median(near))}", 50 if milliseconds == 1 else None
            rows.append(Row("network", what, shown, against, percent(ours, near), "%", at_least=least))
    return rows


def _rate(milliseconds: int, receiver: str, count: int, *, ahead: bool) -> float:
    with round_trips_of(milliseconds):
        return count / deliver(receiver, count, ahead=ahead)
