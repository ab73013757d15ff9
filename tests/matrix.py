"""The versions that `make matrix` runs the tests on: the rows, and the table of a run.

- ``python -m tests.matrix`` writes the table of the last run to build/matrix.md, and prints it. Its exit code is 1 if a
  row failed, if a row ran no test, or if no row was run.
- ``python -m tests.matrix versions`` prints what is installed here, for the table.
- ``python -m tests.matrix rows`` prints the rows as JSON, for the workflow.

Imports nothing but the standard library: noxfile.py and the workflow read the rows before anything is installed.
"""

import json
import platform
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from os import environ
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent.parent / "build" / "matrix"
"""Results of the last run: nox's report, and of each row its versions and pytest's counts."""


@dataclass(frozen=True)
class Row:
    """One run of the tests."""

    python: str
    django: str
    psycopg: str
    """3.2.4, the oldest that hc_signals allows, or the minor version whose newest release is taken."""
    postgres: int
    lowest: bool = False
    """Take the oldest version that pyproject.toml allows of each dependency, of the extras too."""

    @property
    def name(self) -> str:
        """Name of the row, such as ``py3.14-django6.1-psycopg3.3-pg18``."""
        versions = f"py{self.python}-django{self.django}-psycopg{self.psycopg}-pg{self.postgres}"
        return f"{versions}-lowest" if self.lowest else versions

    @property
    def requirements(self) -> list[str]:
        """What is installed beside hc_signals and its extra ``dev``, as pip writes it."""
        exact = self.psycopg.count(".") == 2
        return [f"Django~={self.django}.0", f"psycopg{'==' if exact else '~='}{self.psycopg}{'' if exact else '.0'}"]


ROWS = (
    Row("3.11", "5.2", "3.2.4", 14, lowest=True),
    Row("3.11", "5.2", "3.3", 15),
    Row("3.12", "5.2", "3.2.4", 16),
    Row("3.13", "5.2", "3.3", 17),
    Row("3.14", "5.2", "3.3", 18),
    Row("3.12", "6.0", "3.3", 14),
    Row("3.13", "6.0", "3.2.4", 15),
    Row("3.14", "6.0", "3.3", 16),
    Row("3.12", "6.0", "3.2.4", 17),
    Row("3.13", "6.0", "3.2.4", 18),
    Row("3.12", "6.1", "3.2.4", 15),
    Row("3.13", "6.1", "3.3", 16),
    Row("3.12", "6.1", "3.3", 17),
    Row("3.14", "6.1", "3.3", 18),
)
"""Each pair of versions that can run together is in a row, except Python and PostgreSQL: the server runs no Python."""


def versions() -> str:
    """Return the versions in this environment, as cells of the table."""
    server = subprocess.run([f"{environ['PG_BIN']}/postgres", "--version"], check=True, capture_output=True, text=True)
    postgres = server.stdout.split(") ")[1].split()[0]
    return " | ".join([platform.python_version(), version("django"), version("psycopg"), postgres])


def counts(results: Path) -> dict[str, int]:
    """Return how many tests passed, failed and were skipped, and the seconds that they took, from pytest's XML."""
    suite = ET.parse(results).getroot()[0]
    of = {key: int(suite.get(key, 0)) for key in ("tests", "errors", "failures", "skipped")}
    failed = of["failures"] + of["errors"]
    passed = of["tests"] - failed - of["skipped"]
    return {"passed": passed, "failed": failed, "skipped": of["skipped"], "seconds": round(float(suite.get("time", 0)))}


def lines(directory: Path) -> Iterator[tuple[str, bool | None]]:
    """Return the table's line of each row of a run, and whether its tests passed; None if the row was not run."""
    report = directory / "report.json"
    sessions: list[dict[str, Any]] = json.loads(report.read_text())["sessions"] if report.exists() else []
    for session in sessions:
        name, reason = session["name"], session.get("reason") or "no test was run"
        results = directory / f"{name}.xml"
        if session["result"] == "skipped":
            yield f"| {name} | not run: {reason} | | | | | | | |", None
        elif not results.exists():
            yield f"| {name} | failed: {reason} | | | | | | | |", False
        else:
            found = counts(results)
            cells = " | ".join([(directory / f"{name}.txt").read_text().strip(), *map(str, found.values())])
            yield f"| {name} | {cells} |", session["result"] == "success" and found["passed"] > 0


def main(directory: Path = DIRECTORY) -> int:
    """Write and print the table of the last run; return the exit code."""
    rows = list(lines(directory))
    titles = ("row", "Python", "Django", "psycopg", "PostgreSQL", "passed", "failed", "skipped", "seconds")
    table = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *(line for line, _ in rows)]
    directory.with_suffix(".md").write_text("\n".join(table) + "\n")
    print(*table, sep="\n")
    outcomes = {passed for _, passed in rows} - {None}
    if not outcomes:
        print("matrix: no row was run")
    return 0 if outcomes == {True} else 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["versions"]:
            print(versions())
        case ["rows"]:
            print(json.dumps([{"name": row.name, **asdict(row)} for row in ROWS]))
        case _:
            sys.exit(main())
