"""What the changelog and the pages say about a release: for `make release-check` and for the tests."""

import re
from collections.abc import Iterator
from datetime import date

from hc_signals import __version__
from tests.pages import ROOT

NOT_YET = "not released yet"
"""In a changelog's heading in place of the date, and before the first release on the pages of HINTED."""
HINTED = ("README.md", "docs/start.md", "example/requirements.txt")
"""Pages that say how to install what PyPI does not have."""
OTHERS = sorted(
    name
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
    if (name := str(path.relative_to(ROOT))) not in ("CHANGELOG.md", *HINTED)
)

_HEADING = re.compile(rf"## \d+\.\d+\.\d+ - (?P<date>\d{{4}}-\d\d-\d\d|{NOT_YET})")
_KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def _lines(prefix: str) -> list[str]:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith(prefix)]


def date_in(heading: str) -> str:
    """Return the date in a heading of the changelog, or NOT_YET; empty if the heading is wrong."""
    found = _HEADING.fullmatch(heading)
    if found is None or found["date"] == NOT_YET:
        return found["date"] if found else ""
    try:
        return date.fromisoformat(found["date"]).isoformat()
    except ValueError:
        return ""


def is_released() -> bool:
    """Return whether the changelog has a version with a date."""
    return any(date_in(heading) not in ("", NOT_YET) for heading in _lines("## "))


def changelog_problems() -> Iterator[str]:
    """Return where the changelog leaves its form: https://keepachangelog.com, newest version first."""
    newest, *older = _lines("## ")
    if not date_in(newest):
        yield f"CHANGELOG.md: {newest!r} is neither '## 1.2.3 - YYYY-MM-DD' nor '## 1.2.3 - {NOT_YET}'"
    for heading in older:
        if date_in(heading) in ("", NOT_YET):
            yield f"CHANGELOG.md: {heading!r} is not '## 1.2.3 - YYYY-MM-DD'"
    for kind in _lines("### "):
        if kind.removeprefix("### ") not in _KINDS:
            yield f"CHANGELOG.md: {kind!r} is none of {', '.join(sorted(_KINDS))}"


def page_problems(*, released: bool) -> Iterator[str]:
    """Return the pages on which NOT_YET is missing before the first release, is there twice, or is there after it."""
    for name in (*HINTED, *OTHERS):
        found = (ROOT / name).read_text(encoding="utf-8").casefold().count(NOT_YET)
        expected = int(name in HINTED and not released)
        if found > expected:
            yield f"{name} says {NOT_YET!r} {found} time(s) instead of {expected}: remove the sentence"
        elif found < expected:
            yield f"{name} does not say {NOT_YET!r}, but no version in CHANGELOG.md has a date: say how to install it"


def tag_problems(tag: str) -> Iterator[str]:
    """Return why this tree cannot be released as a tag, such as ``v0.1.0``."""
    if tag != f"v{__version__}":
        yield f"the tag is {tag}, the version of hc_signals/__init__.py is {__version__}: make them equal"
    newest = _lines("## ")[0]
    if not newest.startswith(f"## {__version__} - ") or date_in(newest) in ("", NOT_YET):
        yield f"CHANGELOG.md begins with {newest!r} instead of '## {__version__} - YYYY-MM-DD': write the date"


def problems(tag: str) -> list[str]:
    """Return all problems of the tree: as that of a release if there is a tag, else as it is."""
    released = bool(tag) or is_released()
    found = [*changelog_problems(), *page_problems(released=released)]
    return [*tag_problems(tag), *found] if tag else found
