"""The table of minutes: its rows, their sums, and who writes and deletes them."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from hc_signals.log import minutes
from hc_signals.log.histogram import BOUNDS, Histogram
from hc_signals.log.minutes import Minute, ReceiverMinute, append, forget_old, merged, read
from hc_signals.postgres.moments import now

AT = datetime(2026, 11, 30, 4, 7, tzinfo=UTC)
MINUTE = Minute(
    AT,
    "default",
    changes={"salesforce.account": {"INSERT": 3, "UPDATE": 1}},
    latency=Histogram([0.004, 0.004, 70.0, 1e9]),
    receivers={"crm.receivers.on_account": ReceiverMinute(4, 1, 0.125)},
    lag=1.5,
    log_bytes=10_000_000_000,
    freshness={"salesforce.account": Histogram([0.0, 301.0])},
)


def test_quantile_is_linear_inside_a_bucket() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram([0.6, 0.7]).quantile(0.5) == 0.75, "the middle between 0.5 and 1"
    assert Histogram([0.0005] * 98 + [0.6] * 2).quantile(0.95) < 0.001
    assert Histogram([400.0]).quantile(1) == 600
    assert Histogram([1e9]).quantile(0.5) == BOUNDS[-1], "nothing is known above the last bound"


def test_histogram_counts_and_merges() -> None:
    both = Histogram.merged([Histogram([0.001, 0.002]), Histogram([0.002, 1e9])])
    assert both == Histogram([0.001, 0.002, 0.002, 1e9])
    assert (both.count, both.counts[:2], both.counts[-1]) == (4, [1, 2], 1)
    assert both.buckets()[0] == ("0.001", 1) and both.buckets()[-1] == ("+Inf", 4)


def test_histogram_of_other_bounds_can_be_read() -> None:
    """A later release may have other bounds, while rows of this one are still there."""
    found = Histogram.restored({"sum": 30.0, "counts": {"0.0011": 1, "400": 2, "inf": 3}})
    assert (found.counts[1], found.counts[BOUNDS.index(600)], found.counts[-1], found.sum) == (1, 2, 3, 30.0)


@pytest.mark.django_db
def test_minutes_are_read_as_they_were_appended() -> None:
    empty = Minute(AT - timedelta(minutes=1), "other", lag=0.0)
    append("default", MINUTE)
    append("default", empty)
    assert read("default", AT - timedelta(hours=1)) == [empty, MINUTE]
    assert read("default", AT) == [MINUTE]
    assert read("default", AT - timedelta(hours=1), AT) == [empty]


def test_merged_adds_up_processes_and_steps() -> None:
    second = Minute(
        AT + timedelta(minutes=1),
        "default",
        changes={"salesforce.account": {"INSERT": 1}, "salesforce.contact": {"DELETE": 2}},
        receivers={"crm.receivers.on_account": ReceiverMinute(1, 0, 0.5)},
        lag=0.5,
        log_bytes=7,
        freshness={"salesforce.account": Histogram([9.0])},
    )
    late, other = Minute(AT + timedelta(minutes=3), "default"), Minute(AT, "other", lag=9.0)
    five = merged([second, MINUTE, late, other], timedelta(minutes=5))
    assert [(each.at, each.consumer) for each in five] == [
        (AT - timedelta(minutes=2), "default"),
        (AT - timedelta(minutes=2), "other"),
        (AT + timedelta(minutes=3), "default"),
    ]
    assert five[0].changes == {"salesforce.account": {"INSERT": 4, "UPDATE": 1}, "salesforce.contact": {"DELETE": 2}}
    assert five[0].receivers == {"crm.receivers.on_account": ReceiverMinute(5, 1, 0.625)}
    assert (five[0].lag, five[0].log_bytes) == (1.5, 7), "the highest lag, the newest size"
    assert five[0].freshness == {"salesforce.account": Histogram([0.0, 301.0, 9.0])}
    assert five[0].latency == MINUTE.latency
    assert five[2] == late


@pytest.mark.django_db
def test_only_old_minutes_are_deleted() -> None:
    old, young = now() - timedelta(hours=minutes.KEPT_HOURS, minutes=1), now() - timedelta(hours=95)
    append("default", Minute(old, "default"))
    append("default", Minute(young, "default"))
    assert forget_old("default") == 1
    assert [each.at for each in read("default", old)] == [young]


@pytest.mark.django_db
def test_figures_hold_no_more_than_needed() -> None:
    append("default", Minute(AT, "default", changes={"salesforce.account": {"INSERT": 1}}))
    with connection.cursor() as cursor:
        cursor.execute("SELECT figures::text FROM public.hc_signals_minute")
        assert cursor.fetchall() == [('{"changes":{"salesforce.account":{"INSERT":1}}}',)]
