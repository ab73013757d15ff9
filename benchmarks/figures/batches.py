"""Four writers at the same time, batches of 500 rows, on tables with Heroku Connect's own triggers; hc_listen is awake.

Each writer has a table of its own, and writes in a loop inside the server. All append to one log, so they could wait
for each other there: for the log's last page, for its file to grow, for NOTIFY's lock. A sampler reads what they wait
for. hc_listen delivers and competes for the processor. The processor time of the writers' sessions leaves that out.
"""

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import psycopg

from benchmarks import processor, waits, workload
from benchmarks.figures.writers import keep_awake
from benchmarks.options import Options
from benchmarks.processes import listening
from benchmarks.records.models import CAPTURED, UNCAPTURED
from benchmarks.rows import Row, median, percent, rate, say
from benchmarks.server import Server
from hc_signals.tables import quoted_table

BATCH = 500
_PROCEDURE = """
CREATE OR REPLACE PROCEDURE bench_batches(which regclass, count integer) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('xmlbinary', 'hex', false);
    COMMIT;
    FOR n IN 1..count LOOP
        EXECUTE 'UPDATE ' || which || ' SET name = ''Changed '' || clock_timestamp(), '
            'systemmodstamp = clock_timestamp(), annualrevenue = annualrevenue + 1 '
            'WHERE id BETWEEN $1 + 1 AND $1 + {batch}' USING n % 4 * {batch};
        COMMIT;
    END LOOP;
END $$
"""


@dataclass(frozen=True)
class _Run:
    """One run of all writers."""

    rate: float
    """Rows per second."""
    cpu: float
    """Microseconds of the writers' sessions per row."""
    waited: waits.Waits


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    if not processor.is_countable("batches", server):
        return []
    workload.make_tables(*CAPTURED, *UNCAPTURED, records=4 * BATCH)
    workload.clear()
    workload.execute(_PROCEDURE.format(batch=BATCH))
    count = options.size(8, 2)
    runs = {"with": partial(_write, server, CAPTURED, count), "without": partial(_write, server, UNCAPTURED, count)}
    found: dict[str, list[_Run]] = {name: [] for name in runs}
    with psycopg.connect(server.database_url(), autocommit=True) as awake, listening("batches"):
        keep_awake(awake)
        for run in runs.values():
            run()
        for number in range(2 * options.rounds):
            for name in sorted(runs, reverse=bool(number % 2)):
                found[name].append(runs[name]())
            said = ", ".join(f"{name} {rate(runs[-1].rate)}, {runs[-1].cpu:.0f} µs" for name, runs in found.items())
            say(f"batches: round {number + 1} of {2 * options.rounds}: {said}")
    return _rows(found["with"], found["without"])


def _rows(ours: list[_Run], without: list[_Run]) -> list[Row]:
    what = f"{len(CAPTURED)} writers, {BATCH}-row batches, {len(CAPTURED)} tables, Heroku Connect's own triggers"
    rates = [[run.rate for run in runs] for runs in (ours, without)]
    cpu = [min(run.cpu for run in runs) for runs in (ours, without)]
    waited = [sum((run.waited for run in runs), waits.Waits()) for runs in (ours, without)]
    for name, counter in zip(("with", "without"), waited, strict=True):
        say(f"batches: {name}, waits of the writers: {waits.shown(counter, 8)}")
    shares = [waits.share(counter) for counter in waited]
    return [
        Row(
            "batches",
            f"{what}, worker awake",
            rate(median(rates[0])),
            f"without the bridge: {rate(median(rates[1]))}",
            percent(*rates),
            "%",
            at_least=95,
        ),
        Row(
            "batches",
            f"{what}: cpu of the writers",
            f"{cpu[0]:.0f} µs a row",
            f"without the bridge: {cpu[1]:.0f} µs",
            100 * cpu[1] / cpu[0],
            "%",
            at_least=95,
        ),
        Row(
            "batches",
            f"{what}: more time in locks and buffers",
            f"{shares[0]:.2f} % of the time ({waits.shown(waited[0], 2)})",
            f"without the bridge: {shares[1]:.2f} % ({waits.shown(waited[1], 2)})",
            shares[0] - shares[1],
            "%",
            at_most=1,
        ),
    ]


def _write(server: Server, tables: tuple[type, ...], count: int) -> _Run:
    """Let a writer per table write ``count`` batches."""
    workload.execute("TRUNCATE public.hc_signals_change")
    with ExitStack() as stack:
        open_ = partial(psycopg.connect, server.database_url(), autocommit=True)
        writers = [stack.enter_context(open_()) for _ in tables]
        watcher = stack.enter_context(open_())
        threads = [
            threading.Thread(target=writer.execute, args=("CALL bench_batches(%s, %s)", [quoted_table(table), count]))
            for writer, table in zip(writers, tables, strict=True)
        ]
        pids = [writer.info.backend_pid for writer in writers]
        cpu, began = processor.used(pids), time.perf_counter()
        for thread in threads:
            thread.start()
        waited = waits.sample(watcher, pids, lambda: any(thread.is_alive() for thread in threads))
        seconds = time.perf_counter() - began
        rows = len(tables) * count * BATCH
        return _Run(rows / seconds, (processor.used(pids) - cpu) * 1e6 / rows, waited)
