"""The table of faults and outcomes in docs/guarantees.md, from the marks of the tests that try them."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "guarantees.md"
_PLACE = re.compile(r"(?<=<!-- faults -->\n).*?(?=<!-- end of faults -->)", re.DOTALL)


def table() -> str:
    """Return the table: one row per ``@pytest.mark.fault(fault, outcome=...)``."""
    rows = [f"| {fault} | {outcome} | `{test}` |" for fault, outcome, test in _faults()]
    return "\n".join(["| fault | outcome | test |", "|---|---|---|", *rows]) + "\n"


def _faults() -> Iterator[tuple[str, str, str]]:
    for path in sorted(TESTS.glob("test_*.py")):
        if "mark.fault(" in path.read_text(encoding="utf-8"):
            module = importlib.import_module(f"tests.{path.stem}")
            for name, function in vars(module).items():
                for mark in reversed(getattr(function, "pytestmark", ())):
                    if mark.name == "fault":
                        yield mark.args[0], mark.kwargs["outcome"], f"{path.stem}.{name}"


def committed() -> str:
    """Return the table that the page has."""
    found = _PLACE.search(PAGE.read_text(encoding="utf-8"))
    return found.group() if found else ""


def write() -> None:
    """Put the table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_PLACE.sub(lambda _: table(), text), encoding="utf-8")
