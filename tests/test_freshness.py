"""Freshness: how old Salesforce's changes are when they are captured, and which leg of their way hangs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import override_settings
from example.crm.models import Account, Contact

from hc_signals.capture.snapshots import log_rows
from hc_signals.conf import Conf
from hc_signals.delivery.counting import SAMPLED, Counting, Sample
from hc_signals.delivery.pulse import observe, unobserve
from hc_signals.heroku.api import mappings_of
from hc_signals.log.histogram import Histogram
from hc_signals.log.minutes import Minute, append, read
from hc_signals.observability.judge import examine
from hc_signals.observability.judge.heroku import Heroku
from hc_signals.postgres.moments import now
from hc_signals.testing import HerokuConnect
from hc_signals.worker.minutes import Minutes
from tests.conftest import as_heroku_connect, as_the_app, deliver, in_utc
from tests.test_minutes import table_missing
from tests.test_status import status  # noqa: F401  (a fixture)

ACCOUNT = "salesforce.account"


class Listener:
    """Delivers as one process of hc_listen does, and appends its minutes."""

    def __init__(self) -> None:
        self.counting = Counting()
        self.minutes = Minutes("default", Conf(), self.counting)

    def __call__(self) -> dict[str, Histogram]:
        """Deliver, and return the freshness of the changes."""
        observe(self.counting)
        try:
            deliver()
        finally:
            unobserve(self.counting)
        before = len(read("default", now() - timedelta(hours=1)))
        self.minutes.append_last()
        return dict(read("default", now() - timedelta(hours=1))[before:][-1].freshness)


@pytest.fixture
def listen(captured: HerokuConnect) -> Listener:
    """Deliver again and again; one account and one contact are known and delivered."""
    for model in (Account, Contact):
        captured.create(model, 1, system_mod_stamp=ago(hours=1))
    listener = Listener()
    assert listener() == {}, "before the first change of a table its inserts may be a load"
    return listener


def ago(**age: float) -> datetime:
    return now() - timedelta(**age)


def sfid() -> str:
    return str(Account.objects.get().sf_id)


def test_freshness_is_the_time_from_salesforce_to_the_capture(captured: HerokuConnect, listen: Listener) -> None:
    captured.update(Account, sfid(), name="Old", system_mod_stamp=ago(minutes=-1, seconds=-1))
    (histogram,) = listen().values()
    assert (histogram.count, histogram.sum) == (1, 0.0), "Salesforce's clock is ahead: no freshness is below 0"
    captured.update(Account, sfid(), name="New", system_mod_stamp=ago(seconds=400))
    found = listen()
    assert list(found) == [ACCOUNT]
    assert found[ACCOUNT].count == 1
    assert 400 <= found[ACCOUNT].sum < 430
    assert listen.counting.total().freshness[ACCOUNT].count == 2, "the metrics have all minutes"


def test_insert_counts_unless_its_stamp_is_old(captured: HerokuConnect, listen: Listener) -> None:
    captured.update(Account, sfid(), name="A", system_mod_stamp=ago(minutes=5))
    listen()
    captured.create(Account, 1, system_mod_stamp=ago(minutes=2))
    assert 120 <= listen()[ACCOUNT].sum < 150
    captured.create(Account, 1, system_mod_stamp=ago(days=300))
    assert listen() == {}, "a load"


def test_new_process_knows_the_newest_stamps(captured: HerokuConnect, listen: Listener) -> None:
    captured.update(Account, sfid(), name="A", system_mod_stamp=ago(minutes=5))
    listen()
    captured.create(Account, 1, system_mod_stamp=ago(minutes=2))
    assert list(Listener()()) == [ACCOUNT]


def test_other_changes_have_no_freshness(captured: HerokuConnect, listen: Listener) -> None:
    as_the_app("UPDATE salesforce.account SET name = 'App', systemmodstamp = now() at time zone 'utc'")
    as_heroku_connect("UPDATE salesforce.account SET name = 'No new stamp'")
    log_rows(Account, "default", "SNAPSHOT", after=None, limit=10)
    log_rows(Account, "default", "GAP_UPDATE", after=None, limit=10, origin="heroku_connect")
    as_heroku_connect("DELETE FROM salesforce.contact")
    assert listen() == {}


def test_reload_has_no_freshness(captured: HerokuConnect, listen: Listener) -> None:
    as_heroku_connect("TRUNCATE salesforce.account")
    captured.create(Account, 3, system_mod_stamp=now())
    assert listen() == {}


def test_stamp_that_is_no_time_is_skipped(captured: HerokuConnect, listen: Listener) -> None:
    as_heroku_connect("UPDATE salesforce.account SET name = 'B', systemmodstamp = 'infinity'")
    assert listen() == {}


def test_sample_is_spread_evenly_and_bounded() -> None:
    sample = Sample()
    for number in range(100_000):
        sample.add(number)
    assert SAMPLED <= len(sample.ids) <= 2 * SAMPLED
    halves = sum(number < 50_000 for number in sample.ids)
    assert 0.4 < halves / len(sample.ids) < 0.6


def test_flood_is_counted_whole_and_sampled(captured: HerokuConnect, listen: Listener) -> None:
    captured.create(Account, 3 * SAMPLED)
    as_heroku_connect("UPDATE salesforce.account SET name = 'F', systemmodstamp = now() at time zone 'utc'")
    found = listen()[ACCOUNT]
    assert 0 < found.count <= 2 * SAMPLED
    (minute, *_) = read("default", now() - timedelta(hours=1))[-1:]
    assert minute.changes[ACCOUNT] == {"INSERT": 3 * SAMPLED, "UPDATE": 3 * SAMPLED + 1}
    assert minute.latency.count == 6 * SAMPLED + 1


# hc_status


def line(text: str, begin: str) -> str:
    return next(line for line in text.splitlines() if begin in line)


def quiet_for(**age: float) -> None:
    for table in ("account", "contact"):
        as_heroku_connect(f"UPDATE salesforce.{table} SET systemmodstamp = %s", [in_utc(ago(**age))])


def minute_of(age: timedelta, seconds: list[float]) -> None:
    at = (now() - age).replace(second=0, microsecond=0)
    append("default", Minute(at, "default", freshness={ACCOUNT: Histogram(seconds)}))


def test_status_shows_freshness_of_each_model(listen: Listener, status: Callable[..., str]) -> None:  # noqa: F811
    quiet_for(minutes=3)
    minute_of(timedelta(hours=3), [70.0] * 20)
    text = status()
    assert "ok    freshness   crm.Account: Salesforce -> table p50 " in text
    assert "(20 changes, sampled); newest stamp 3 min old" in text
    assert "ok    freshness   no change from Salesforce in 24 h: crm.Contact, crm.Project, " in text
    assert "ok    freshness   salesforce: Salesforce -> table works, the newest change is 3 min old" in text


def test_stamp_in_the_future_is_shown(listen: Listener, status: Callable[..., str]) -> None:  # noqa: F811
    minute_of(timedelta(hours=3), [0.0])
    quiet_for(seconds=-90)
    assert "ahead, so the clocks differ" in line(status(), "crm.Account: Salesforce")


def test_quiet_night_is_no_problem(listen: Listener, status: Callable[..., str]) -> None:  # noqa: F811
    quiet_for(hours=9)
    found = line(status(), "freshness   salesforce:")
    assert found == (
        "ok    freshness   salesforce: Salesforce -> table is quiet or stuck, the newest change is 9 h old; "
        "nothing more can be known without HEROKU_AUTH_TOKEN and HEROKU_CONNECT_APP_NAME"
    )


def test_old_changes_make_a_table_slow(listen: Listener, status: Callable[..., str]) -> None:  # noqa: F811
    minute_of(timedelta(minutes=1), [3000.0] * 2)
    assert "freshness-slow" not in status(), "two changes may be repaired drift"
    minute_of(timedelta(minutes=1), [3000.0])
    text = status()
    assert line(text, "crm.Account: Salesforce").startswith("warn")
    assert "Salesforce -> table is slow: p50 of the last hour 45 min, polled every 10 min" in text
    with override_settings(HC_SIGNALS={"SALESFORCE_POLL_SECONDS": 3600}):
        assert "freshness-slow" not in status()


def trigger_log_is(since: timedelta) -> None:
    """Make all rows of the trigger log that much older."""
    as_the_app(
        "UPDATE salesforce._trigger_log SET created_at = created_at - %s, processed_at = processed_at - %s",
        [since, since],
    )


def test_waiting_writes_show_that_heroku_connect_is_stuck(
    captured: HerokuConnect,
    listen: Listener,
    status: Callable[..., str],  # noqa: F811
) -> None:
    quiet_for(hours=1)
    captured.app_update(Contact, Contact.objects.get().pk, last_name="App")
    assert "freshness-stuck" not in status(), "it may be sent within the next minutes"
    trigger_log_is(timedelta(minutes=25))
    text = status()
    found = line(text, "freshness   salesforce:")
    assert found.startswith("error")
    assert found.endswith(
        "Salesforce -> table is stuck: 1 write(s) of the app wait for Salesforce, the oldest for 25 min"
    )
    captured.send_app_writes()
    captured.app_update(Contact, Contact.objects.get().pk, last_name="Next")
    assert "freshness-stuck" not in status(), "it processes writes"


def test_accepted_write_that_no_poll_reads_shows_it(
    captured: HerokuConnect,
    listen: Listener,
    status: Callable[..., str],  # noqa: F811
) -> None:
    quiet_for(hours=1)
    captured.app_update(Contact, Contact.objects.get().pk, last_name="App")
    captured.send_app_writes()
    assert "freshness-stuck" not in status(), "the next poll may read it"
    trigger_log_is(timedelta(minutes=25))
    found = line(status(), "freshness   salesforce:")
    assert found.startswith("error")
    assert "was accepted by Salesforce 25 min ago and not read back" in found
    captured.echo(Contact)
    assert line(status(), "freshness   salesforce:").startswith("ok")


def test_broken_capture_and_backlog_name_their_legs(
    captured: HerokuConnect,
    listen: Listener,
    status: Callable[..., str],  # noqa: F811
) -> None:
    captured.create(Account, 1)
    as_the_app("UPDATE public.hc_signals_change SET captured_at = captured_at - interval '90 seconds'")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE salesforce.account DISABLE TRIGGER USER")
    text = status()
    found = line(text, "freshness   salesforce:")
    assert found.endswith(
        "; table -> log is broken, see the lines `capture`; "
        "log -> receiver is slow for default, see the lines `consumer`"
    )


def test_api_knows_interval_and_state(listen: Listener) -> None:
    mapping = {"object_name": "Account", "state": "DATA_SYNCED", "config": {"sf_polling_seconds": 7200}}
    minute_of(timedelta(minutes=1), [3000.0] * 9)
    quiet_for(hours=9)
    answer = Heroku("my-app", mappings=mappings_of([{"schema_name": "salesforce", "mappings": [mapping]}]))
    found = [each for each in examine("default", Conf(), answer=answer) if each.name == "freshness"]
    assert [each.problem for each in found] == [""] * len(found), "45 minutes are not slow"
    assert found[-1].text.endswith("the newest change is 9 h old; Heroku Connect says DATA_SYNCED")


def test_status_without_the_table_says_what_to_do(listen: Listener, status: Callable[..., str]) -> None:  # noqa: F811
    with table_missing():
        text = status()
    assert line(text, "freshness").startswith("warn")
    assert "Run `manage.py migrate hc_signals`" in text


def test_times_are_utc(listen: Listener) -> None:
    assert all(each.at.tzinfo is UTC for each in read("default", now() - timedelta(hours=1)))
