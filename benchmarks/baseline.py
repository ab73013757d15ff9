"""Compares a few ratios with stored ones. Unlike absolute numbers they hardly depend on the machine."""

import json
from collections.abc import Iterable
from pathlib import Path

from benchmarks.rows import Row, say, shown

PATH = Path(__file__).parent / "baseline.json"
FIGURES = ("drain", "calls", "effects", "sync", "capture", "jit")
"""The figures of `make bench-check`."""
FALL = 2 / 3
"""A ratio that falls below this share of the baseline is a failure."""
FALL_IF_EXACT = 0.95
"""The same for an exact ratio."""


def ratios(rows: Iterable[Row]) -> dict[str, float]:
    """Return the steady ratios by name; a higher ratio is better."""
    found = {}
    for row in rows:
        if row.steady:
            found[row.what] = row.measured / 100 if row.unit == "%" else 1 / row.measured
    return {name: round(value, 3) for name, value in found.items()}


def write(rows: Iterable[Row]) -> None:
    """Make these ratios the baseline."""
    PATH.write_text(json.dumps(ratios(rows), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"written to {PATH.name}")


def compare(rows: Iterable[Row]) -> list[str]:
    """Return a sentence for each ratio that fell by more than allowed, was not measured, or misses a firm target."""
    rows = list(rows)
    before, found = json.loads(PATH.read_text(encoding="utf-8")), ratios(rows)
    failures = [
        f"{row.what}: {shown(row.measured, row.unit)}; expected {row.target}."
        for row in rows
        if row.firm and not row.reached
    ]
    exact = {row.what for row in rows if row.exact}
    for name, wanted in before.items():
        if name not in found:
            failures.append(f"{name}: not measured; the baseline has {wanted}.")
            continue
        say(f"{name}: ratio {found[name]}, baseline {wanted}")
        lowest = wanted * (FALL_IF_EXACT if name in exact else FALL)
        if found[name] < lowest:
            failures.append(f"{name}: the ratio fell from {wanted} to {found[name]}; expected at least {lowest:.3f}.")
    return failures
