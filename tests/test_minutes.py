"""The table of minutes: its rows, their sums, and who writes and deletes them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import OperationalError, ProgrammingError, connection
from example.crm.models import Account, Seen

from hc_signals.conf import Conf
from hc_signals.delivery import counting as counting_module
from hc_signals.delivery.counting import Counting
from hc_signals.delivery.pulse import Tally, observe, unobserve
from hc_signals.log import minutes
from hc_signals.log.histogram import BOUNDS, Histogram
from hc_signals.log.minutes import Minute, ReceiverMinute, append, forget_old, merged, read
from hc_signals.log.presence import workers
from hc_signals.postgres.moments import now
from hc_signals.testing import HerokuConnect
from hc_signals.worker.chores import Chores
from hc_signals.worker.minutes import Minutes
from tests.conftest import another, as_the_app, deliver
from tests.test_worker_process import asleep, insert, run_each, start, wait_until

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


# The worker


@contextmanager
def table_missing() -> Iterator[None]:
    """Have no table of minutes during the block, as before migration 0003."""
    as_the_app("ALTER TABLE public.hc_signals_minute RENAME TO minute_gone")
    try:
        yield
    finally:
        as_the_app("ALTER TABLE public.minute_gone RENAME TO hc_signals_minute")


def row_of(minute: Minute) -> tuple[dict[str, int], dict[str, int]]:
    changes = {table: sum(counts.values()) for table, counts in minute.changes.items()}
    return changes, {name.rpartition(".")[2]: each.calls for name, each in minute.receivers.items()}


def counted() -> tuple[dict[str, int], dict[str, int]]:
    """Return what all processes have counted: changes by table, calls by receiver."""
    found = merged(read("default", now() - timedelta(hours=1)), timedelta(days=1))
    return row_of(found[0]) if found else ({}, {})


@pytest.mark.usefixtures("captured")
def test_two_processes_append_their_own_minutes() -> None:
    shards = '{"SHARDS": 4}'
    processes = [start("hc_listen", "--concurrency", "2", HC_SIGNALS_JSON=shards) for _ in range(2)]
    try:
        wait_until(lambda: workers("default", "default") == 4)  # both run; only one of them holds the bell
        wait_until(asleep)
        insert(40)
        wait_until(lambda: Seen.objects.count() == 40)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(timeout=60) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    changes, calls = counted()
    assert changes == {"salesforce.account": 40}
    assert max(calls.values()) == 40, "a receiver of each change; one of records_changed has fewer calls"
    found = read("default", now() - timedelta(hours=1))
    assert all(minute.consumer == "default" for minute in found)
    assert found[-1].lag == 0 and (found[-1].log_bytes or 0) > 0


@pytest.mark.usefixtures("captured")
def test_once_appends_a_minute() -> None:
    insert(3)
    run_each([["hc_listen", "--once"]])
    assert counted()[0] == {"salesforce.account": 3}


def chore_of(counting: Counting) -> Chores:
    return Chores("default", Conf(), threading.Event(), counting=counting)


def test_idle_worker_appends_nothing(captured: HerokuConnect) -> None:
    chores = chore_of(Counting())
    for _ in range(3):
        for chore in chores.chores:
            chore.due = 0.0
        chores.do_what_is_due()
    assert read("default", now() - timedelta(hours=1)) == []


def test_gauge_that_has_changed_is_appended(captured: HerokuConnect) -> None:
    deliver()
    keeper = Minutes("default", Conf(), Counting())
    keeper.append()
    captured.create(Account, 2)
    keeper.append()
    (found,) = read("default", now() - timedelta(hours=1))
    assert (found.changes, found.lag is not None and found.lag > 0) == ({}, True)


def test_minutes_of_an_outage_are_appended_after_it(captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    begun = counting_module.this_minute()
    for minute in range(3):
        monkeypatch.setattr(counting_module, "this_minute", lambda minute=minute: begun - 60 * (5 - minute))
        counting.page_ends(Tally("default", 0, gaps=["paused"], calls={"a": [0.1] * (minute + 1)}), None)
    monkeypatch.undo()
    keeper = Minutes("default", Conf(), counting)
    with table_missing(), pytest.raises(ProgrammingError):
        keeper.append()
    keeper.append()
    found = read("default", now() - timedelta(hours=1))
    assert [each.receivers["a"].calls for each in found] == [1, 2, 3]
    assert [each.at.timestamp() for each in found] == [begun - 300, begun - 240, begun - 180]
    assert counting.total().receivers["a"].count == 6, "the metrics have them once"


def test_minutes_without_a_table_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    counting, begun = Counting(), counting_module.this_minute()
    for minute in range(200):
        monkeypatch.setattr(counting_module, "this_minute", lambda minute=minute: begun + 60 * minute)
        counting.page_ends(Tally("default", 0, calls={"a": [0.1]}), None)
    assert len(counting.waiting(begun + 60 * 1000)) == counting_module.WAITING
    assert counting.total().receivers["a"].count == 200


def test_missing_table_disturbs_no_delivery(captured: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
    """A deploy without a release phase: the new code runs before migration 0003."""
    counting = Counting()
    chores = chore_of(counting)
    observe(counting)
    try:
        captured.create(Account, 2)
        with table_missing():
            assert deliver() == 2
            for _ in range(3):
                for chore in chores.chores:
                    chore.due = 0.0
                chores.do_what_is_due()
    finally:
        unobserve(counting)
    said = [record.getMessage() for record in caplog.records if "record of minutes" in record.getMessage()]
    assert len(said) == 1
    assert "hc_signals_minute" in said[0]
    assert "Run `manage.py migrate hc_signals`" in said[0]
    assert [chore.name for chore in chores.chores if chore.trouble.text] == ["record of minutes"]


def test_locked_table_delays_the_chores_for_a_second(captured: HerokuConnect) -> None:
    counting = Counting()
    counting.page_ends(Tally("default", 0, calls={"a": [0.1]}), None)
    with another("LOCK TABLE public.hc_signals_minute IN ACCESS EXCLUSIVE MODE"), pytest.raises(OperationalError):
        Minutes("default", Conf(), counting)._append(before=counting_module.this_minute() + 60)


@pytest.mark.django_db(transaction=True)
def test_upgrade_and_downgrade_keep_undelivered_changes(captured: HerokuConnect) -> None:
    captured.create(Account, 2)
    try:
        call_command("migrate", "hc_signals", "0002", verbosity=0)
        assert not minutes.exists("default")
        captured.create(Account, 1)
        call_command("migrate", "hc_signals", verbosity=0)
        append("default", MINUTE)
        call_command("migrate", "hc_signals", "0002", verbosity=0)
        call_command("migrate", "hc_signals", verbosity=0)
        assert deliver() == 3
    finally:
        call_command("migrate", "hc_signals", verbosity=0)
    assert read("default", AT) == []
