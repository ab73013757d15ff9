"""What capture costs the app's own writes (``xmlbinary = base64``), which our triggers' WHEN leaves out.

Three kinds of writes are measured, by the processor time of the server process: single-row updates of a client, in one
transaction; the same in a loop inside the server, without a client's messages; one statement for many rows. PostgreSQL
keeps old and new rows of each statement for our triggers, although they do not run.

The loop on a bare table also runs on a table with an empty statement trigger: no WHEN, no old and new rows, a function
that returns at once.
"""

from collections.abc import Callable
from functools import partial

from django.db import connection, transaction

from benchmarks import processor, workload
from benchmarks.options import Options
from benchmarks.records.models import BareCaptured, BareTriggered, BareUncaptured, Captured, Uncaptured
from benchmarks.rows import Row, alternate
from benchmarks.server import Server
from hc_signals.tables import quoted_table

_LOOP = """
DO $$ BEGIN
    FOR n IN 1..{count} LOOP
        UPDATE {table} SET annualrevenue = annualrevenue + 1 WHERE id = n;
    END LOOP;
END $$
"""
_LOOPED = "single rows in a loop of the server"
_EMPTY_TRIGGER = """
CREATE OR REPLACE FUNCTION bench_nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE OR REPLACE TRIGGER bench_nothing AFTER UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION bench_nothing()
"""


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    if not processor.is_countable("app_writes", server):
        return []
    workload.execute(_EMPTY_TRIGGER.format(table=quoted_table(BareTriggered)))
    workload.pack(*workload.TABLES)
    rows = []
    for pair, table, singles, bulk, target in (
        ((Captured, Uncaptured), "Heroku Connect's own triggers", options.size(200, 60), 200, 99),
        ((BareCaptured, BareUncaptured), "a bare table", options.size(5_000, 2_000), 10_000, 90),
    ):
        for how, count, run in (
            ("single rows", singles, _singly),
            (_LOOPED, singles, _in_a_loop),
            ("one statement", bulk, _at_once),
        ):
            runs = {"with": partial(_cpu, run, pair[0], count), "without": partial(_cpu, run, pair[1], count)}
            is_beside_empty = how == _LOOPED and pair[0] is BareCaptured
            if is_beside_empty:
                runs["empty trigger"] = partial(_cpu, run, BareTriggered, count)
            for unmeasured in runs.values():
                unmeasured()
            values = alternate(f"app_writes: {table}, {how}", options, runs, unit="µs", rounds=4 * options.rounds)
            least = {name: min(found) for name, found in values.items()}
            what = f"the app's own updates, {how}, {table}: cpu of the server"
            rows.append(_beside_empty(what, least) if is_beside_empty else _beside_none(what, least, target))
    return rows


def _beside_none(what: str, least: dict[str, float], target: float) -> Row:
    against = f"without the bridge: {least['without']:.1f} µs"
    measured = 100 * least["without"] / least["with"]
    return Row("app_writes", what, f"{least['with']:.1f} µs", against, measured, "%", at_least=target)


def _beside_empty(what: str, least: dict[str, float]) -> Row:
    ours, empty = (least[name] - least["without"] for name in ("with", "empty trigger"))
    against = f"an empty statement trigger: {empty:.2f} µs more than {least['without']:.1f} µs without triggers"
    return Row("app_writes", what, f"{ours:.2f} µs more", against, ours / empty, "×", at_most=1.5)


def _cpu(run: Callable[[type, int], None], model: type, count: int) -> float:
    """Return the microseconds of processor time for each row, of the process of Django's connection.

    Dead rows make an update dearer, and each run leaves some: so each begins without any.
    """
    workload.execute(f"VACUUM {quoted_table(model)}")
    ((pid,),) = workload.execute("SELECT pg_backend_pid()")
    before = processor.used([pid])
    run(model, count)
    return (processor.used([pid]) - before) * 1e6 / count


def _singly(model: type, count: int) -> None:
    update = f"UPDATE {quoted_table(model)} SET annualrevenue = annualrevenue + 1 WHERE id = %s"
    with transaction.atomic(), connection.cursor() as cursor:
        own = cursor.cursor  # psycopg's cursor: Django costs the same with and without capture
        for number in range(1, count + 1):
            own.execute(update, [number])


def _in_a_loop(model: type, count: int) -> None:
    workload.execute(_LOOP.format(count=count, table=quoted_table(model)))


def _at_once(model: type, count: int) -> None:
    workload.execute(workload.updates(count, model))
