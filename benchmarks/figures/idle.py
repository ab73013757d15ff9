"""What an idle worker costs: transactions, processor time, memory.

The server counts the transactions of the database, with autovacuum switched off. On a server that is not ours
autovacuum stays on, and its transactions count too.
"""

import os
import subprocess
import time
from pathlib import Path

import psycopg

from benchmarks import workload
from benchmarks.options import Options
from benchmarks.processes import listening, megabytes_of
from benchmarks.rows import Row, say
from benchmarks.server import DATABASE, Server


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    workload.clear()
    seconds = options.idle_seconds
    with (
        server.without_autovacuum(),
        psycopg.connect(server.url, autocommit=True) as watcher,
        listening("nothing") as process,
    ):
        time.sleep(15)  # the server counts the worker's first transactions some seconds late
        transactions, used = _transactions(watcher), _processor(process)
        say(f"idle: watching hc_listen for {seconds:.0f} s (--idle-seconds)")
        time.sleep(seconds)
        used = _processor(process) - used
        memory = megabytes_of(process)
        time.sleep(2)
        transactions = _transactions(watcher) - transactions
    minute = transactions * 60 / seconds
    text = f"{transactions} in {seconds:.0f} s"
    return [
        Row("idle", "idle worker, queries per minute", text, "", minute, "/min", at_most=4),
        Row(
            "idle",
            "idle worker, share of a core",
            f"{used:.2f} s of processor",
            "",
            100 * used / seconds,
            "%",
            at_most=1,
        ),
        Row("idle", "idle worker, memory", f"{memory:.0f} MB", "", memory, "MB", at_most=80),
    ]


def _transactions(watcher: psycopg.Connection) -> int:
    row = watcher.execute(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s", [DATABASE]
    ).fetchone()
    return int(row[0]) if row else 0


def _processor(process: subprocess.Popen[str]) -> float:
    """Return the seconds of processor time that the process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
