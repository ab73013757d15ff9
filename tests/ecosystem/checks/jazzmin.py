"""django-jazzmin: another design of the admin."""

from typing import Any

from tests.ecosystem.browser import check_design

PACKAGES = ("django-jazzmin",)
FIRST = ["jazzmin"]


def check(site: Any) -> None:
    check_design(site, is_narrow=False)
