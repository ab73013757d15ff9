"""The pages of the admin that show no record, in both themes and at the width of a phone; and the harness itself."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from tests.browser.conftest import Browse
from tests.browser.rules import check_accessibility, check_page, check_width, faults

VIEWS = {"light": {}, "dark": {"dark": True}, "narrow": {"width": 400}}
"""The arguments of ``browse`` under which a page is checked."""


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("page", ["position", "connectedtable"])
def test_page_meets_the_rules(browse: Browse, superuser: User, page: str, view: str) -> None:
    check_page(browse(reverse(f"admin:hc_signals_{page}_changelist"), superuser, **VIEWS[view]))


def test_user_without_permission_gets_403(browse: Browse, staff: Callable[..., User]) -> None:
    page = browse(reverse("admin:hc_signals_position_changelist"), staff("view_change"))
    assert "403" in page.content()
    faults[page].clear()


def test_rules_find_what_breaks_them(browse: Browse, superuser: User) -> None:
    page = browse(reverse("admin:index"), superuser)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">inline</p>')")
    page.wait_for_timeout(100)
    assert "Content Security Policy" in str(faults[page])
    faults[page].clear()
    page.evaluate("document.body.appendChild(document.createElement('img')).width = 3000")
    with pytest.raises(AssertionError, match="<img"):
        check_width(page)
    with pytest.raises(AssertionError, match="image-alt"):
        check_accessibility(page)
