"""`make test-fast` and the slow tests are all tests."""

import re
from pathlib import Path

import pytest

from tests import slow
from tests.conftest import ROOT

TESTS = Path(__file__).parent


def test_slow_files_exist() -> None:
    assert [file for file in slow.FILES if not (TESTS / file).is_file()] == []


def test_every_test_of_a_slow_file_is_marked(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        file = item.path.relative_to(TESTS).as_posix()
        assert (item.get_closest_marker("slow") is not None) == (file in slow.FILES), item.nodeid


def test_targets_differ_by_the_mark_alone() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = dict(re.findall(r"^(test|test-fast):.*\n\t(.+)$", makefile, re.MULTILINE))
    assert recipes["test-fast"].replace(' -m "not slow"', "") == recipes["test"]
