"""The site that `make docs` builds: its first page, its search, and the width of all pages."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.browser.rules import check_accessibility, check_width, watch
from tests.pages import ROOT, TEXT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SITE = ROOT / "build" / "docs"

Open = Callable[..., "Page"]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serve the site; return its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(site: str, browser: "Browser") -> Iterator[Open]:
    """Open a page of the site: ``visit(path, dark=False, width=1280)``."""
    contexts = []

    def open_page(path: str, dark: bool = False, width: int = 1280) -> "Page":
        context = browser.new_context(
            base_url=site, color_scheme="dark" if dark else "light", viewport={"width": width, "height": 800}
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        watch(page)
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", [400, 1280])
def test_no_page_scrolls_sideways(visit: Open, width: int) -> None:
    page = visit("index.html", width=width)
    for name in [*sorted(TEXT.keys() - {"README.md"}), "genindex.md"]:
        page.goto(name.replace(".md", ".html"))
        check_width(page)


@pytest.mark.parametrize("dark", [False, True])
def test_first_page_is_accessible(visit: Open, dark: bool) -> None:
    check_accessibility(visit("index.html", dark=dark))


def test_first_page_says_what_it_is_and_how_to_start(visit: Open) -> None:
    page = visit("index.html")
    assert "Your Django receiver runs" in page.locator("h1").inner_text()
    for shown in ("def on_account", "UPDATE Acme Ltd", "make demo"):
        assert page.get_by_text(shown).first.is_visible()
    page.get_by_role("link", name="ten-minute start").first.click()
    page.wait_for_url("**/start.html")


def test_code_is_copied_by_its_button(visit: Open) -> None:
    page = visit("index.html")
    page.locator("div.highlight-sh").first.hover()
    page.locator("div.highlight-sh button.copybtn").first.click()
    page.wait_for_selector("button.copybtn.success")
    assert page.evaluate("navigator.clipboard.readText()").strip() == "make demo"


@pytest.mark.parametrize(("words", "setting"), [("retry", "RETRY_SECONDS"), ("retention", "RETENTION_HOURS")])
def test_search_finds_a_setting_by_part_of_its_name(visit: Open, words: str, setting: str) -> None:
    page = visit(f"search.html?q={words}")
    page.locator("#search-results").get_by_text(setting).first.wait_for()
    page.locator("#search-results").get_by_role("link", name="Settings", exact=True).first.wait_for()
