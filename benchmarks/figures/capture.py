"""What capture costs per updated row of 25 columns: the new image, the old values that differ, the changed fields.

Ours is the time of an UPDATE with capture less that of the same UPDATE without. It is held against a plain
``INSERT … SELECT`` that joins the rows before and after from two ordinary tables and writes the same into the same log;
and, for information, against one that copies log rows that are there already, images and all.

Then the same by the cpu time of the server process, which other processes hardly change, for tables of 25, 100 and 400
columns. One column changes. The cpu time of the UPDATE itself is beside it. And for a table with a text of 25 kB that
does not change.
"""

import time
from collections.abc import Callable

from benchmarks import processor, workload
from benchmarks.options import Options
from benchmarks.records.models import BareCaptured, BareUncaptured
from benchmarks.rows import Row, alternate, median, ratio
from benchmarks.server import Server
from benchmarks.workload import LOG_COLUMNS
from hc_signals.capture.function import image_sql, old_values_sql
from hc_signals.capture.function_columns import Layout
from hc_signals.capture.install import install_capture
from hc_signals.db import models as hc_models
from hc_signals.postgres.names import quote
from hc_signals.tables import counts_as_change, mapped_columns, quoted_table
from hc_signals.testing import HerokuConnect

WIDTHS = {25: 8000, 100: 2000, 400: 500}
"""Rows by number of columns."""
LARGE = 25_000
"""Bytes of a large text."""


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
    rows.append(Row("capture", what, shown, against, ratio(values["captured"], both), "×", steady=True))
    if not processor.is_countable("capture", server):
        return rows
    return [*rows, *(_width(options, width, count) for width, count in WIDTHS.items()), _large(options)]


def _width(options: Options, width: int, count: int) -> Row:
    """Return the cpu time of capture on a table of so many columns."""
    tables = {name: made_table(f"{name}_{width}", width, count) for name in ("captured", "plain")}
    what = f"cpu of the server for capture per updated row, {width} columns, one changed"
    return _compare(options, tables, what, count, None)


def _large(options: Options) -> Row:
    """Return the cpu time of capture if another column has 25 kB, and does not change."""
    count = options.size(1_000, 200)
    tables = {name: made_table(f"{name}_large", 25, count) for name in ("captured", "plain")}
    # Hexadecimal digits hardly compress. PostgreSQL stores them outside of the row.
    digits = f"SELECT string_agg(md5(n::text), '') FROM generate_series(1, {LARGE // 32}) n"
    for model in tables.values():
        workload.execute(f"ALTER TABLE {quoted_table(model)} ALTER field_4__c TYPE text")
        workload.execute(f"UPDATE {quoted_table(model)} SET field_4__c = id || ({digits})")
    what = "cpu of the server for capture per updated row, 25 columns, one changed, another has 25 kB"
    return _compare(options, tables, what, count, 100.0)


def _compare(
    options: Options, tables: dict[str, type[hc_models.HerokuConnectModel]], what: str, count: int, limit: float | None
) -> Row:
    ((pid,),) = workload.execute("SELECT pg_backend_pid()")
    install_capture(tables["captured"], "default")

    def microseconds(model: type[hc_models.HerokuConnectModel]) -> float:
        workload.execute(f"VACUUM {quoted_table(model)}")
        before = processor.used([pid])
        workload.as_heroku_connect(f"UPDATE {quoted_table(model)} SET field_0__c = 'v ' || clock_timestamp()")
        seconds = processor.used([pid]) - before
        workload.clear()
        return seconds * 1e6 / count

    runs = {name: lambda model=model: microseconds(model) for name, model in tables.items()}  # type: ignore[misc]
    values = alternate("capture", options, runs, unit="µs", rounds=2 * options.rounds)
    update = min(values["plain"])
    ours, against = min(values["captured"]) - update, f"the UPDATE itself: {update:.1f} µs"
    if limit is None:
        return Row("capture", what, f"{ours:.1f} µs", against, ours / update, "×")
    return Row("capture", what, f"{ours:.1f} µs", against, ours, "µs", at_most=limit)


def made_table(name: str, width: int, count: int) -> type[hc_models.HerokuConnectModel]:
    """Create a table with rows and return its model; it has no triggers."""
    usual = len(mapped_columns(type("Usual" + name, (hc_models.HerokuConnectModel,), _attributes("usual_" + name))))
    kinds = [hc_models.Text, hc_models.Number, hc_models.Checkbox, hc_models.DateTime]
    fields = {f"field_{number}": kinds[number % 4](**_options(number)) for number in range(width - usual)}
    attributes = {**_attributes(name), **fields}
    model: type[hc_models.HerokuConnectModel] = type(name.title(), (hc_models.HerokuConnectModel,), attributes)
    HerokuConnect(models=[model]).create_tables()
    table = quoted_table(model)
    workload.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER; ALTER TABLE {table} SET (fillfactor = 45)")
    values = ["'Text ' || n", "n * 1.25", "n % 2 = 0", "timestamp '2024-01-01' + n * interval '1 minute'"]
    columns = ", ".join(f"field_{number}__c" for number in range(width - usual))
    chosen = ", ".join(values[number % 4] for number in range(width - usual))
    workload.execute(
        f"INSERT INTO {table} (sfid, {columns}) SELECT '003' || lpad(n::text, 15, '0'), {chosen} "
        f"FROM generate_series(1, {count}) n"
    )
    workload.execute(f"VACUUM ANALYZE {table}")
    return model


def _attributes(name: str) -> dict[str, object]:
    meta = type("Meta", (), {"app_label": "records"})
    return {"__module__": __name__, "sf_object_name": f"{name}__c", "sf_access": hc_models.READ_ONLY, "Meta": meta}


def _options(number: int) -> dict[str, object]:
    options: dict[str, object] = {"sf_field_name": f"Field_{number}__c"}
    return options | [{"max_length": 80}, {"max_digits": 18, "decimal_places": 2}, {}, {}][number % 4]


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
    columns = mapped_columns(BareUncaptured)
    watched = [c for c in columns if counts_as_change(c) and c != "sfid"]
    tests = [f"o.{quote(c)} IS DISTINCT FROM n.{quote(c)}" for c in watched]
    changed = ", ".join(f"CASE WHEN {test} THEN '{c}' END" for test, c in zip(tests, watched, strict=True))
    return (
        f"INSERT INTO public.hc_signals_change ({LOG_COLUMNS}) SELECT 'bench_new', 'UPDATE', 'heroku_connect', "
        f"n.id::text, n.sfid, array_remove(ARRAY[{changed}], NULL), "
        f"{old_values_sql(columns)}, {Layout(tuple(columns)).id}, {image_sql(columns, 'n')} "
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
    workload.clear()
    return seconds * 1e6 / count
