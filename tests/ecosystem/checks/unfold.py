"""django-unfold: another design of the admin."""

from typing import Any

from tests.ecosystem.browser import check_design

PACKAGES = ("django-unfold",)
FIRST = ["unfold"]


def check(site: Any) -> None:
    check_design(site)
