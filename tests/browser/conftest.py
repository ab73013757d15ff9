"""Fixtures: a browser, users, and pages of the admin as a user sees them. Without Chromium all tests are skipped."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.test import Client

from hc_signals.testing import HerokuConnect
from tests.browser import chromium
from tests.browser.rules import faults, watch

try:
    import axe_playwright_python  # noqa: F401
    from playwright.sync_api import Browser, Page, sync_playwright
except ImportError as error:
    LACKING = f"not run: {error}; install the extra: pip install -e '.[browser]'"
else:
    LACKING = (
        "" if chromium.find() else "not run: there is no Chromium (Debian: apt-get install chromium); or set CHROMIUM"
    )

# Playwright's event loop belongs to the thread of the test, where Django would refuse to ask the database.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"

Browse = Callable[..., "Page"]
"""``browse(path, user=None, dark=False, width=1280, **options)``: see the fixture."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if LACKING:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=LACKING))


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Return Chromium without a window."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def superuser(captured: HerokuConnect) -> User:
    """Return a user with every permission."""
    return User.objects.create_superuser("root")


@pytest.fixture
def staff(captured: HerokuConnect) -> Callable[..., User]:
    """Create a user of the admin: ``staff("view_change", ...)`` names the permissions."""

    def create(*codenames: str) -> User:
        user = User.objects.create_user(f"staff {len(codenames)}", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        return user

    return create


@pytest.fixture
def browse(captured: HerokuConnect, live_server: Any, browser: "Browser") -> Iterator[Browse]:
    """Open a page: ``browse(path, user=None, dark=False, width=1280, **options)``.

    ``user`` is logged in; ``options`` are those of Playwright's ``new_context``. The test fails at its end if a page
    had a fault: see ``rules.faults``.
    """
    contexts, pages = [], []

    def open_page(path: str, user: User | None = None, dark: bool = False, width: int = 1280, **options: Any) -> "Page":
        context = browser.new_context(
            base_url=live_server.url,
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": 800},
            **options,
        )
        contexts.append(context)
        if user is not None:
            context.add_cookies(
                [{"name": settings.SESSION_COOKIE_NAME, "value": session(user), "url": live_server.url}]
            )
        page = context.new_page()
        pages.append(page)
        watch(page)
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    found = [fault for page in pages for fault in faults.pop(page)]
    assert not found, found


def session(user: User) -> str:
    """Log the user in; return the key of the session."""
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value
