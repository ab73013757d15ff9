"""What capture costs per updated row of 25 columns: the new image, the old values that differ, the changed fields.

Ours is the time of an UPDATE with capture less that of the same UPDATE without. It is held against a plain
``INSERT … SELECT`` that joins the rows before and after from two ordinary tables and writes the same into the same log;
and, for information, against one that copies log rows that are there already, images and all.
"""

import time
from collections.abc import Callable

from benchmarks import workload
from benchmarks.options import Options
from benchmarks.records.models import BareCaptured, BareUncaptured
from benchmarks.rows import Row, alternate, median, ratio
from benchmarks.server import Server
from benchmarks.workload import LOG_COLUMNS
from hc_signals.capture.function import image_sql, old_values_sql
from hc_signals.tables import NOISE_COLUMNS, quote, quoted_table


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    count = options.size(10_000, 4_000)
    _make_tables(count)
    statements = {
        "captured": workload.updates(count, BareCaptured),
        "uncaptured": workload.updates(count, BareUncaptured),
        "insert": _plain_insert(),
        "copy": f"INSERT INTO public.hc_signals_change ({LOG_COLUMNS}) SELECT {LOG_COLUMNS} FROM bench_log",
    }
    runs: dict[str, Callable[[], float]] = {
        name: lambda sql=sql: _microseconds(sql, count)  # type: ignore[misc]
        for name, sql in statements.items()
    }
    for run in runs.values():
        run()
    values = alternate("capture", options, runs, unit="µs", rounds=2 * options.rounds)
    ours = [a - b for a, b in zip(values["captured"], values["uncaptured"], strict=True)]
    rows = []
    for name, text, limit in (("insert", "plain INSERT … SELECT", 1.1), ("copy", "copy of finished log rows", None)):
        against = f"{text}: {median(values[name]):.1f} µs"
        what = "capture per updated row, 25 columns"
        shown = f"{median(ours):.1f} µs"
        rows.append(Row("capture", what, shown, against, ratio(ours, values[name]), "×", at_most=limit))
    both = [a + b for a, b in zip(values["uncaptured"], values["insert"], strict=True)]
    shown, against = f"{median(values['captured']):.1f} µs", f"UPDATE and plain INSERT: {median(both):.1f} µs"
    what = "captured UPDATE as a whole, per row"
    return [*rows, Row("capture", what, shown, against, ratio(values["captured"], both), "×", steady=True)]


def _make_tables(count: int) -> None:
    """Put rows before and after an update, and log rows of them, into ordinary tables."""
    workload.capture_backlog(count)
    workload.pack(BareCaptured, BareUncaptured)
    table = quoted_table(BareUncaptured)
    workload.execute("DROP TABLE IF EXISTS bench_old, bench_new, bench_log")
    workload.execute(f"CREATE TABLE bench_old AS SELECT * FROM {table} WHERE id <= {count}")
    workload.as_heroku_connect(workload.updates(count, BareUncaptured))
    workload.execute(f"CREATE TABLE bench_new AS SELECT * FROM {table} WHERE id <= {count}")
    workload.execute(f"CREATE TABLE bench_log AS SELECT {LOG_COLUMNS} FROM public.hc_signals_change")
    for name in ("bench_old", "bench_new", "bench_log"):
        workload.execute(f"VACUUM ANALYZE {name}")


def _plain_insert() -> str:
    columns = [str(field.column) for field in BareUncaptured._meta.local_concrete_fields]
    tests = [f"o.{quote(c)} IS DISTINCT FROM n.{quote(c)}" for c in columns if c not in NOISE_COLUMNS]
    changed = ", ".join(
        f"CASE WHEN {test} THEN '{c}' END"
        for test, c in zip(tests, [c for c in columns if c not in NOISE_COLUMNS], strict=True)
    )
    return (
        f"INSERT INTO public.hc_signals_change ({LOG_COLUMNS}) SELECT 'bench_new', 'UPDATE', 'heroku_connect', "
        f"n.id::text, n.sfid, array_remove(ARRAY[{changed}], NULL), "
        f"{old_values_sql(columns)}, {image_sql(columns, 'n')} "
        f"FROM bench_old o JOIN bench_new n ON n.id = o.id WHERE {' OR '.join(tests)}"
    )


def _microseconds(sql: str, count: int) -> float:
    """Run the statement as Heroku Connect, then empty the log; return microseconds per row.

    Our figure is a difference of two runs, so both start alike: without dead rows, and right after a checkpoint.
    """
    for table in (BareCaptured, BareUncaptured):
        workload.execute(f"VACUUM {quoted_table(table)}")
    workload.execute("CHECKPOINT")
    began = time.perf_counter()
    workload.as_heroku_connect(sql)
    seconds = time.perf_counter() - began
    workload.execute("TRUNCATE public.hc_signals_change")
    return seconds * 1e6 / count
