"""Old buckets are emptied once every consumer has got them, and not while another session uses them."""

import pytest
from django.db import connection
from example.crm.models import Account

from hc_signals.conf import Conf
from hc_signals.exceptions import ConfigurationError
from hc_signals.log import rotation
from hc_signals.log.rotation import rotate
from hc_signals.log.schema import bucket_table
from hc_signals.models import Change
from hc_signals.testing import HerokuConnect
from tests.conftest import as_the_app, deliver


def age(hours: int, count: int = 5) -> None:
    """Make the oldest changes older by that many hours."""
    as_the_app(
        "UPDATE public.hc_signals_change SET captured_at = captured_at - make_interval(hours => %s), "
        "bucket = (bucket - %s / 12 + 16) %% 8 "
        "WHERE id IN (SELECT id FROM public.hc_signals_change ORDER BY id LIMIT %s)",
        [hours, hours, count],
    )


def test_old_delivered_buckets_are_emptied(captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    age(84)
    captured.create(Account, 3)
    deliver()
    assert len(rotate("default", 72)) == 1
    assert Change.objects.count() == 3
    captured.create(Account, 2)
    assert deliver() == 2


def test_changes_younger_than_the_retention_stay(captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    age(60)
    deliver()
    assert rotate("default", 72) == []


def test_undelivered_changes_keep_their_bucket(captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    age(84)
    assert rotate("default", 72) == [], "no consumer has got it"
    deliver()
    deliver(CONSUMER="other", BATCH_SIZE=2)
    with connection.cursor() as cursor:  # put the other one back to the middle of its window
        cursor.execute("DELETE FROM public.hc_signals_position WHERE consumer = 'other' AND target IS NULL")
    assert rotate("default", 72) == [], "one of two consumers has not got it"
    assert deliver(CONSUMER="other") == 1
    assert len(rotate("default", 72)) == 1


def test_busy_bucket_is_skipped(captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    age(84)
    deliver()
    reader = connection.copy()
    try:
        reader.set_autocommit(False)
        with reader.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM public.hc_signals_change")
        assert rotate("default", 72) == []
        reader.rollback()
    finally:
        reader.close()
    assert len(rotate("default", 72)) == 1


def test_late_commit_keeps_its_old_bucket(captured: HerokuConnect) -> None:
    late = connection.copy()
    try:
        late.set_autocommit(False)
        with late.cursor() as cursor:
            cursor.execute("SET LOCAL xmlbinary = 'hex'; INSERT INTO salesforce.account (sfid) VALUES ('late')")
        captured.create(Account, 1)
        deliver()
        late.commit()
    finally:
        late.close()
    age(84)
    assert rotate("default", 72) == []
    assert deliver() == 1
    assert len(rotate("default", 72)) == 1


def test_retention_longer_than_the_buckets_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected at most 80"):
        Conf(RETENTION_HOURS=100)


def test_check_for_undelivered_changes_uses_the_index(captured: HerokuConnect) -> None:
    """The planner expects ``xid >= x`` for half of the log, if few transactions have many rows; it is true for none."""
    deliver()
    for _ in range(3):
        as_the_app(
            "INSERT INTO public.hc_signals_change (table_name, operation, origin, bucket, record_id) "
            "SELECT 'salesforce.account', 'DELETE', 'heroku_connect', 3, n FROM generate_series(1, 5000) n"
        )
    as_the_app("ANALYZE public.hc_signals_change_3")
    with connection.cursor() as cursor:
        cursor.execute(
            f"EXPLAIN {rotation._UNREAD.format(table=bucket_table(3))}", {"consumer": "default", "shards": 4}
        )
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "hc_signals_change_3_xid_id_idx" in plan
    assert "Seq Scan on hc_signals_change_3" not in plan, plan
