"""The matrix of versions: its rows cover each pair of versions, and its table names every row with its outcome."""

import json
import subprocess
import sys
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from tests import matrix
from tests.matrix import ROWS, Row, lines
from tests.server import version_in

ROOT = Path(__file__).parent.parent
PYTHON, DJANGO = ("3.11", "3.12", "3.13", "3.14"), ("5.2", "6.0", "6.1")
PSYCOPG, POSTGRES = ("3.2.4", "3.3"), range(14, 19)
BAD = '<testsuites><testsuite tests="9" errors="1" failures="2" skipped="1" time="6.6"/></testsuites>'
GOOD = '<testsuites><testsuite tests="9" errors="0" failures="0" skipped="1" time="6.6"/></testsuites>'
EMPTY = "<testsuites><testsuite/></testsuites>"
REASONS = {"skipped": "Python interpreter 3.14 not found"}


def can_run(versions: set[Any]) -> bool:
    """Return whether the makers of these versions support them together."""
    is_old_python = "3.11" in versions and versions & {"6.0", "6.1"}
    has_no_wheel = versions >= {"3.14", "3.2.4"}  # psycopg's first binary package for Python 3.14 is 3.2.10
    return not (is_old_python or has_no_wheel or versions >= {"6.1", 14})


def test_rows_cover_each_pair_of_versions() -> None:
    pairs = {pair for kinds in combinations((PYTHON, DJANGO, PSYCOPG, POSTGRES), 2) for pair in product(*kinds)}
    pairs -= set(product(PYTHON, POSTGRES))
    rows = [{row.python, row.django, row.psycopg, row.postgres} for row in ROWS]
    assert [pair for pair in pairs if can_run(set(pair)) and not any(set(pair) <= row for row in rows)] == []
    assert all(map(can_run, rows))
    assert any(row.lowest for row in ROWS)


def test_docs_name_the_rows_and_their_versions() -> None:
    page = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8")
    of_rows = {
        "Python": {row.python for row in ROWS},
        "Django": {row.django for row in ROWS},
        "PostgreSQL": {str(row.postgres) for row in ROWS},
        "psycopg": {row.psycopg for row in ROWS},
    }
    for name, versions in of_rows.items():
        assert f"| {name} | {', '.join(sorted(versions))} |" in page
    assert [row.name for row in ROWS if f"\n| {row.name} |" not in page] == []


def test_lowest_versions_are_those_of_pyproject() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    (lowest,) = (row for row in ROWS if row.lowest)
    assert f'"psycopg[binary]>={lowest.psycopg}"' in project
    assert f'"Django>={lowest.django}"' in project
    assert f'requires-python = ">={lowest.python}"' in project
    assert lowest.requirements == ["Django~=5.2.0", "psycopg==3.2.4"]
    assert Row("3.12", "6.1", "3.3", 18).requirements == ["Django~=6.1.0", "psycopg~=3.3.0"]


def write(directory: Path, sessions: list[tuple[str, str]], **results: str) -> None:
    """Write the files of a run: nox's report, and the results of some rows as pytest writes them."""
    report = {
        "sessions": [{"name": name, "result": result, "reason": REASONS.get(result)} for name, result in sessions]
    }
    (directory / "report.json").write_text(json.dumps(report))
    for name, result in results.items():
        (directory / f"{name}.xml").write_text(result)
        (directory / f"{name}.txt").write_text("3.12.1 | 6.1.3 | 3.3.9 | 18.4\n")


def test_table_names_each_outcome(tmp_path: Path) -> None:
    sessions = [
        ("good", "success"),
        ("bad", "failed"),
        ("empty", "success"),
        ("broken", "failed"),
        ("absent", "skipped"),
    ]
    write(tmp_path, sessions, good=GOOD, bad=BAD, empty=EMPTY)
    assert list(lines(tmp_path)) == [
        ("| good | 3.12.1 | 6.1.3 | 3.3.9 | 18.4 | 8 | 0 | 1 | 7 |", True),
        ("| bad | 3.12.1 | 6.1.3 | 3.3.9 | 18.4 | 5 | 3 | 1 | 7 |", False),
        ("| empty | 3.12.1 | 6.1.3 | 3.3.9 | 18.4 | 0 | 0 | 0 | 0 |", False),
        ("| broken | failed: no test was run | | | | | | | |", False),
        ("| absent | not run: Python interpreter 3.14 not found | | | | | | | |", None),
    ]


@pytest.mark.parametrize(
    ("sessions", "code"),
    [
        ([("good", "success")], 0),
        ([("good", "success"), ("absent", "skipped")], 0),
        ([("good", "success"), ("bad", "failed")], 1),
        ([("absent", "skipped")], 1),
        ([], 1),
    ],
)
def test_exit_code_is_0_if_a_row_passed_and_none_failed(
    sessions: list[tuple[str, str]], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "matrix"
    directory.mkdir()
    write(directory, sessions, good=GOOD, bad=BAD)
    assert matrix.main(directory) == code
    assert capsys.readouterr().out.startswith((tmp_path / "matrix.md").read_text())


@pytest.mark.parametrize("when", ["RemovedInNextVersionWarning", "RemovedAfterNextVersionWarning"])
def test_warnings_are_errors_in_started_processes(when: str) -> None:
    code = f"import warnings; from django.utils.deprecation import {when}; warnings.warn('old', {when})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("Warning: old\n")


@pytest.mark.parametrize(
    ("answer", "version"),
    [("(PostgreSQL) 15.18 (Debian 15.18-0)", 15), ("(PostgreSQL) 19rc1", 19), ("(PostgreSQL) 19beta2", 19)],
)
def test_versions_of_servers_are_parsed(answer: str, version: int) -> None:
    assert version_in(f"postgres {answer}\n") == version
