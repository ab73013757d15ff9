"""The facts that hc_status, the metrics and the admin share: each is read once, and all outputs agree."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from example.crm.models import Account

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.observability.judge import examine
from hc_signals.observability.survey import Survey
from hc_signals.observability.surveyor import figures
from hc_signals.testing import HerokuConnect
from tests.conftest import deliver

FACTS = ("statuses", "orphans", "pause", "watched", "consumers", "log_mb")


def test_survey_reads_each_fact_once(captured: HerokuConnect) -> None:
    deliver()
    survey = Survey("default", Conf())
    found = [getattr(survey, fact) for fact in FACTS]
    with CaptureQueriesContext(connection) as queries:
        assert [getattr(survey, fact) for fact in FACTS] == found
    assert len(queries) == 0


def test_status_reads_triggers_and_consumers_once(captured: HerokuConnect) -> None:
    deliver()
    with CaptureQueriesContext(connection) as queries:
        examine("default", Conf())
    statements = [query["sql"] for query in queries]
    assert sum("hc_signals_newest_position GROUP" in sql or "SELECT consumer, shard" in sql for sql in statements) == 1
    assert sum("pg_total_relation_size" in sql for sql in statements) == 1
    assert sum("paused_at" in sql for sql in statements) == 1


def test_survey_counts_failed_deliveries_by_one_query(captured: HerokuConnect) -> None:
    deliver()
    with CaptureQueriesContext(connection) as queries:
        assert Survey("default", Conf()).consumer("default").deliveries == {}
    assert sum("hc_signals_delivery" in query["sql"] for query in queries) == 1


def test_status_and_metrics_agree(captured: HerokuConnect, connect: Any) -> None:
    def fails(**kwargs: Any) -> None:
        raise ValueError

    connect(signals.record_created, fails, Account)
    captured.create(Account, 2)
    deliver(SHARDS=2, RETRY_SECONDS=600)
    captured.create(Account, 5)
    read = figures("default", Conf())
    (fact,) = [finding.facts for finding in examine("default", Conf()) if finding.name == "consumer"]
    assert fact["backlog"] == read.consumer.backlog.count == 5
    assert [each["backlog"] for each in fact["shards"]] == [each.count for each in read.consumer.by_shard]
    assert fact["workers"] == read.consumer.workers
    assert read.consumer.deliveries == {"retry": 2}
    assert len(read.lags) == 2 and max(read.lags) > 0


@pytest.mark.parametrize(("each_shard", "limits"), [(False, {5}), (True, {10})])
def test_count_limit_is_shared_among_shards(captured: HerokuConnect, each_shard: bool, limits: set[int]) -> None:
    deliver(SHARDS=2)
    captured.create(Account, 60)
    consumer = Survey("default", Conf(), 10, each_shard).consumer("default")
    assert {backlog.limit for backlog in consumer.by_shard} == limits
    assert str(consumer.backlog) == f"more than {sum(limits) * 2}"
