"""Row, one line of the table that `make bench` prints; and the rounds of alternating runs behind it."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.options import Options


@dataclass(frozen=True)
class Row:
    """One figure."""

    figure: str
    """Name of the module that measures it."""
    what: str
    ours: str
    against: str
    measured: float
    unit: str
    """Unit of ``measured`` and of the limits; ``%`` and ``×`` are ratios of our figure to the other one."""
    at_least: float | None = None
    at_most: float | None = None
    steady: bool = False
    """True if the ratio is compared with the baseline: it hardly depends on the machine and its load."""
    exact: bool = False
    """True if a repetition gives the same ratio, whatever the machine and its load."""
    firm: bool = False
    """True if `make bench-check` fails when the target is missed."""

    @property
    def reached(self) -> bool | None:
        """True if the target is reached; None if there is no target."""
        if self.at_least is not None:
            return self.measured >= self.at_least
        return None if self.at_most is None else self.measured <= self.at_most

    @property
    def target(self) -> str:
        """Return the target as text."""
        if self.at_least is not None:
            return f"≥ {shown(self.at_least, self.unit)}"
        return "" if self.at_most is None else f"≤ {shown(self.at_most, self.unit)}"


def shown(value: float, unit: str) -> str:
    """Return a value with its unit."""
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".strip()


def rate(value: float) -> str:
    """Return a rate as text."""
    return f"{value:,.0f}/s"


_started = time.monotonic()


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"bench: {time.monotonic() - _started:5.0f} s  {text}", flush=True)


def alternate(
    figure: str, options: Options, runs: Mapping[str, Callable[[], float]], unit: str = "/s", rounds: int | None = None
) -> dict[str, list[float]]:
    """Run each of ``runs`` once per round, in turns, every second round backwards; return the values by name."""
    values: dict[str, list[float]] = {name: [] for name in runs}
    rounds = rounds or options.rounds
    for number in range(rounds):
        names = list(runs) if number % 2 == 0 else list(reversed(runs))
        for name in names:
            values[name].append(runs[name]())
        said = ", ".join(f"{name} {shown(values[name][-1], unit)}" for name in runs)
        say(f"{figure}: round {number + 1} of {rounds}: {said}")
    return values


def ratio(ours: list[float], against: list[float]) -> float:
    """Return the median of the ratios of the rounds, so that a slow round does not count."""
    return statistics.median(a / b for a, b in zip(ours, against, strict=True))


def percent(ours: list[float], against: list[float]) -> float:
    """Return the ratio in per cent."""
    return 100 * ratio(ours, against)


median = statistics.median
