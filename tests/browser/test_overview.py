"""The overview in a browser: it refreshes itself, keeps what the user does, and shows changes as they are committed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.urls import reverse
from example.crm.models import Account

from hc_signals.admin.overview import health, live, page
from hc_signals.log.histogram import Histogram
from hc_signals.log.minutes import Minute, ReceiverMinute, append
from hc_signals.postgres.moments import now
from hc_signals.testing import HerokuConnect
from tests.browser.conftest import Browse
from tests.browser.rules import check_page, faults
from tests.browser.test_harness import VIEWS
from tests.test_overview import MINUTE

expect = pytest.importorskip("playwright.sync_api").expect

VERDICT = "#hc-verdict"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read again after moments, and keep nothing."""
    monkeypatch.setattr(page, "EVERY_SECONDS", 0.3)
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.2)
    monkeypatch.setattr(health._kept, "get", lambda key, read, *rest: read())
    monkeypatch.setattr(page._kept, "get", lambda key, read, *rest: read())


@pytest.fixture
def overview(browse: Browse, superuser: User) -> Callable[..., Any]:
    """Open the page as a superuser."""
    return lambda query="", **options: browse(
        reverse("admin:hc_signals_minute_changelist") + query, superuser, **options
    )


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let the page say these sentences, the last one over and over: each reading shows a new one."""
    texts: list[str] = ["first"]

    def read(using: str) -> health.Health:
        text = texts.pop(0) if len(texts) > 1 else texts[0]
        return health.Health(now(), [health.finding("server", text, "server-follower")])

    monkeypatch.setattr(health, "_read", read)
    yield texts


def fill() -> None:
    """Append figures for every chart."""
    for number in range(3, 60):
        append(
            "default",
            Minute(
                now().replace(second=0, microsecond=0) - number * MINUTE,
                "default",
                changes={f"salesforce.with_a_long_name_{table}": {"UPDATE": number} for table in range(10)},
                latency=Histogram([0.1, 0.2, number / 60]),
                receivers={"crm.receivers.a_receiver_with_a_name_that_is_long": ReceiverMinute(2, 1, 0.1)},
                lag=number % 7,
                log_bytes=number * 2**20,
                freshness={"salesforce.account": Histogram([60 + number])},
            ),
        )


@pytest.mark.parametrize("view", VIEWS)
def test_overview_meets_the_rules(overview: Callable[..., Any], captured: HerokuConnect, view: str) -> None:
    """With all charts, all tables open, and changes in the live tail."""
    fill()
    captured.create(Account, 3)
    opened = overview(**VIEWS[view], reduced_motion="reduce")
    opened.click("#hc-live button")
    opened.wait_for_selector("#hc-live li")
    opened.locator("#hc-refresh button").click()
    for summary in opened.locator("summary[id^=hc-]").all():
        summary.click()
    assert opened.locator("figure svg[role=img]").count() == 7
    assert opened.locator("figure details[open]").count() == 7
    check_page(opened)


def test_page_refreshes_itself(overview: Callable[..., Any], verdicts: list[str]) -> None:
    opened = overview()
    assert "first" in opened.inner_text(VERDICT)
    verdicts[:] = ["second"]
    expect(opened.locator(VERDICT)).to_contain_text("second")


def test_refresh_keeps_what_the_user_does(overview: Callable[..., Any], verdicts: list[str]) -> None:
    """Open tables, their scroll position, the focus, and the scroll position of the page."""
    fill()
    opened = overview(width=400)
    opened.click("#hc-models-summary")
    opened.evaluate("document.querySelector('#hc-models-scroll').scrollTo(70, 30)")
    opened.focus("#hc-models-summary")
    opened.evaluate("window.scrollTo(0, 600)")
    before = opened.evaluate("window.scrollY")
    verdicts[:] = ["second"]
    expect(opened.locator(VERDICT)).to_contain_text("second")
    assert opened.evaluate("document.querySelector('#hc-models-table').open")
    scroll = opened.evaluate(
        "[hc => hc.scrollLeft, hc => hc.scrollTop].map(of => of(document.querySelector('#hc-models-scroll')))"
    )
    assert scroll == [70, 30]
    assert opened.evaluate("document.activeElement.id") == "hc-models-summary"
    assert opened.evaluate("window.scrollY") == before


def test_selected_text_is_not_replaced(overview: Callable[..., Any], verdicts: list[str]) -> None:
    opened = overview()
    opened.evaluate("getSelection().selectAllChildren(document.querySelector('#hc-verdict'))")
    verdicts[:] = ["second"]
    opened.wait_for_timeout(1000)
    assert "first" in opened.evaluate("getSelection().toString()")


def test_pause_and_hidden_tab_ask_nothing(overview: Callable[..., Any]) -> None:
    opened = overview()
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    with opened.expect_request("**/part/**"):
        pass
    opened.click("#hc-refresh button")
    assert opened.inner_text("#hc-refresh") == "Refresh Paused."
    opened.wait_for_timeout(200)
    asked.clear()
    opened.wait_for_timeout(1000)
    assert asked == []
    opened.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    opened.click("#hc-refresh button")
    opened.wait_for_timeout(1000)
    assert asked == [], "hidden"
    with opened.expect_request("**/part/**"):
        opened.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")


def test_errors_slow_the_refresh_down(overview: Callable[..., Any]) -> None:
    opened = overview()
    tries: list[Any] = []
    opened.route("**/part/**", lambda route: (tries.append(1), route.fulfill(status=503, body="away")))
    expect(opened.locator("#hc-refresh")).to_contain_text("answered 503", timeout=10_000)
    opened.wait_for_timeout(3000)
    assert 1 < len(tries) <= 4, "after 0.6, 1.2, 2.4 s"
    assert opened.locator(VERDICT).is_visible(), "the last figures stay"
    opened.unroute("**/part/**")
    expect(opened.locator("#hc-refresh")).to_contain_text("read again every", timeout=10_000)
    assert all("503" in each for each in faults[opened])
    faults[opened].clear()


def test_end_of_the_session_ends_the_refresh(overview: Callable[..., Any]) -> None:
    opened = overview()
    Session.objects.all().delete()
    expect(opened.locator("#hc-refresh")).to_contain_text("You are logged out", timeout=10_000)
    assert opened.locator(VERDICT).is_visible()


def test_page_is_complete_without_javascript(overview: Callable[..., Any]) -> None:
    fill()
    opened = overview("?hours=24", java_script_enabled=False)
    assert opened.locator("figure svg[role=img]").count() == 7
    assert not opened.locator("#hc-refresh").is_visible()
    assert not opened.locator("#hc-live").is_visible()
    assert "Without JavaScript this page does not refresh itself" in opened.inner_text("main")
    opened.click("text=96 hours")
    assert opened.locator("a[aria-current=true]").inner_text() == "96 hours"


def test_changes_come_as_they_are_committed(overview: Callable[..., Any], captured: HerokuConnect) -> None:
    (sfid,) = captured.insert(Account, name="Before")
    opened = overview()
    opened.click("#hc-live button")
    opened.wait_for_selector("#hc-live li")
    captured.update(Account, sfid, name="<b>After</b>")
    opened.wait_for_selector("#hc-live ins")
    newest = opened.locator("#hc-live li").first.inner_text()
    assert "UPDATE" in newest and "<b>After</b>" in newest and sfid in newest
    opened.click("#hc-live button")
    assert "Paused" in opened.inner_text("#hc-live")
    captured.update(Account, sfid, name="Later")
    opened.wait_for_timeout(700)
    assert opened.locator("#hc-live li").count() == 2
    opened.click("#hc-live button")
    expect(opened.locator("#hc-live li")).to_have_count(3)


def test_tail_keeps_the_newest_changes_only(overview: Callable[..., Any], captured: HerokuConnect) -> None:
    opened = overview()
    opened.click("#hc-live button")
    for _ in range(5):
        sfid = captured.create(Account, 45)[-1]
        expect(opened.locator("#hc-live")).to_contain_text(sfid)
    assert opened.locator("#hc-live li").count() == 200


def test_overview_works_with_the_keyboard(overview: Callable[..., Any], captured: HerokuConnect) -> None:
    """Tab reaches both buttons, the periods and the tables, in their order."""
    fill()
    captured.create(Account, 1)
    opened = overview()
    opened.focus("a[href$='/position/']")
    reached: list[str] = []
    for _ in range(60):
        opened.keyboard.press("Tab")
        name = opened.evaluate("document.activeElement.id || document.activeElement.innerText")
        reached.append(name)
        if name == "hc-log-summary":
            opened.keyboard.press("Enter")
            assert opened.evaluate("document.querySelector('#hc-log-table').open")
        if name == "Start":
            opened.keyboard.press("Enter")
            break
    opened.wait_for_selector("#hc-live li")
    wanted = [
        "Pause",
        "hc-fine-summary",
        "hc-period-1",
        "hc-period-3",
        "hc-types-summary",
        "hc-log-summary",
        "hc-log-scroll",
        "Start",
    ]
    assert [name for name in reached if name in wanted] == wanted
