"""The rules for every page: no fault in the console, no overflow, no serious violation that axe-core finds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page

THEIRS: Mapping[str, tuple[str, ...]] = {
    "label-title-only": ("#searchbar",),
    "aria-required-attr": ('.caption[role="heading"]',),
    "link-in-text-block": (".breadcrumbs", '.small > a[href="?"]', ".readonly > a"),
}
"""Violations of Django's admin and of Sphinx's pages: parts of the elements' selectors, by axe's name of the rule."""

AXES = "Applying inline style violates"
"""How a fault begins that axe-core itself makes, because it tries a style of its own."""

_OVERFLOWS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
# The outermost elements whose right edge lies outside: what an element that scrolls contains is no overflow.
_WIDE = """() => {
    const scrolls = (element) => element && (getComputedStyle(element).overflowX !== "visible"
        || scrolls(element.parentElement));
    return [...document.body.querySelectorAll("*")]
        .filter((each) => each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
        .filter((each) => !scrolls(each.parentElement))
        .map((each) => each.outerHTML.slice(0, 120)).slice(0, 5);
}"""

faults: dict["Page", list[str]] = {}
"""What went wrong in each open page: errors of the console, of scripts, and of the policy. A test may clear a list."""


def watch(page: "Page") -> None:
    """Record the faults of a page."""
    found = faults[page] = []
    page.on("console", lambda line: found.append(f"{line.text} ({line.location['url']})") if _is_fault(line) else None)
    page.on("pageerror", lambda error: found.append(str(error)))


def _is_fault(line: "ConsoleMessage") -> bool:
    return line.type == "error" and not line.location["url"].endswith("/favicon.ico")


def check_page(page: "Page") -> None:
    """Assert that the page meets every rule, as it is now."""
    assert not faults[page], faults[page]
    check_width(page)
    check_accessibility(page)


def check_width(page: "Page") -> None:
    """Assert that the page does not scroll sideways; a wide table scrolls inside an element of its own."""
    content, window = page.evaluate(_OVERFLOWS)
    assert content <= window, f"{content} pixels in a window of {window}: {page.evaluate(_WIDE)}"


def check_accessibility(page: "Page") -> None:
    """Assert that axe-core finds no serious or critical violation but those of Django's own markup."""
    from axe_playwright_python.sync_playwright import Axe

    before = len(faults[page])
    found = Axe().run(page).response["violations"]
    faults[page][before:] = [each for each in faults[page][before:] if not each.startswith(AXES)]
    severe = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not (ours := [line for each in severe for line in _ours(each)]), "\n".join(ours)


def _ours(violation: Mapping[str, Any]) -> list[str]:
    known = THEIRS.get(violation["id"], ())
    nodes = [node for node in violation["nodes"] if not any(each in str(node["target"]) for each in known)]
    return [f"{violation['id']}: {violation['help']}: {node['target']} {node['html'][:200]}" for node in nodes]
