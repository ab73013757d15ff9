"""The timeline of a record, in both themes, at the width of a phone, and with the keyboard alone."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from example.crm.models import Account

from hc_signals.models import Change, Delivery
from hc_signals.testing import HerokuConnect
from tests.browser.conftest import Browse
from tests.browser.rules import check_page, faults
from tests.browser.test_harness import VIEWS
from tests.conftest import deliver

SFID = "001000000000001AAA"
RECEIVER = "example.crm.receivers.print_change"


@pytest.fixture
def timeline(captured: HerokuConnect) -> str:
    """The address of a timeline with two changes, one of them with hostile text."""
    captured.insert(Account, sf_id=SFID, name="Acme")
    captured.update(Account, SFID, name="\u202e<script>alert(1)</script>" + "long" * 50)
    deliver()
    return reverse("admin:hc_signals_change_timeline", args=["crm.Account", SFID])


@pytest.mark.parametrize("view", VIEWS)
def test_timeline_meets_the_rules(browse: Browse, superuser: User, timeline: str, view: str) -> None:
    page = browse(timeline, superuser, **VIEWS[view])
    assert page.locator(".hc-timeline > li").count() == 2
    assert RECEIVER in page.content()
    check_page(page)


def test_keyboard_delivers_a_change_again(browse: Browse, superuser: User, timeline: str) -> None:
    page = browse(timeline, superuser)
    page.get_by_role("link", name="Deliver again to …").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/again/")
    check_page(page)
    page.get_by_label(RECEIVER).first.focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Yes, deliver it again").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{timeline}")
    assert RECEIVER in page.locator(".messagelist").inner_text()
    assert Delivery.objects.get().change_id == Change.objects.latest("id").pk


def test_search_finds_the_record(browse: Browse, superuser: User, timeline: str) -> None:
    page = browse(reverse("admin:hc_signals_change_timelines"), superuser)
    check_page(page)
    page.get_by_label("Model").select_option("crm.Account")
    page.get_by_label("Sfid or id").fill(SFID[:15])
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{SFID[:15]}/")
    assert page.locator(".hc-timeline > li").count() == 2


def test_staff_may_not_see_it_without_the_model(browse: Browse, staff: Callable[..., User], timeline: Any) -> None:
    page = browse(timeline, staff("view_change"))
    assert "403" in page.content()
    faults[page].clear()
