"""The overview of the admin: its sentence, its findings, its charts, the live tail, permissions and cost."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User as Login
from django.db import DatabaseError, connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from example.crm.models import Account, Contact

from hc_signals import signals
from hc_signals.admin.overview import charts, health, page
from hc_signals.admin.overview.charts import Chart, Charts, Line, Present, Row
from hc_signals.admin.overview.drawing import area, draw, line
from hc_signals.admin.overview.frame import MINUTE, PERIODS, Frame, bounds
from hc_signals.admin.overview.words import COUNT, duration, next_duration, next_number, next_size, number, short, size
from hc_signals.capture.install import uninstall_capture
from hc_signals.conf import Conf
from hc_signals.heroku.api import Problem
from hc_signals.log.histogram import Histogram
from hc_signals.log.minutes import Minute, ReceiverMinute, append
from hc_signals.observability import judge
from hc_signals.observability.findings import PROBLEMS, Verdict, finding, most_urgent
from hc_signals.observability.judge.heroku import Heroku
from hc_signals.observability.runbook import section
from hc_signals.postgres.moments import now
from hc_signals.tables import table_label
from hc_signals.testing import HerokuConnect
from tests.conftest import deliver
from tests.test_triggerlog_admin import login

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = PERIODS[1]


def address(name: str = "changelist") -> str:
    return reverse(f"admin:hc_signals_minute_{name}")


def text_of(client: Client, name: str = "changelist", **params: Any) -> str:
    """Return the text of a page without its tags."""
    response = client.get(address(name), params)
    assert response.status_code == 200
    text = re.sub(r"</?(code|strong)>", "", response.content.decode())
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)))


def tail(client: Client, place: str = "") -> tuple[str, str]:
    """Return the changes after a place as HTML, and the next place."""
    response = client.get(address("live"), {"place": place})
    assert response.status_code == 200
    html = response.content.decode()
    return html, unescape(re.search(r'data-place="([^"]+)"', html)[1])  # type: ignore[index]


def charts_of(found: list[Minute], hours: int = 1, **present: Any) -> dict[str, Chart]:
    """Return the charts of minutes before AT, by key."""
    for minute in found:
        append("default", minute)
    drawn = charts.charts("default", PERIODS[hours], "default", Present(AT + timedelta(seconds=30), **present))
    return {chart.key: chart for chart in drawn.charts}


def values(chart: Chart, label: str, line: int = 0) -> list[float | None]:
    (row,) = [row for row in chart.rows if row.label == label]
    return list(row.lines[line].values)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Read everything for each test."""
    page.forget()
    health.forget()
    yield
    page.forget()
    health.forget()


@pytest.fixture
def site(captured: HerokuConnect) -> Client:
    """The admin as a superuser sees it."""
    client = Client()
    client.force_login(Login.objects.create_superuser("root"))
    return client


def test_page_says_the_same_as_hc_status(site: Client, captured: HerokuConnect) -> None:
    uninstall_capture(Account, "default")
    captured.create(Contact)
    text = text_of(site)
    for found in judge.examine("default", Conf()):
        if found.name not in ("connections", "log"):  # their figures change all the time
            assert found.text in text, found
        if found.problem:
            assert f"{found.remedy} [{found.problem}]".replace("`", "") in text, found
    assert "[consumer-new]" in text and "[capture-missing]" in text


def test_first_sentence_names_the_worst_problem(site: Client, captured: HerokuConnect) -> None:
    assert "Working, with 1 warning. First: consumer: default: has never run." in text_of(site)
    uninstall_capture(Account, "default")
    health.forget()
    text = text_of(site)
    assert "Not healthy: 1 error and 1 warning. First: capture: salesforce.account: missing" in text
    assert "Run manage.py hc_triggers install; changes until then are not captured." in text


def test_sentence_without_problems(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "examine", lambda *args, **options: [finding("server", "is there")])
    text = text_of(site)
    assert "Healthy. 1 check found no problem." in text
    assert "Not healthy" not in text


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problem_has_its_section_of_the_runbook(problem: str) -> None:
    pieces = list(page._pieces(section(problem)))
    assert pieces and problem not in pieces[0][1]
    assert all("`" not in text for is_block, text in pieces if not is_block), "commands are marked as code"


def test_page_has_the_section_of_each_problem(site: Client) -> None:
    text = text_of(site)
    assert "What the runbook says" in text
    assert "The consumer of this project's settings has never run." in text


def test_most_urgent_is_the_first_error() -> None:
    warning, error = finding("bell", "", "bell-no-sleeper"), finding("capture", "", "capture-disabled")
    assert most_urgent([finding("a", ""), warning, error, finding("gaps", "", "gaps-lost")]) is error
    assert most_urgent([finding("a", ""), warning]) is warning
    assert most_urgent([finding("a", "")]) is None


def test_checks_without_time_are_findings(captured: HerokuConnect) -> None:
    """A server so slow that the first check takes all the time: the page is bounded, and says what is missing."""
    found = judge.examine("default", Conf(), seconds=0)
    assert found[0].name == "server" and found[0].verdict is Verdict.OK
    assert {each.text for each in found[1:]} == {judge.NO_TIME}
    assert {each.problem for each in found[1:]} == {"not-checked"}


def test_lost_database_is_a_finding(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise DatabaseError("the server closed the connection")

    monkeypatch.setattr(health, "examine", fail)
    assert "the server closed the connection" in text_of(site)


def test_state_of_heroku_connect_follows(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page does not wait for the API: a thread asks it, and the next page has the answer."""
    red = Problem(connection="red", state="NEED_AUTHENTICATION", reason="not a working state")
    monkeypatch.setattr(health, "ask", lambda: Heroku("app", problems=[red]))
    asked = health.HerokuAnswer()
    monkeypatch.setattr(health, "_heroku", asked)
    text_of(site)
    asked.thread.join(10)
    assert "connection 'red': state NEED_AUTHENTICATION: not a working state" in text_of(site)


def test_page_without_the_log(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [finding("log", "the change log does not exist", "log-missing")]
    monkeypatch.setattr(health, "examine", lambda *args, **options: missing)
    assert "Run manage.py migrate hc_signals" in text_of(site)


def test_page_before_the_migration_of_the_minutes(site: Client) -> None:
    """After a deploy without a release phase the table is missing: the findings are there all the same."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE public.hc_signals_minute RENAME TO hc_signals_minute_later")
    try:
        text = text_of(site)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE public.hc_signals_minute_later RENAME TO hc_signals_minute")
    assert "has never run" in text
    assert "run manage.py migrate hc_signals" in text


def test_unreadable_figures_are_one_sentence(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise DatabaseError("canceling statement due to statement timeout")

    monkeypatch.setattr(charts, "read", fail)
    text = text_of(site)
    assert "The figures could not be read: canceling statement due to statement timeout" in text
    assert "has never run" in text


def test_page_needs_the_view_permission(site: Client) -> None:
    for name in ("changelist", "part", "live"):
        assert login("view_change", "view_position").get(address(name)).status_code == 403, name
        assert Client().get(address(name)).status_code == 302, name
        Login.objects.exclude(username="root").delete()


def test_page_accepts_no_post(site: Client) -> None:
    for client in (site, login("view_minute")):
        statuses = {name: client.post(address(name)).status_code for name in ("changelist", "part", "live")}
        assert statuses == {"changelist": 403, "part": 405, "live": 405}


def test_links_are_those_that_the_user_may_follow(site: Client) -> None:
    def links(client: Client) -> set[str]:
        nav = re.search(r'<nav class="hc-links" aria-label="Other.*?</nav>', client.get(address()).content.decode())
        return set(re.findall(r'href="([^"]+)"', nav[0] if nav else ""))

    assert links(login("view_minute")) == set()
    assert links(login("view_minute", "view_delivery")) == {reverse("admin:hc_signals_delivery_changelist")}
    assert {
        reverse(f"admin:hc_signals_{name}_changelist") for name in ("change", "position", "connectedtable")
    } <= links(site)


@pytest.mark.parametrize("params", [{"hours": "7"}, {"hours": "x"}, {"hours": "9" * 50}, {"consumer": "<b>\x00"}])
def test_wrong_address_shows_the_default(site: Client, params: dict[str, str]) -> None:
    response = site.get(address(), params)
    assert response.status_code == 200
    assert b"<b>\x00" not in response.content
    assert 'aria-current="true">1 hour' in response.content.decode()


def test_page_explains_why_charts_are_empty(site: Client) -> None:
    text = text_of(site)
    assert "No change was delivered in this time." in text
    assert "No receiver has failed in this time." in text
    assert "no worker is running" not in text, "no consumer was ever there: the finding says so"
    deliver()
    health.forget()
    assert "Consumer “default”: 1 worker running." in text_of(site), "the session of this test"


def test_page_names_the_missing_worker(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [finding("consumer", "default: 0 worker(s)", "consumer-no-worker", consumer="default", workers=0)]
    monkeypatch.setattr(health, "examine", lambda *args, **options: found)
    assert "Consumer “default”: no worker is running, so nothing is delivered." in text_of(site)


def test_open_pages_share_one_reading(site: Client) -> None:
    text_of(site)
    with CaptureQueriesContext(connection) as queries:
        for _ in range(10):
            text_of(site, "part")
    assert not [each["sql"] for each in queries if "hc_signals" in each["sql"]]


def test_worker_figures_reach_the_charts(site: Client, captured: HerokuConnect, connect: Any) -> None:
    connect(signals.record_created, lambda **kwargs: None, Account)
    minute = now().replace(second=0, microsecond=0) - 3 * MINUTE
    figures = {table_label(Account): {"INSERT": 2, "UPDATE": 1}}
    append("default", Minute(minute, "default", changes=figures, latency=Histogram([0.2] * 3)))
    html = site.get(address()).content.decode()
    assert re.search(r"<desc[^>]*>CREATE: 2 changes. UPDATE: 1 change. </desc>", html)
    assert re.search(r"<desc[^>]*>crm.Account: 3 changes. </desc>", html)
    assert re.search(r"<desc[^>]*>all models: p50 \d+ ms, p95 \d+ ms. </desc>", html)


def test_charts_of_another_consumer(site: Client) -> None:
    minute = now().replace(second=0, microsecond=0) - 3 * MINUTE
    append("default", Minute(minute, "search", changes={"salesforce.account": {"INSERT": 7}}))
    deliver(CONSUMER="search")
    assert "7 changes" not in text_of(site)
    assert "7 changes" in text_of(site, consumer="search")
    assert "?hours=24&amp;consumer=search" in site.get(address(), {"consumer": "search"}).content.decode()


@override_settings(LANGUAGE_CODE="de", USE_THOUSAND_SEPARATOR=True)
def test_numbers_of_the_drawing_are_not_localized(site: Client) -> None:
    minute = now().replace(second=0, microsecond=0) - 3 * MINUTE
    many = {f"salesforce.t{number}": {"INSERT": 5} for number in range(40)}
    append("default", Minute(minute, "default", changes=many))
    html = site.get(address()).content.decode()
    svg = "".join(re.findall(r"<svg.*?</svg>", html, re.S))
    assert not re.search(r'(x1|y|height|viewBox|width)="[^"]*[,]', svg)
    assert 'viewBox="0 0 60 100"' in svg


@pytest.mark.django_db
def test_changes_are_counted_by_the_minute() -> None:
    found = charts_of([Minute(AT - timedelta(minutes=30), "default", changes={"t": {"UPDATE": 60, "GAP": 1}})])
    assert values(found["types"], "UPDATE")[30] == 60
    assert sum(filter(None, values(found["types"], "GAP_OVERFLOW"))) == 1
    found = charts_of([], hours=24)
    assert max(filter(None, values(found["types"], "UPDATE"))) == 6, "60 changes in a step of ten minutes"
    assert [row.summary for row in found["types"].rows] == ["60 changes", "1 change"]


@pytest.mark.django_db
def test_smaller_models_are_added_up() -> None:
    changes = {f"salesforce.t{number:02}": {"UPDATE": 20 - number} for number in range(12)}
    found = charts_of([Minute(AT - MINUTE, "default", changes=changes)])["models"]
    assert [row.label for row in found.rows][::8] == ["salesforce.t00", "4 more"]
    assert values(found, "4 more")[-1] == 12 + 11 + 10 + 9


@pytest.mark.django_db
def test_lag_is_known_where_no_worker_ran() -> None:
    """The change that was undelivered for ten minutes was undelivered in each of these minutes."""
    found = charts_of([Minute(AT - timedelta(minutes=21), "default", lag=600)])["lag"]
    lags = values(found, "all models")
    assert [lags[number] for number in (28, 29, 30, 38, 39, 40)] == [0, 0, 60, 540, 600, 0]
    found = charts_of([], lag=330)["lag"]
    assert values(found, "all models")[-2:] == [240, 300], "and since then up to now"
    assert found.rows[0].summary == "now 5.5 min, highest 10 min"


@pytest.mark.django_db
def test_size_of_the_log_stays_until_the_next_one() -> None:
    """Of whatever consumer: the log is that of all."""
    found = charts_of(
        [
            Minute(AT - timedelta(minutes=50), "default", log_bytes=100 * 2**20),
            Minute(AT - timedelta(minutes=20), "other", log_bytes=300 * 2**20),
        ],
        log_bytes=200 * 2**20,
    )["log"]
    sizes = values(found, "the log")
    assert [sizes[number] for number in (9, 10, 39, 40, 58, 59)] == [
        each and each * 2**20 for each in (None, 100, 100, 300, 300, 200)
    ]
    assert found.rows[0].summary == "now 200 MB, highest 300 MB"


@pytest.mark.django_db
def test_quantiles_are_unknown_without_changes() -> None:
    found = charts_of(
        [
            Minute(AT - 3 * MINUTE, "default", latency=Histogram([0.2] * 99 + [20])),
            Minute(AT - MINUTE, "default", freshness={"salesforce.account": Histogram([400.0])}),
        ]
    )
    assert values(found["latency"], "all models")[-2:] == [None, None]
    assert 0.1 < (values(found["latency"], "all models")[-3] or 0) < 0.25
    assert [row.label for row in found["freshness"].rows] == ["crm.Account"]


@pytest.mark.django_db
def test_failures_are_of_the_receivers_that_failed() -> None:
    receivers = {"crm.fine": ReceiverMinute(9, 0, 1.0), "crm.broken": ReceiverMinute(4, 3, 0.1)}
    found = charts_of([Minute(AT - MINUTE, "default", receivers=receivers)])["failures"]
    assert [(row.label, row.summary) for row in found.rows] == [("crm.broken", "3 failed calls")]


@pytest.mark.django_db
@pytest.mark.parametrize("hours", PERIODS)
def test_table_has_the_sums_of_the_chart(hours: int) -> None:
    period = PERIODS[hours]
    since, until = bounds(period, AT)
    every = [Minute(since + number * MINUTE, "default", changes={"t": {"UPDATE": 1}}) for number in range(0, 300, 7)]
    found = [each for each in every if each.at < until]
    for minute in found:
        append("default", minute)
    drawn = charts.charts("default", period, "default", Present(AT))
    (row,) = drawn.charts[0].rows
    for frame, each in ((drawn.frame, row.lines[0].values), (drawn.table, row.lines[0].of_table)):
        total = sum((value or 0) * frame.minutes(step) for step, value in enumerate(each))
        assert total == pytest.approx(len(found))
    assert len(drawn.table.starts) <= 25, "a table that a person can read"
    assert len(draw(drawn.charts[0], drawn, period).body) == len(drawn.table.starts)


@pytest.mark.parametrize("hours", PERIODS)
def test_frame_ends_with_the_last_whole_minute(hours: int) -> None:
    period = PERIODS[hours]
    since, until = bounds(period, AT + timedelta(minutes=7, seconds=10))
    assert until == AT + timedelta(minutes=6), "the worker may not have appended the last minute yet"
    frame = Frame(since, until, period.step, [])
    assert frame.starts[-1] < until <= frame.starts[-1] + period.step
    assert len(frame.starts) * period.step == timedelta(hours=hours)
    assert frame.index(until) == len(frame.starts) - 1
    assert frame.index(since - timedelta(days=1)) == 0


@pytest.mark.parametrize(
    ("zone", "labels"), [("UTC", ["18:00", "00:00", "06:00"]), ("Asia/Kolkata", ["00:00", "06:00", "12:00"])]
)
def test_axis_has_full_hours_of_the_zone(zone: str, labels: list[str]) -> None:
    period = PERIODS[24]
    frame = Frame(*bounds(period, AT + timedelta(seconds=30)), period.step, [])
    chart = Chart("a", "a", "", COUNT, [], "")
    with override_settings(TIME_ZONE=zone):
        ticks = draw(chart, Charts(frame, frame, [chart]), period).ticks
    assert [tick.label for tick in ticks] == labels


def test_paths_end_where_a_value_is_unknown() -> None:
    assert line([0, 50, None, 100]) == "M0 0V0h1V50h1M3 100V100h1"
    assert area([0, 50, None]) == "M0 100V0h1V50h1V100z"


def test_strips_have_their_own_scale() -> None:
    rows = [Row("a", (Line("", [3, 0], []),), "s"), Row("x" * 60, (Line("", [3000, 0], []),), "s")]
    period = PERIODS[1]
    frame = Frame(*bounds(period, AT), period.step, [])
    first, second = draw(
        Chart("k", "t", "", COUNT, rows, ""), Charts(frame, Frame(AT, AT, MINUTE, []), []), period
    ).strips
    assert (first.top, second.top) == ("5", "5\u202f000")
    assert first.lines == second.lines
    assert first.bottom < second.label_y < second.y
    assert (len(second.label), len(second.name)) == (38, 60)


def test_words() -> None:
    assert [duration(each) for each in (0, 0.0004, 0.08, 1, 90, 130, 5400, 7200, 200000)] == [
        *("0 s", "0.4 ms", "80 ms", "1 s", "90 s", "2.2 min", "90 min", "2 h", "2.3 d")
    ]
    assert [number(each) for each in (0, 0.25, 9, 10, 1234567)] == ["0", "0.2", "9", "10", "1\u202f234\u202f567"]
    assert [size(each * 2**20) for each in (0.3, 300, 3000)] == ["0.3 MB", "300 MB", "2.9 GB"]
    assert [next_number(each) for each in (0, 0.3, 1, 3, 51)] == [1, 0.5, 1, 5, 100]
    assert [next_duration(each) for each in (0.3, 3, 31, 400, 90000)] == [0.5, 5, 60, 600, 172800]
    assert [next_size(each * 2**20) / 2**20 for each in (3, 900, 1500)] == [5, 1000, 2048]
    assert short("a" * 38) == "a" * 38


def test_tail_shows_each_change_once(site: Client, captured: HerokuConnect) -> None:
    captured.create(Account, 2)
    html, place = tail(site)
    assert html.count("<li>") == 2, "the newest ones that were there before"
    html, place = tail(site, place)
    assert "<li>" not in html
    captured.update(Account, captured.sfids(Account)[0], name="Edge")
    html, place = tail(site, place)
    assert html.count("<li>") == 1
    assert "UPDATE" in html and "crm.Account" in html and "<ins>Edge</ins>" in html
    assert "<li>" not in tail(site, place)[0]


def test_tail_moves_no_position(site: Client, captured: HerokuConnect) -> None:
    captured.create(Account, 2)
    tail(site)
    assert deliver() == 2


@pytest.mark.parametrize(
    ("permissions", "has_link", "has_value"),
    [
        (("view_minute",), False, False),
        (("view_minute", "view_account"), False, False),
        (("view_minute", "view_change"), True, False),
        (("view_minute", "view_change", "view_account"), True, True),
    ],
)
def test_tail_shows_values_to_those_with_the_permissions(
    captured: HerokuConnect, permissions: tuple[str, ...], has_link: bool, has_value: bool
) -> None:
    (sfid,) = captured.insert(Account, name="Before Ltd")
    captured.update(Account, sfid, name="After Ltd", industry="Retail")
    html, _ = tail(login(*permissions))
    assert sfid in html and "crm.Account" in html and "UPDATE" in html
    assert "name, industry" in html or has_value
    assert ("/change/" in html) is has_link
    assert ("/timeline/" in html) is has_value
    assert ("After Ltd" in html, "Before Ltd" in html, "Retail" in html) == (has_value,) * 3


def test_tail_escapes_and_shortens_values(site: Client, captured: HerokuConnect) -> None:
    from example.crm.models import Project

    (project,) = captured.insert(Project, name="a", description="b")
    captured.update(Project, project, name="<script>\u202e\u200b", description="<" * 100_000)
    html, _ = tail(site)
    assert "<script" not in html and "\u202e" not in html and "\u200b" not in html
    assert "U+202E" in html and "U+200B" in html
    assert len(html) < 20_000


def test_tail_shows_the_newest_of_many(site: Client, captured: HerokuConnect) -> None:
    _, place = tail(site)
    captured.create(Account, 60)
    html, _ = tail(site, place)
    assert html.count("<li>") == 50
    assert "10 older changes are not shown here" in html


@pytest.mark.parametrize("place", ["x", "a:b:c", "\x00"])
def test_tail_refuses_a_forged_place(site: Client, place: str) -> None:
    response = site.get(address("live"), {"place": place})
    assert response.status_code == 400
    assert b"begin again" in response.content


def test_tail_of_an_unreadable_log_is_one_sentence(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise DatabaseError("statement timeout\nDETAIL: more")

    monkeypatch.setattr(page.live.tail, "start_with_newest", fail)
    response = site.get(address("live"))
    assert (response.status_code, response.content) == (503, b"statement timeout")


def test_part_is_never_cached_by_a_browser(site: Client) -> None:
    assert "no-store" in site.get(address("part"))["Cache-Control"]
