"""Plans of the hot queries: in a log of many rows they go by an index, whatever the statistics say."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from example.crm.models import Account

from hc_signals.conf import Conf
from hc_signals.delivery.failures import release, waiting_shards
from hc_signals.delivery.shard import Outcome
from hc_signals.log import rotation, tail
from hc_signals.log.claims import claim_all
from hc_signals.signals import record_changed
from hc_signals.worker.loop import Worker
from tests.conftest import another, as_the_app
from tests.test_hostile_settings import HOSTILE, database_with, of_this_server

ROWS = 100_000
BLOCKS = 400
"""Most blocks that a query may read; the log has several thousand."""
READS = (
    "hc_signals_change",
    "hc_signals_log",
    "hc_signals_images",
    "hc_signals_few_images",
    "hc_signals_claim",
    "hc_signals_page",
    "hc_signals_look",
)

IMAGES = "SELECT public.hc_signals_images("

FILL = """
INSERT INTO public.hc_signals_change (table_name, operation, origin, record_key, record_id, changed, old, layout, image)
SELECT 'salesforce.account', 'UPDATE', 'heroku_connect', n, lpad(n::text, 18, '0'), '{{name}}',
       '{{"name": "old"}}', 1, ARRAY[n::text, lpad(n::text, 18, '0'), repeat('x', 200)]
FROM generate_series(1, {rows}) n
"""
FILL_DELIVERIES = """
INSERT INTO public.hc_signals_delivery (consumer, receiver, signal, sender, state, attempt, next_attempt_at, error,
    change_id, xid, captured_at, table_name, operation, origin, record_key, record_id, new)
SELECT 'default', 'a.b', 'record_changed', 'crm.Account', state, 1, clock_timestamp() + interval '1 hour', '',
       n, pg_current_xact_id(), clock_timestamp(), 'salesforce.account', 'UPDATE', 'app', n, n, '{}'
FROM generate_series(1, 30000) n, LATERAL (SELECT CASE WHEN n % 10 = 0 THEN 'parked' ELSE 'dead' END) s (state)
"""

Log = Callable[[str], None]


@pytest.fixture
def fill(captured: Any, connect: Any) -> Iterator[Log]:
    """Fill the log in one transaction, with statistics of before (``stale``) or after (``fresh``), or begin to."""
    connect(record_changed, lambda **kwargs: None, Account)
    with connection.cursor() as cursor:
        # Autovacuum must not repair the statistics during the test.
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'hc_signals_change'::regclass"
        )
        tables = [row[0] for row in cursor.fetchall()]
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")

    def fill(statistics: str) -> None:
        as_the_app("INSERT INTO public.hc_signals_layout VALUES (1, '{id,sfid,name}') ON CONFLICT DO NOTHING")
        as_the_app(FILL.format(rows=ROWS if statistics == "fresh" else 1))
        as_the_app(FILL_DELIVERIES)
        as_the_app("ANALYZE public.hc_signals_change")
        as_the_app("ANALYZE public.hc_signals_delivery")
        if statistics == "stale":
            as_the_app(FILL.format(rows=ROWS))

    yield fill
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} RESET (autovacuum_enabled)")
        cursor.execute("TRUNCATE public.hc_signals_change, public.hc_signals_delivery")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give every node of a plan."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def check_plans(run: Callable[[], Any]) -> int:
    """Explain every SELECT that ``run`` sends, and what releases a delivery; return how many read the log."""
    with CaptureQueriesContext(connection) as context:
        run()
    statements = [part.strip() for query in context for part in query["sql"].split(";")]
    reads = 0
    for statement in statements:
        if statement.startswith(("SELECT", "WITH", "UPDATE public.hc_signals_delivery")) and "hc_signals_" in statement:
            with connection.cursor() as cursor:
                cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement)
                answer = cursor.fetchone()[0]
            plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
            reads += any(name in statement for name in READS)
            check_plan(plan, statement)
            if statement.startswith(IMAGES):
                check_images(statement)
    return reads


def check_images(statement: str) -> None:
    """Explain the query of the cursor that this statement opens, under the settings of the function that opens it."""
    arguments = statement.removeprefix(IMAGES)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SELECT public.hc_signals_images_query({arguments}")
        sql = cursor.fetchone()[0].replace("$1", arguments.partition("', ")[0] + "'::bigint[]")
        cursor.execute(
            "SELECT set_config(split_part(s, '=', 1), split_part(s, '=', 2), true) "
            "FROM pg_proc, unnest(proconfig) s WHERE proname = 'hc_signals_images' AND s NOT LIKE 'search_path=%'"
        )
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql)
        answer = cursor.fetchone()[0]
    check_plan((json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"], sql)


def check_plan(plan: dict[str, Any], statement: str) -> None:
    """Fail if a table with many rows is read from end to end, or more of it than the answer needs."""
    for node in nodes(plan):
        if node["Node Type"] == "Seq Scan" and node["Relation Name"].startswith(
            ("hc_signals_change", "hc_signals_del")
        ):
            assert node["Actual Rows"] + node.get("Rows Removed by Filter", 0) < 100, statement
    # Before PostgreSQL 17 each id of a list is reads up on its own, in every partition.
    blocks = BLOCKS if connection.pg_version >= 170000 else 3 * BLOCKS
    if "hc_signals_log" in statement:  # the view reads the types of columns for each image
        blocks *= 2
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < blocks, statement


def page(worker: Worker) -> None:
    """Deliver one page."""
    assert worker.shards[0].deliver_page() is not Outcome.ELSEWHERE


@pytest.mark.parametrize("statistics", ["stale", "fresh"])
def test_long_backlog_is_paged_by_an_index(fill: Log, statistics: str) -> None:
    fill(statistics)
    worker = Worker("default", Conf(BATCH_SIZE=50))
    worker.prepare()
    assert check_plans(lambda: page(worker)) >= 2
    assert check_plans(lambda: page(worker)) >= 2


def test_plans_of_a_small_log_serve_a_large_one(fill: Log) -> None:
    worker = Worker("default", Conf(BATCH_SIZE=50))
    worker.prepare()
    fill("small")
    for _ in range(10):
        page(worker)
        worker._is_waiting()
    # Of many transactions: with few, PostgreSQL 18 finds an id quickly even by the index that begins with theirs.
    for _ in range(200):
        as_the_app(FILL.format(rows=ROWS // 200))
    assert check_plans(worker._is_waiting) == 1
    assert check_plans(lambda: page(worker)) >= 2
    assert check_plans(lambda: page(worker)) >= 2
    assert worker.delivered == 1 + 2 * 50


@pytest.mark.parametrize("statistics", ["stale", "fresh"])
def test_empty_read_behind_many_changes_costs_little(fill: Log, statistics: str) -> None:
    """Also with a transaction that was open when the position was stored, and an old snapshot held elsewhere."""
    fill(statistics)
    worker = Worker("default", Conf())
    worker.prepare()
    other = connections.create_connection("default")
    holder = connections.create_connection("default")
    try:
        with other.cursor() as cursor, holder.cursor() as held:
            held.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            held.execute("SELECT count(*) FROM public.hc_signals_position")
            cursor.execute("BEGIN")
            cursor.execute(FILL.format(rows=3))
            skip(worker)
            as_the_app(FILL.format(rows=3))
            assert check_plans(worker._is_waiting) >= 1
            cursor.execute("COMMIT")
            assert check_plans(worker._is_waiting) >= 1
            assert check_plans(lambda: page(worker)) >= 2
            assert worker.delivered == 6
            assert check_plans(worker._is_waiting) >= 1
            held.execute("COMMIT")
    finally:
        other.close()
        holder.close()


def skip(worker: Worker) -> None:
    """Move the consumer behind all committed changes."""
    with transaction.atomic():
        (claim,) = claim_all([worker.shards[0].log])
        claim.append(claim.close_window(claim.open_window()))


@pytest.mark.parametrize("statistics", ["stale", "fresh"])
def test_reader_without_position_reads_what_is_new(fill: Log, statistics: str) -> None:
    """Also with transactions that were open at its last read, and with none."""
    fill(statistics)
    with another(FILL.format(rows=1)) as cursor:
        place = tail.start("default")
        as_the_app("SELECT pg_current_xact_id()")  # the end of any transaction may show something new
        assert check_plans(lambda: tail.read("default", place)) == 1
        for _ in range(10):
            as_the_app(FILL.format(rows=1))
        cursor.execute("COMMIT")
        assert check_plans(lambda: tail.read("default", place, may_skip=True)) == 4
    assert len(tail.read("default", place).changes) == 11


@pytest.mark.parametrize(("statistics", "count"), [("stale", 20_000), ("fresh", 0), ("fresh", 20_000)])
def test_first_page_is_read_together_with_the_claim(fill: Log, statistics: str, count: int) -> None:
    fill(statistics)
    worker = Worker("default", Conf(BATCH_SIZE=50))
    worker.prepare()
    page(worker)
    skip(worker)
    as_the_app(FILL.format(rows=count))
    assert check_plans(lambda: page(worker)) == (2 if count else 1), "the standing with the page, and the images"
    assert worker.delivered == 50 + min(count, 50)


@pytest.mark.parametrize("statistics", ["stale", "fresh"])
def test_retries_and_rotation_use_an_index(fill: Log, statistics: str) -> None:
    fill(statistics)
    worker = Worker("default", Conf())
    worker.prepare()
    skip(worker)
    check_plans(lambda: waiting_shards("default", Conf()))
    check_plans(lambda: worker.shards[0].store.due(1))
    check_plans(lambda: release("default", "default", "a.b", "salesforce.account", "11"))
    ((bucket,),) = _rows("SELECT DISTINCT bucket FROM public.hc_signals_change")
    assert check_plans(lambda: rotation.is_done("default", bucket)) == 1
    assert check_plans(lambda: rotation.rotate("default", 72)) >= 1


def _rows(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def test_settings_of_the_database_change_no_plan(fill: Log) -> None:
    """Every kind of plan disabled, a new plan for each call, and parallel workers forced."""
    fill("stale")
    settings = of_this_server("no plan is enabled") | of_this_server("parallel workers") | HOSTILE["custom plans"]
    with database_with(settings):
        worker = Worker("default", Conf(BATCH_SIZE=50))
        worker.prepare()
        assert check_plans(lambda: page(worker)) >= 2
        assert check_plans(lambda: page(worker)) >= 2
        skip(worker)
        assert check_plans(worker._is_waiting) == 1
