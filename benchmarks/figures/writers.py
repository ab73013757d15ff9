"""What it saves to notify a sleeping worker only: many concurrent writers while the worker is awake.

Each writer updates single rows of a captured table in a loop inside the server, one transaction per row, so that no
client is measured. A session holds a share of the worker's bell, as an open writer does, and so keeps hc_listen awake.
The figure compares this with writers that never notify, and shows writers that notify in each transaction.
"""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import psycopg

from benchmarks import workload
from benchmarks.options import Options
from benchmarks.processes import listening
from benchmarks.records.models import BareCaptured
from benchmarks.rows import Row, alternate, median, percent, rate
from benchmarks.server import Server
from hc_signals.postgres.locks import BELL
from hc_signals.tables import quoted_table
from hc_signals.worker.bell_connection import CHANNEL

_LOOP = """
CREATE OR REPLACE PROCEDURE bench_write(count integer) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('xmlbinary', 'hex', false);
    COMMIT;
    FOR n IN 1..count LOOP
        UPDATE {table} SET annualrevenue = annualrevenue + 1 WHERE id = pg_backend_pid() % 100 * 200 + n % 200 + 1;
        COMMIT;
    END LOOP;
END $$
"""
_RING = """
CREATE OR REPLACE FUNCTION public.hc_signals_ring() RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$ BEGIN {body} END $$
"""
_NOTIFY = f"PERFORM pg_catalog.pg_notify('{CHANNEL}', '');"


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    workload.clear()
    workload.execute(_LOOP.format(table=quoted_table(BareCaptured)))
    ((original,),) = workload.execute("SELECT pg_get_functiondef('public.hc_signals_ring'::regproc)")
    ways = {"no NOTIFY": _RING.format(body=""), "doorbell": original, "NOTIFY each": _RING.format(body=_NOTIFY)}
    url, rows = server.database_url(), []
    try:
        with psycopg.connect(url, autocommit=True) as awake, listening("nothing"):
            keep_awake(awake)
            for writers in (1, 16) if options.quick else (1, 16, 64):
                rows += _with(writers, options, url, ways)
    finally:
        workload.execute(original)
    return rows


def keep_awake(connection: psycopg.Connection) -> None:
    """Notify the worker until it is awake, and take a share of its bell before it falls asleep again."""
    while connection.execute("SELECT pg_try_advisory_lock_shared(%s, %s)", BELL).fetchone() != (True,):
        connection.execute("SELECT pg_notify(%s, '')", [CHANNEL])
        time.sleep(0.0005)


def _with(writers: int, options: Options, url: str, ways: dict[str, str]) -> list[Row]:
    each = options.size(6000, 1500) // (writers if writers > 1 else 3)
    runs: dict[str, Callable[[], float]] = {
        name: partial(_write, ring, url, writers, each) for name, ring in ways.items()
    }
    values = alternate(f"writers: {writers}", options, runs)
    beside = f"NOTIFY each: {rate(median(values['NOTIFY each']))}"
    return [
        Row(
            "writers",
            f"commits of {writers} writer{'s' * (writers > 1)}, worker awake",
            rate(median(values["doorbell"])),
            f"without NOTIFY: {rate(median(values['no NOTIFY']))}; {beside}",
            percent(values["doorbell"], values["no NOTIFY"]),
            "%",
            at_least=90,
        )
    ]


def _write(ring: str, url: str, writers: int, each: int) -> float:
    """Let the writers write; return the transactions per second of all of them."""
    workload.execute(ring)
    workload.execute("TRUNCATE public.hc_signals_change")
    connections = [psycopg.connect(url, autocommit=True) for _ in range(writers)]
    threads = [
        threading.Thread(target=connection.execute, args=(f"CALL bench_write({each})",)) for connection in connections
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    for connection in connections:
        with closing(connection):
            pass
    return writers * each / seconds
