"""What capture costs the app's own writes (``xmlbinary = base64``), which our triggers' WHEN leaves out.

Three kinds of writes are measured. Single-row updates, each a round trip of psycopg, in one transaction, so that the
disk hides little. The same in a loop inside the server, where the client hides nothing. One statement for many rows.
PostgreSQL keeps old and new rows of each statement for our triggers, although they do not run.
"""

import time
from functools import partial

from django.db import connection, transaction

from benchmarks import workload
from benchmarks.options import Options
from benchmarks.records.models import BareCaptured, BareUncaptured, Captured, Uncaptured
from benchmarks.rows import Row, alternate, median, percent, rate
from benchmarks.server import Server
from hc_signals.tables import quoted_table

_LOOP = """
DO $$ BEGIN
    FOR n IN 1..{count} LOOP
        UPDATE {table} SET annualrevenue = annualrevenue + 1 WHERE id = n;
    END LOOP;
END $$
"""


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    rows = []
    workload.pack(*workload.TABLES)
    for pair, table, singles, bulk, target in (
        ((Captured, Uncaptured), "Heroku Connect's own triggers", options.size(200, 60), 200, 99),
        ((BareCaptured, BareUncaptured), "a bare table", options.size(5_000, 2_000), 10_000, 90),
    ):
        for how, count, run_of in (
            ("single rows", singles, _singly),
            ("single rows in a loop of the server", singles, _in_a_loop),
            ("one statement", bulk, _at_once),
        ):
            runs = {"with": partial(run_of, pair[0], count), "without": partial(run_of, pair[1], count)}
            for run in runs.values():
                run()
            values = alternate(f"app_writes: {table}, {how}", options, runs, rounds=4 * options.rounds)
            against = f"without the bridge: {rate(median(values['without']))}"
            measured = percent(values["with"], values["without"])
            what = f"the app's own updates, {how}, {table}"
            rows.append(Row("app_writes", what, rate(median(values["with"])), against, measured, "%", at_least=target))
    return rows


def _singly(model: type, count: int) -> float:
    update = f"UPDATE {quoted_table(model)} SET annualrevenue = annualrevenue + 1 WHERE id = %s"
    with transaction.atomic(), connection.cursor() as cursor:
        own = cursor.cursor  # psycopg's cursor: Django costs the same with and without capture
        began = time.perf_counter()
        for number in range(1, count + 1):
            own.execute(update, [number])
        return count / (time.perf_counter() - began)


def _in_a_loop(model: type, count: int) -> float:
    return _rate(_LOOP.format(count=count, table=quoted_table(model)), count)


def _at_once(model: type, count: int) -> float:
    return _rate(workload.updates(count, model), count)


def _rate(statement: str, count: int) -> float:
    began = time.perf_counter()
    workload.execute(statement)
    return count / (time.perf_counter() - began)
