"""Histogram: how many values lie between fixed bounds of seconds; for the metrics and the table of minutes."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, pairwise
from math import inf
from typing import Any

BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    *(120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 86400.0),
)
"""Upper bounds in seconds. Those above a minute are for the age of changes: Heroku Connect polls every ten minutes."""

_INDEX = {f"{bound:g}": number for number, bound in enumerate((*BOUNDS, inf))}
"""The number of each bucket by its bound, as it is stored."""


class Histogram:
    """Counts values of seconds by bucket; ``counts`` has one number per bound, and a last one for all above."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0
        if values:
            self.add(values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and (self.counts, self.sum) == (other.counts, other.sum)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Histogram of {self.count} values, {self.sum:g} s>"

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def add(self, values: Iterable[float], weight: int = 1) -> None:
        """Count values in seconds, each ``weight`` times."""
        # Sorting is cheaper than a search per value: every change of a busy worker comes here.
        ordered = sorted(values)
        below = 0
        for bucket, bound in enumerate(BOUNDS):
            if below == len(ordered):
                break
            up_to = bisect_right(ordered, bound, below)
            self.counts[bucket] += weight * (up_to - below)
            below = up_to
        self.counts[-1] += weight * (len(ordered) - below)
        self.sum += weight * sum(ordered)

    @classmethod
    def merged(cls, histograms: Iterable["Histogram"]) -> "Histogram":
        """Return one histogram of all the values."""
        found, several = cls(), list(histograms)
        if several:
            # In C: the overview merges some hundred thousand.
            found.counts = list(map(sum, zip(*(each.counts for each in several), strict=True)))
            found.sum = sum(each.sum for each in several)
        return found

    def quantile(self, share: float) -> float | None:
        """Return the value below which this share of the values lies, 0.5 for the median; None without any value.

        It is exact to one bucket: inside it, the values are taken to be spread evenly. Above the last bound it is that
        bound.
        """
        rank, below = share * self.count, 0
        for (low, high), count in zip(pairwise((0.0, *BOUNDS)), self.counts, strict=False):
            if count and below + count >= rank:
                return low + (high - low) * max(0.0, rank - below) / count
            below += count
        return BOUNDS[-1] if self.count else None

    def buckets(self) -> list[tuple[str, float]]:
        """Return each upper bound with the number of values up to it, as Prometheus wants them."""
        names = [*map(str, BOUNDS), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))

    def stored(self) -> dict[str, Any]:
        """Return it as JSON: the counts that are not 0, by upper bound; other bounds can read them."""
        return {"sum": round(self.sum, 6), "counts": {f"{bound:g}": count for bound, count in self._filled()}}

    def _filled(self) -> Iterator[tuple[float, int]]:
        return ((bound, count) for bound, count in zip((*BOUNDS, inf), self.counts, strict=True) if count)

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> "Histogram":
        """Return the histogram that :meth:`stored` has written as JSON."""
        found = cls()
        found.sum = float(stored["sum"])
        for bound, count in stored["counts"].items():
            found.counts[_INDEX[bound] if bound in _INDEX else bisect_left(BOUNDS, float(bound))] += count
        return found
