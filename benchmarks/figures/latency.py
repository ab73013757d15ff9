"""From commit to receiver: one change at a time on an idle system, and a steady thousand a second.

The clock starts before COMMIT is sent and stops in the receiver, in another process; both read the same monotonic
clock. The bare form is a process that LISTENs with psycopg and reads the new rows by one SELECT; its writers NOTIFY.
"""

import contextlib
import itertools
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator

import psycopg

from benchmarks import workload
from benchmarks.options import Options
from benchmarks.processes import Mailbox, end, listening, mailbox, start, wait_until_asleep
from benchmarks.records.models import BareCaptured
from benchmarks.rows import Row, say
from benchmarks.server import Server
from benchmarks.slow_network import slow_url
from hc_signals.tables import quoted_table

PAUSE = 0.03
"""Seconds between two changes: long enough for the worker to fall asleep."""
BURST = 5
"""Changes of one transaction at a thousand a second."""
_numbers = itertools.count(1_000_000)
"""First number written into the records; differs from the numbers in the table."""


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    workload.clear()
    count = options.size(300, 60)
    url = server.database_url()
    with (
        mailbox() as box,
        psycopg.connect(url, autocommit=True) as connection,
        listening("clock", BENCH_SOCKET=box.path),
        _bare_listener(url, box, connection),
    ):
        ours, bare = _take_turns(options, connection, box, count)
        say("latency: a thousand changes a second")
        loaded = _steadily(connection, box, seconds=options.size(10, 3))
    against = f"bare LISTEN + SELECT: p50 {_p50(bare):.2f} ms, p99 {_p99(bare):.2f} ms"
    shown = f"p50 {_p50(ours):.2f} ms, p99 {_p99(ours):.2f} ms"
    return [
        Row("latency", "commit → receiver, idle, p50", shown, against, _p50(ours) / _p50(bare), "×", at_most=2.3),
        Row("latency", "commit → receiver, idle, p99", shown, against, _p99(ours), "ms", at_most=8),
        Row(
            "latency",
            "commit → receiver, 1000 changes/s, p99",
            f"p50 {_p50(loaded):.2f} ms, p99 {_p99(loaded):.2f} ms",
            f"{len(loaded)} changes",
            _p99(loaded),
            "ms",
            at_most=50,
        ),
    ]


def measure_network(options: Options, server: Server) -> list[Row]:
    """Return what each round trip of the network adds, for a worker and for the bare form. Writers are near."""
    return [_over_network(options, server, milliseconds) for milliseconds in (1, 5)]


def _over_network(options: Options, server: Server, milliseconds: int) -> Row:
    workload.clear()
    url, count, pause = server.database_url(), options.size(150, 30), PAUSE + 0.03 * milliseconds
    with (
        mailbox() as box,
        psycopg.connect(url, autocommit=True) as connection,
        slow_url(url, milliseconds) as far,
        listening("clock", BENCH_SOCKET=box.path, BENCH_URL=far),
        _bare_listener(far, box, connection),
        psycopg.connect(far, autocommit=True) as idle,
    ):
        ours, bare = _take_turns(options, connection, box, count, pause=pause)
        trip = _p50([_trip(idle, pause) for _ in range(count // 3)])
    what = f"commit → receiver, idle, round trips of {milliseconds} ms, p50 above bare"
    shown = f"p50 {_p50(ours):.2f} ms"
    against = f"bare LISTEN + SELECT: p50 {_p50(bare):.2f} ms; SELECT 1 after a pause: {trip:.2f} ms"
    return Row("latency", what, shown, against, (_p50(ours) - _p50(bare)) / trip, "round trips", at_most=2)


def _trip(connection: psycopg.Connection, pause: float) -> float:
    """Return the milliseconds of a round trip after a pause: then the relay and the server have to wake too."""
    time.sleep(pause)
    began = time.monotonic_ns()
    connection.execute("SELECT 1")
    return (time.monotonic_ns() - began) / 1e6


def _take_turns(
    options: Options, connection: psycopg.Connection, box: Mailbox, count: int, pause: float = PAUSE
) -> tuple[list[float], list[float]]:
    """Return the milliseconds of hc_signals and of the bare form, which take turns."""
    update = f"UPDATE {quoted_table(BareCaptured)} SET numberofemployees = %s WHERE id = %s"
    insert = "INSERT INTO bench_bare (number, payload) VALUES (%s, repeat('x', 500 + %s %% 2))"
    kinds: dict[str, Callable[[int], None]] = {
        "hc_signals": lambda n: _write(connection, "SET LOCAL xmlbinary = 'hex'", update, n),
        "bare": lambda n: _write(connection, "NOTIFY bench_bare", insert, n),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(options.rounds):
        for name, write in kinds.items():
            samples = []
            for _ in range(count // options.rounds):
                wait_until_asleep()
                time.sleep(pause)
                connection.execute("BEGIN")
                write(next(_numbers))
                began = time.monotonic_ns()
                connection.execute("COMMIT")
                samples.append((box.wait_for(1)[0][0] - began) / 1e6)
            found[name] += samples
        said = ", ".join(f"{name} p50 {_p50(samples):.2f} ms" for name, samples in found.items())
        say(f"latency: round {number + 1} of {options.rounds}: {said}")
    return found["hc_signals"], found["bare"]


def _write(connection: psycopg.Connection, first: str, sql: str, number: int) -> None:
    connection.execute(first)  # type: ignore[call-overload]
    connection.execute(sql, (number, number % 1000 + 1))  # type: ignore[call-overload]


def _steadily(connection: psycopg.Connection, box: Mailbox, seconds: int) -> list[float]:
    """Return the milliseconds of each change while a thousand a second are written, in transactions of BURST."""
    update = f"UPDATE {quoted_table(BareCaptured)} SET numberofemployees = %s WHERE id BETWEEN %s AND %s + {BURST - 1}"
    connection.execute("SET xmlbinary = 'hex'")
    first = time.monotonic()
    transactions = seconds * 1000 // BURST
    origin = time.monotonic_ns()
    for number in range(transactions):
        time.sleep(max(0.0, first + number * BURST / 1000 - time.monotonic()))
        record = 1 + number * BURST % 10_000
        # The moment travels in the record, in microseconds; in autocommit mode the statement is the commit.
        connection.execute(update, ((time.monotonic_ns() - origin) // 1000, record, record))  # type: ignore[call-overload]
    connection.execute("RESET xmlbinary")
    letters = box.wait_for(transactions * BURST)
    return [(moment - origin) / 1e6 - number / 1e3 for moment, number in letters]


@contextlib.contextmanager
def _bare_listener(url: str, box: Mailbox, connection: psycopg.Connection) -> Iterator[subprocess.Popen[str]]:
    connection.execute("DROP TABLE IF EXISTS bench_bare")
    connection.execute("CREATE TABLE bench_bare (id serial PRIMARY KEY, number integer, payload text)")
    process = start("-m", "benchmarks.bare_listener", url, box.path)
    try:
        assert process.stdout is not None and process.stdout.readline() == "listening\n"
        yield process
    finally:
        end(process)


def _p50(samples: list[float]) -> float:
    return statistics.median(samples)


def _p99(samples: list[float]) -> float:
    return statistics.quantiles(samples, n=100, method="inclusive")[98]
