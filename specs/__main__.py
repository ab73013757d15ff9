"""Searches every model and every wrong variant with Spin, and prints a table: ``make specs``.

A model must hold its promises. A wrong variant must break the promise that it is known to break. If one does not, the
exit code is 1. ``--write`` stores the table in docs/specs.md.
"""

import argparse
import re
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from specs.cases import CASES, Case

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "specs"
PAGE = HERE.parent / "docs" / "specs.md"
MISSING = "specs: not run: Spin or a C compiler is missing (Debian: apt-get install spin gcc)"
_STATES = re.compile(r"([\d.e+]+) states, stored")
_ERRORS = re.compile(r"errors: (\d+)")
# Spin's report of a broken claim; an invalid array index, say, is an error of the model.
_IS_CLAIM = re.compile(r"assertion violated +!\(|acceptance cycle")
_INCOMPLETE = ("Search not completed", "max search depth too small", "out of memory", "reached -DMEMLIM")


class SpecError(Exception):
    """Spin or the compiler has refused a model."""


@dataclass(frozen=True)
class Result:
    """What the search of a case has found."""

    case: Case
    is_broken: bool
    """The promise was broken."""
    trouble: str
    """Why the search says nothing; empty if it was complete or has found a broken promise."""
    states: int
    seconds: float
    """Processor time of Spin, compiler and search."""

    @property
    def is_expected(self) -> bool:
        """True if the search has ended as the case expects."""
        return not self.trouble and self.is_broken == self.case.is_wrong

    @property
    def outcome(self) -> str:
        """The outcome in a few words."""
        found = self.trouble or ("broken" if self.is_broken else "holds")
        return found if self.is_expected else f"{found}, NOT EXPECTED"


def search(case: Case) -> Result:
    """Search all states of a case, or up to the first that breaks its promise.

    Raises:
        SpecError: Spin or the compiler has refused the model.
    """
    before = _seconds()
    folder = BUILD / case.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in HERE.glob("*.pml"):
        shutil.copy(file, folder)
    _run(folder, ["spin", *case.flags, "-a", f"{case.model}.pml"])
    # A variant breaks its promise after few states, so compiling it quickly takes less time in all.
    level = "-O0" if case.is_wrong else "-O2"
    kind = ["-DNFAIR=3"] if case.is_liveness else ["-DSAFETY"]
    _run(folder, ["cc", level, "-w", "-DMEMLIM=4000", *kind, "-o", "pan", "pan.c"])
    options = ["-a", "-f"] if case.is_liveness else []
    output = _run(folder, ["./pan", *options, "-m1000000", f"-w{20 if case.is_wrong else 24}", "-N", case.promise])
    return read(case, output, _seconds() - before)


def read(case: Case, output: str, seconds: float) -> Result:
    """Return the result that the output of a search shows."""
    errors, states = _ERRORS.search(output), _STATES.search(output)
    is_broken = bool(errors and int(errors[1]) and _IS_CLAIM.search(output))
    trouble = ""
    if not is_broken:
        trouble = next((phrase for phrase in _INCOMPLETE if phrase in output), "")
        if not trouble and (errors is None or int(errors[1])):
            trouble = "an error of the model"
    return Result(case, is_broken, trouble, int(float(states[1])) if states else 0, seconds)


def _run(folder: Path, command: list[str]) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if command[0] != "./pan" and done.returncode:
        raise SpecError(f"specs: {shlex.join(command)} failed in {folder}:\n{output}")
    return output


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(results: Iterable[Result]) -> str:
    """Return the results as a table in Markdown, without the times."""
    lines = ["| model | variant | promise | states | outcome |", "|---|---|---|---:|---|"]
    for result in results:
        case = result.case
        states = "" if case.is_wrong else f"{result.states:,}"
        lines.append(f"| {case.model} | {case.variant} | {case.promise} | {states} | {result.outcome} |")
    return "\n".join(lines)


def _write(results: list[Result]) -> None:
    head, mark, rest = PAGE.read_text().partition("<!-- specs -->\n")
    _, end, tail = rest.partition("<!-- /specs -->")
    PAGE.write_text(f"{head}{mark}{table(results)}\n{end}{tail}")


def _show(results: list[Result]) -> None:
    widths = [max(len(row[column]) for row in _cells(results)) for column in range(6)]
    for row in _cells(results):
        left, right = row[:3] + row[5:], row[3:5]
        texts = [text.ljust(width) for text, width in zip(left[:3], widths[:3], strict=True)]
        texts += [text.rjust(width) for text, width in zip(right, widths[3:5], strict=True)]
        print("  ".join([*texts, left[3]]))
    for result in results:
        if not result.is_expected:
            flags = shlex.join(result.case.flags)
            print(f"\nThe trail: cd {BUILD / result.case.folder} && spin {flags} -t -p -g {result.case.model}.pml")


def _cells(results: list[Result]) -> list[list[str]]:
    head = ["model", "variant", "promise", "states", "seconds", "outcome"]
    return [head] + [
        [
            result.case.model,
            result.case.variant,
            result.case.promise,
            f"{result.states:,}",
            f"{result.seconds:.1f}",
            result.outcome,
        ]
        for result in results
    ]


def main() -> int:
    """Search the cases that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m specs", description=(__doc__ or "").partition("\n\n")[0])
    models = sorted({case.model for case in CASES})
    parser.add_argument("--model", choices=models, action="append", help="search this model only; may be repeated")
    parser.add_argument("--write", action="store_true", help="also write the table into docs/specs.md")
    args = parser.parse_args()
    if args.write and args.model:
        parser.error("--write needs all models: leave out --model")
    if not shutil.which("spin") or not shutil.which("cc"):
        print(MISSING)
        return 0
    cases = [case for case in CASES if not args.model or case.model in args.model]
    results: list[Result] = []
    with ProcessPoolExecutor() as pool:  # as many searches at a time as there are cores
        try:
            for result in pool.map(search, cases):
                results.append(result)
                case = result.case
                print(f"{len(results)} of {len(cases)}: {case.model}, {case.variant}: {case.promise}", flush=True)
        except SpecError as error:
            pool.shutdown(cancel_futures=True)
            print(error)
            return 1
    print()
    _show(results)
    unexpected = sum(not result.is_expected for result in results)
    seconds = sum(result.seconds for result in results)
    print(f"\n{len(results) - unexpected} as expected, {unexpected} not; {seconds:.0f} s of processor time.")
    if args.write:
        _write(results)
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
