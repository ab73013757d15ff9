"""The table of figures: printed, and written between two marks of docs/benchmarks.md."""

import datetime
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from benchmarks.rows import Row, shown

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- written by make bench: begin -->", "<!-- written by make bench: end -->"


def lines(rows: Iterable[Row]) -> list[str]:
    """Return the table as Markdown."""
    found = ["| figure | hc_signals | held against | measured | to reach | |", "|---|---|---|---|---|---|"]
    for row in rows:
        verdict = {True: "reached", False: "**missed**", None: ""}[row.reached]
        cells = (row.what, row.ours, row.against, shown(row.measured, row.unit), row.target, verdict)
        found.append(f"| {' | '.join(cells)} |")
    return found


def conditions(server: str) -> list[str]:
    """Return the machine, the versions and the command of the run."""
    load = os.getloadavg()[0]
    cores = os.cpu_count() or 1
    packages = ", ".join(f"{name} {version(name)}" for name in ("Django", "psycopg"))
    busy = " The machine was busy with other things." if load > 1.5 * cores else ""
    return [
        f"Measured on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} with `{_command()}`.{busy}",
        "",
        f"- {_processor()}, {cores} cores, {_memory():.0f} GB; load average at the end {load:.1f}",
        f"- {platform.system()} {platform.release()}, Python {platform.python_version()}, {packages}",
        f"- {server}",
    ]


def write(rows: Iterable[Row], server: str) -> None:
    """Write the conditions and the table between the marks; keep the text around them."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "\n".join([BEGIN, "", *conditions(server), "", *lines(rows), "", END])
    PAGE.write_text(before + text + after, encoding="utf-8")


def _command() -> str:
    given = shlex.join(sys.argv[1:])
    return f'make bench BENCH="{given}"' if given else "make bench"


def _processor() -> str:
    try:
        found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return found[0].partition(":")[2].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
