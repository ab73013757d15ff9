"""Reads sections of the runbook, docs/operations.md, about problems that hc_status finds. The wheel has the page."""

import re
from pathlib import Path

_LINK = re.compile(r"\[([^\]]+)\]\(([^)#]*)(#[^)]*)?\)")


def section(problem: str) -> str:
    """Return the section about a problem, as text for a terminal; the problem is a key of PROBLEMS."""
    found = re.search(rf"^### {re.escape(problem)}\n\n(.*?)\s*(?=^##|\Z)", _page(), re.MULTILINE | re.DOTALL)
    assert found, problem  # noqa: S101  (a test compares the page with PROBLEMS)
    return f"{problem}\n\n{_LINK.sub(_without_link, found[1])}"


def _without_link(link: re.Match[str]) -> str:
    text, page, anchor = link.groups()
    if page:
        return f"{text} (docs/{page})"
    name = (anchor or "#")[1:]
    return text if text == name else f"{text} ({name})"


def _page() -> str:
    package = Path(__file__).parents[1]
    in_wheel = package / "operations.md"  # in a checkout it is beside the package
    page = in_wheel if in_wheel.exists() else package.parent / "docs" / "operations.md"
    return page.read_text(encoding="utf-8")
