"""The lists and rows of changes, deliveries and the trigger log, in Chromium: both themes, a phone, the keyboard."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.urls import reverse
from example.crm.models import Account, Contact

from hc_signals import signals
from hc_signals.models import Change, Delivery, TriggerLog
from hc_signals.testing import HerokuConnect
from tests.browser.conftest import Browse
from tests.browser.rules import check_page, check_width
from tests.browser.test_harness import VIEWS
from tests.conftest import deliver
from tests.test_worker_process import wait_until

HOSTILE = "<img src=x onerror=alert(1)> \u202eevil\u202c " + "A" * 100_000


@pytest.fixture
def rows(captured: HerokuConnect, connect: Any) -> HerokuConnect:
    """Changes with a hostile value, failed, dead and parked deliveries, and a refused write."""

    def mail_the_owner(instance: Any, **kwargs: Any) -> None:
        raise ConnectionError(f"mail.example.com answered 503 for {instance.pk}")

    connect(signals.record_changed, mail_the_owner, Contact)
    sfids = captured.insert(Contact, {"last_name": "Ada"}, {"last_name": "Grace"}, {"last_name": "Edsger"})
    captured.update(Contact, sfids[0], last_name="Lovelace")
    (account,) = captured.insert(Account, name="Acme")
    captured.update(Account, account, industry="Retail")
    deliver()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE public.hc_signals_change SET layout = NULL, changed = '{name}', "
            "new = json_build_object('name', %s::text), "
            "old = json_build_object('name', 'Acme') WHERE operation = 'UPDATE' AND table_name = 'salesforce.account'",
            [HOSTILE],
        )
    last = Delivery.objects.filter(state="retry").latest("id")
    Delivery.objects.filter(pk=last.pk).update(state="dead", attempt=10, next_attempt_at=None)
    TriggerLog.objects.create(
        id=1,
        action="UPDATE",
        state="FAILED",
        table_name="contact",
        record_id=1,
        sf_id="003000000000001AAA",
        sf_message="FIELD_CUSTOM_VALIDATION_EXCEPTION: " + "the e-mail must not be empty " * 10,
        values='"email"=>"new@example.com"',
        old='"id"=>"1", "email"=>"old@example.com"',
    )
    return captured


def change_page(name: str, key: int) -> str:
    return reverse(f"admin:hc_signals_{name}_change", args=[key])


PAGES: dict[str, Callable[[], str]] = {
    "changes": lambda: reverse("admin:hc_signals_change_changelist"),
    "change": lambda: change_page("change", Change.objects.latest("id").pk),
    "deliveries": lambda: reverse("admin:hc_signals_delivery_changelist"),
    "delivery": lambda: change_page("delivery", Delivery.objects.earliest("id").pk),
    "errors": lambda: reverse("admin:hc_signals_delivery_errors"),
    "trigger_log": lambda: reverse("admin:hc_signals_triggerlog_changelist"),
    "refused_write": lambda: change_page("triggerlog", 1),
    "archive": lambda: reverse("admin:hc_signals_triggerlogarchive_changelist"),
}
"""The addresses of the pages."""


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", PAGES)
def test_page_meets_the_rules(browse: Browse, superuser: User, rows: HerokuConnect, name: str, view: str) -> None:
    check_page(browse(PAGES[name](), superuser, **VIEWS[view]))


@pytest.mark.parametrize("name", ["changes", "deliveries", "trigger_log"])
def test_narrow_list_shows_every_cell(browse: Browse, superuser: User, rows: HerokuConnect, name: str) -> None:
    page = browse(PAGES[name](), superuser, width=400)
    cells = page.locator("#result_list tbody :is(th, td)")
    boxes = [cells.nth(number).bounding_box() for number in range(cells.count())]
    assert boxes
    assert all(box is None or box["x"] + box["width"] <= 400 for box in boxes)


def test_whole_value_is_one_click_away(browse: Browse, superuser: User, rows: HerokuConnect) -> None:
    page = browse(PAGES["change"](), superuser)
    assert "A" * 1000 not in page.content()
    page.get_by_text("show all 100036 characters").click()
    wait_until(lambda: "A" * 100_000 in page.content())
    check_width(page)


def test_errors_are_discarded_by_keyboard_alone(browse: Browse, superuser: User, rows: HerokuConnect) -> None:
    """From the list to the errors, over the confirmation, and back; each focused control has an outline."""
    page = browse(PAGES["deliveries"](), superuser)

    def press(text: str, times: int = 60) -> None:
        for _ in range(times):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "() => {const e = document.activeElement; return [e.matches('input') ? e.value : e.textContent.trim(),"
                " getComputedStyle(e).outlineStyle]}"
            )
            if focused[0].startswith(text):
                assert focused[1] != "none", f"{text} has no outline"
                page.keyboard.press("Enter")
                page.wait_for_load_state()
                return
        raise AssertionError(f"The keyboard does not reach {text!r}.")

    press("Grouped by error")
    page.wait_for_url("**/errors/")
    press("Discard all 3")
    page.wait_for_selector("text=This cannot be undone")
    check_page(page)
    press("Yes, discard 3 deliveries")
    page.wait_for_selector("text=3 deliveries are discarded")
    assert [each.state for each in Delivery.objects.all()] == ["retry"], "the parked one is released"


def test_filters_are_kept_on_the_page_of_errors(browse: Browse, superuser: User, rows: HerokuConnect) -> None:
    page = browse(PAGES["deliveries"]() + "?state__exact=dead", superuser)
    page.get_by_text("Grouped by error").click()
    assert page.url.endswith("/errors/?state__exact=dead")
    assert page.get_by_text("1 failed delivery of 1 kind").is_visible()
    page.get_by_text("One by one").click()
    assert page.url.endswith("/delivery/?state__exact=dead")
