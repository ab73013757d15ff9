"""Our pages of the admin in Chromium, under another design: no page overflows, and links and buttons are seen."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.browser import chromium
from tests.browser.rules import check_width
from tests.ecosystem.rows import write_rows
from tests.ecosystem.site import equal

# Playwright's event loop belongs to this thread, where Django would refuse to ask the database.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
_STYLES = """() => {
    const style = (selector, name) =>
        [...document.querySelectorAll(selector)].map((each) => getComputedStyle(each)[name]);
    return {
        links: style(".hc-timeline a, .hc-table td a", "textDecorationLine"),
        cells: style(".hc-table :is(th, td)", "paddingTop"),
        heads: style(".hc-table thead th", "textAlign"),
        buttons: style(".hc-table button, .hc-buttons input[type=submit]", "borderTopStyle"),
    };
}"""


def check_design(site: Any, *, is_narrow: bool = True) -> None:
    """Open each page in both themes and two widths; without Chromium or Playwright, print that and do nothing.

    ``is_narrow``: the design itself fits into 400 pixels.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("not opened in a browser: Playwright is not installed")
        return
    if not chromium.find():
        print("not opened in a browser: there is no Chromium")
        return
    pages = write_rows(site)
    with serving() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox"])
        for dark, width in ((False, 1280), (True, 1280), (False, 400)):
            context = browser.new_context(
                color_scheme="dark" if dark else "light", viewport={"width": width, "height": 800}
            )
            session = site.client().cookies["sessionid"].value
            context.add_cookies([{"name": "sessionid", "value": session, "url": address}])
            page = context.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            for name, path in pages.items():
                page.goto(address + path)
                if name not in ("index", "account", "contact"):  # theirs
                    if is_narrow or width > 400:
                        check_width(page)
                    check_styles(name, page.evaluate(_STYLES))
            equal(errors, [])
        browser.close()


def check_styles(name: str, found: dict[str, list[str]]) -> None:
    """Compare the styles of our links, cells and buttons."""
    expected = {"links": "underline", "heads": "left", "buttons": "solid"}
    for part, value in expected.items():
        assert set(found[part]) <= {value}, f"{name}: {part} are {set(found[part])}, expected {value}"
    assert "0px" not in found["cells"], f"{name}: cells without padding"


@contextmanager
def serving() -> Iterator[str]:
    """Serve the site with its static files in a thread; return its address."""
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

    class Quiet(WSGIRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(StaticFilesHandler(WSGIHandler()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
