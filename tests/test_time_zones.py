"""USE_TZ = False, and a database with its own TIME_ZONE: times are aware inside, shown in the project's zone."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.forms import modelform_factory
from django.test import Client, override_settings
from django.utils import timezone
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture import pausing
from hc_signals.conf import Conf
from hc_signals.events import ChangeEvent
from hc_signals.log.consumers import consumers
from hc_signals.models import Change
from hc_signals.postgres import moments
from hc_signals.testing import HerokuConnect
from tests.conftest import ROOT, deliver
from tests.sfdc.models import Everything

HERE = ZoneInfo("America/Chicago")


def reset_time_zone() -> None:
    """Make the connection read its time zone again, as Django does when a setting is overridden."""
    for name in ("timezone", "timezone_name"):
        connection.__dict__.pop(name, None)
    connection.ensure_timezone()


@pytest.fixture(params=["naive", "zone of the database"])
def zones(request: pytest.FixtureRequest, captured: HerokuConnect) -> Iterator[HerokuConnect]:
    """A captured database whose times are naive, or in another time zone than the project's."""
    if request.param == "naive":
        with override_settings(USE_TZ=False):
            yield captured
        return
    connection.settings_dict["TIME_ZONE"] = "Asia/Tokyo"
    reset_time_zone()
    yield captured
    connection.settings_dict["TIME_ZONE"] = None
    reset_time_zone()


def printed(*command: str) -> str:
    """Return what a command prints."""
    out = StringIO()
    call_command(*command, stdout=out, stderr=out, no_color=True)
    return out.getvalue()


def status(*options: str) -> str:
    """Return what hc_status prints, whatever its verdict."""
    out = StringIO()
    with suppress(CommandError):
        call_command("hc_status", *options, stdout=out, no_color=True)
    return out.getvalue()


def times_in(text: str) -> list[datetime]:
    """Return the times in a text, read as times of the project's zone."""
    return [
        datetime.fromisoformat(found).replace(tzinfo=HERE)
        for found in re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", text)
    ]


def is_recent(when: datetime) -> bool:
    return abs(moments.now() - when) < timedelta(minutes=5)


def test_only_one_module_asks_for_the_time() -> None:
    """django.utils.timezone.now() is naive with USE_TZ = False, and localtime() refuses naive times."""
    found = {
        path.relative_to(ROOT / "hc_signals").as_posix()
        for path in (ROOT / "hc_signals").rglob("*.py")
        if re.search(r"django.utils import .*timezone|timezone\.(now|localtime)\(|datetime\.now\(", path.read_text())
    }
    assert found <= {"moments.py", "db/models/fields.py", "testing/heroku_connect.py"}


def test_aware_distinguishes_the_repeated_hour(zones: HerokuConnect) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT timestamptz '2026-11-01 06:30+00', timestamptz '2026-11-01 07:30+00', NULL, 'text'")
        first, second, *others = moments.aware_row(cursor.fetchone())
    assert first == datetime(2026, 11, 1, 6, 30, tzinfo=UTC)
    assert second == datetime(2026, 11, 1, 7, 30, tzinfo=UTC)
    assert others == [None, "text"]


def test_receivers_get_aware_times(zones: HerokuConnect, connect: Callable[..., None]) -> None:
    events: list[ChangeEvent[Any]] = []
    for signal in (signals.record_created, signals.gap_detected):
        connect(signal, lambda event, **kwargs: events.append(event), Account)
    (sfid,) = zones.create(Account, 1)
    printed("hc_triggers", "pause")
    printed("hc_triggers", "resume")
    deliver()
    created, gap = events[0], next(event for event in events if event.cause == "paused")
    for when in (created.captured_at, gap.captured_at, gap.since, gap.until, created.instance.system_mod_stamp):
        assert when is not None and timezone.is_aware(when) and is_recent(when)
    assert created.captured_at == moments.aware(Change.objects.order_by("id")[0].captured_at)
    assert created.instance == Account.objects.get(sf_id=sfid)
    assert created.instance.system_mod_stamp == Account.objects.get(sf_id=sfid).system_mod_stamp


def test_retry_has_the_same_times(zones: HerokuConnect, connect: Callable[..., None]) -> None:
    seen: list[datetime] = []

    def fails_once(event: Any, **kwargs: Any) -> None:
        seen.append(event.captured_at)
        if len(seen) == 1:
            raise ValueError("once")

    connect(signals.record_created, fails_once, Account)
    zones.create(Account, 1)
    deliver()
    shown = printed("hc_deliveries", "show", printed("hc_deliveries", "list").split()[0])
    assert all(map(is_recent, times_in(shown))) and len(times_in(shown)) == 3
    printed("hc_deliveries", "retry", "--all")
    deliver()
    assert seen[0] == seen[1]


def test_commands_show_the_projects_zone(zones: HerokuConnect) -> None:
    zones.create(Account, 3)
    deliver()
    printed("hc_triggers", "pause")
    off = pausing.find("default").since
    assert off is not None and is_recent(off)
    for words in (["hc_triggers", "status"], ["hc_triggers", "pause"], ["hc_triggers", "resume"]):
        text = printed(*words)
        assert all(map(is_recent, times_in(text))) and times_in(text), text
        assert " CST" in text or " CDT" in text
    text = status()
    assert is_recent(times_in(text.splitlines()[0])[0])
    report = json.loads(status("--json"))
    since = [finding["facts"]["last"] for finding in report["findings"] if finding["problem"] == "gaps-recent"]
    assert since and all(is_recent(datetime.fromisoformat(each)) for each in [report["checked_at"], *since])
    (consumer,) = consumers("default", 72)
    assert consumer.moved_at is not None and is_recent(consumer.moved_at)
    assert re.search(r"moved \d+ s ago", printed("hc_consumers", "list"))


def test_time_options_are_in_the_projects_zone(zones: HerokuConnect, connect: Callable[..., None]) -> None:
    """Options accept times as commands show them."""
    zones.create(Account, 2)
    deliver()
    calls: list[Any] = []
    connect(signals.record_created, lambda event, **kwargs: calls.append(event), Account)
    before = moments.shown(moments.now() - timedelta(minutes=5), zone=False)
    for since in (before, "5m", (moments.now() - timedelta(minutes=5)).isoformat()):
        calls.clear()
        printed("hc_replay", "--since", since, "--yes")
        assert len(calls) == 2
        assert "2 rows are logged" in printed("hc_backfill", "crm.Account", "--since", since)
        assert deliver(CONSUMER=f"from {since}", START_AT=since) == Change.objects.count() > 0
    printed("hc_consumers", "start", "named", "--at", before)
    assert before == Conf(START_AT=before).START_AT


def test_admin_shows_the_projects_zone(
    zones: HerokuConnect, admin_client: Client, connect: Callable[..., None]
) -> None:
    def fails(**kwargs: Any) -> None:
        raise ValueError("always")

    connect(signals.record_created, fails, Account)
    zones.create(Account, 1)
    deliver()
    for page in ("change/", "delivery/", "position/", "change/?since=15m"):
        response = admin_client.get(f"/admin/hc_signals/{page}")
        assert response.status_code == 200
        assert times_in(response.text) and all(map(is_recent, times_in(response.text))), page
    printed("hc_triggers", "pause")
    assert all(map(is_recent, times_in(admin_client.get("/admin/hc_signals/connectedtable/").text)))


def test_unchanged_form_shifts_no_time(zones: HerokuConnect) -> None:
    """Django's forms convert times only with USE_TZ: each save would shift the record by the zone's offset."""
    when = datetime(2026, 7, 1, 12, 30, 15, tzinfo=UTC)
    record = Everything(date_time=when)
    record.save()
    record.refresh_from_db()
    form_class = modelform_factory(Everything, fields=["date_time"])
    shown = form_class(instance=record)["date_time"].value()
    form = form_class({"date_time": f"{shown:%Y-%m-%d %H:%M:%S}"}, instance=record)
    assert form.is_valid() and shown.hour == 7
    form.save()
    record.refresh_from_db()
    assert record.date_time == when
