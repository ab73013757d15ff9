"""What the app's own writes cost (``xmlbinary = base64``): our triggers are there, and their WHEN says no.

Single-row updates in a loop inside the server, in one transaction, so that neither client nor disk hides the cost; and
one statement for many rows, for which PostgreSQL keeps old and new rows for our triggers although they do not run.
"""

import time
from functools import partial

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
        for how, count in (("single rows", singles), ("one statement", bulk)):
            loops = {"with": pair[0], "without": pair[1]}
            runs = {name: partial(_rate, model, count, how == "single rows") for name, model in loops.items()}
            for run in runs.values():
                run()
            values = alternate(f"app_writes: {table}, {how}", options, runs, rounds=2 * options.rounds)
            against = f"without the bridge: {rate(median(values['without']))}"
            measured = percent(values["with"], values["without"])
            what = f"the app's own updates, {how}, {table}"
            rows.append(Row("app_writes", what, rate(median(values["with"])), against, measured, "%", at_least=target))
    return rows


def _rate(model: type, count: int, single: bool) -> float:
    statement = _LOOP.format(count=count, table=quoted_table(model)) if single else workload.updates(count, model)
    began = time.perf_counter()
    workload.execute(statement)
    return count / (time.perf_counter() - began)
