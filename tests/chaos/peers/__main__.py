"""`make chaos-peers`: hc_signals and other systems under the same writers and faults; a table for docs/proof.md.

Each cell of the table is a run of its own for each seed, on a server of its own. specs/history.py judges it. Without a
fault every system must be right, else the run has set it up wrongly: then the exit code is 1. It is also 1 if
hc_signals is not right under a fault. Finished cells are kept in the file of --json, and a second run goes on there.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.chaos.peers import systems
from tests.chaos.peers.cell import LIMIT
from tests.chaos.peers.faults import FAULTS
from tests.chaos.peers.system import PYTHON, ROOT

SHORT = {"systems": ["outbox"], "faults": ["kill", "late"], "seeds": [1], "changes": 300, "limit": 5.0}
"""One peer under two faults, and the control."""
TIMEOUT = 3600.0
"""Seconds after which a cell counts as not run."""
Results = dict[tuple[str, str], list[dict[str, Any]]]


def cells(options: argparse.Namespace) -> list[tuple[str, str, int]]:
    """Return the cells: for each seed the controls first."""
    faults = ["none", *(name for name in options.faults if name != "none")]
    return [(system, fault, seed) for seed in options.seeds for fault in faults for system in options.systems]


def run(options: argparse.Namespace, cell: tuple[str, str, int]) -> dict[str, Any]:
    """Run one cell in a process of its own; return its figures, or why there are none."""
    system, fault, seed = cell
    command = [sys.executable, "-m", "tests.chaos.peers.cell", "--system", system, "--fault", fault]
    command += ["--seed", str(seed), "--changes", str(options.changes), "--records", str(options.records)]
    command += ["--limit", str(options.limit)]
    if options.logs:
        options.logs.mkdir(parents=True, exist_ok=True)
        command += ["--log", str(options.logs / f"{system}-{fault}-{seed}.log")]
    failed = {"system": system, "fault": fault, "seed": seed}
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            output, errors = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.terminate()
            return {**failed, "error": f"not finished within {TIMEOUT:.0f} s"}
    if process.returncode:
        return {**failed, "error": errors.strip() or f"exit code {process.returncode}"}
    return dict(json.loads(output.splitlines()[-1]))


def table(options: argparse.Namespace, results: Results) -> str:
    """Return the table in Markdown: a row for each fault, a column for each system."""
    names = options.systems
    lines = [f"| fault | {' | '.join(systems.find(name).label for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for fault in dict.fromkeys(fault for _, fault, _ in cells(options)):
        texts = [_text(name, results.get((name, fault), []), len(options.seeds)) for name in names]
        lines.append(f"| {FAULTS[fault].label} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _text(name: str, runs: list[dict[str, Any]], wanted: int) -> str:
    """Return one cell: lost / twice / out of order, and the time to recover.

    Args:
        name: the system.
        runs: figures of its runs.
        wanted: number of seeds; the cell says so if fewer were run.
    """
    runs = [each for each in runs if "error" not in each]
    if not runs:
        return "not run"
    promises = systems.find(name).promises
    lost, twice, inverted, stuck = (sum(each[kind] for each in runs) for kind in ("lost", "twice", "inverted", "stuck"))
    shown_twice = f"{twice}" if "once" in promises or not twice else f"({twice})"
    shown_inverted = f"{inverted}" if "order" in promises or not inverted else f"({inverted})"
    text = f"{lost} / {shown_twice} / {shown_inverted}"
    times = [seconds for each in runs for seconds in each["recoveries"]]
    recovered = [seconds for seconds in times if seconds is not None]
    if recovered:
        text += f"; {statistics.median(recovered):.1f} s, at most {max(recovered):.1f} s"
    if len(recovered) < len(times):
        text += f"; {len(times) - len(recovered)} of {len(times)} times not within the limit"
    if stuck > lost:
        text += f"; {stuck - lost} only after a restart"
    return text if len(runs) >= wanted else f"{text} ({len(runs)} of {wanted} runs)"


def is_right(name: str, run: dict[str, Any]) -> bool:
    """Return True if a run is as it must be: a control without any finding, hc_signals with its promises kept."""
    if "error" in run:
        return False
    wrong = run["lost"] + run["twice"] + run["inverted"] + run["unknown"]
    return not wrong or (run["fault"] != "none" and name != "ours")


def versions() -> list[str]:
    """Return the versions of all that takes part."""
    code = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    names = ["django-pgpubsub", "pgqueuer", "procrastinate", "psycopg", "asyncpg", "Django"]
    peers = subprocess.run(
        [str(PYTHON), "-c", code, *names], capture_output=True, text=True, check=False
    ).stdout.strip()
    ours = [f"{name} {importlib.metadata.version(name)}" for name in ("hc-signals", "Django", "psycopg")]
    return [f"peers: {peers or 'not installed'}", f"hc_signals: {', '.join(ours)}, Python {sys.version.split()[0]}"]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="make chaos-peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", choices=systems.NAMES, default=list(systems.NAMES))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="besides the control")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--changes", type=int, default=2000, help="fewest committed changes of a run (default: 2000)")
    parser.add_argument("--records", type=int, default=100, help="number of records (default: 100)")
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        help=f"seconds until a worker counts as stuck (default: {LIMIT:.0f})",
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time (default: 2)")
    parser.add_argument("--short", action="store_true", help="one peer under two faults, about a minute")
    parser.add_argument("--json", type=Path, help="file for the figures; cells that it has are not run again")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of --json")
    parser.add_argument("--logs", type=Path, help="directory for the output of the workers")
    options = parser.parse_args(arguments)
    if options.short:
        vars(options).update(SHORT)
    return options


def main() -> int:
    """Run all cells and print the table."""
    options = parse()
    results: Results = defaultdict(list)
    if options.json and options.json.exists():
        for line in options.json.read_text().splitlines():
            figures = json.loads(line)
            if "error" not in figures:
                results[figures["system"], figures["fault"]].append(figures)
    done = {(system, fault, each["seed"]) for (system, fault), runs in results.items() for each in runs}
    todo = [] if options.table else [cell for cell in cells(options) if cell not in done]
    for line in versions():
        print(f"chaos-peers: {line}", flush=True)
    started = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        for number, future in enumerate(as_completed(pool.submit(run, options, cell) for cell in todo), 1):
            figures = future.result()
            results[figures["system"], figures["fault"]].append(figures)
            passed = time.monotonic() - started
            print(f"chaos-peers: {number} of {len(todo)}, {passed:.0f} s: {json.dumps(figures)}", flush=True)
            if options.json:
                with options.json.open("a") as file:
                    file.write(json.dumps(figures) + "\n")
    committed = sum(each.get("committed", 0) for runs in results.values() for each in runs)
    print(
        f"\n{committed:,} changes, seeds {' '.join(map(str, options.seeds))}; each cell: lost / twice / out of order;"
    )
    print("median and longest time to recover. In brackets: not promised.\n")
    print(table(options, results))
    return int(not all(is_right(name, each) for (name, _), runs in results.items() for each in runs))


if __name__ == "__main__":
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    sys.exit(main())
