"""A frame of time in steps, and what the workers did in each of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hc_signals.log.minutes import Minute, merged

MINUTE = timedelta(minutes=1)
DELAY = timedelta(seconds=15)
"""Time that a worker has to append a minute after its end."""


@dataclass(frozen=True)
class Period:
    """What a user can choose: a length of time, and the steps of its charts and tables."""

    hours: int
    step: timedelta
    row: timedelta
    """What one row of a table has."""
    tick_minutes: int
    """Minutes between two labels of the time axis."""
    kept_seconds: float
    """Seconds for which the charts are kept: a long period costs more, and changes less."""


PERIODS = {
    each.hours: each
    for each in (
        Period(1, MINUTE, 5 * MINUTE, 15, 5),
        Period(24, 10 * MINUTE, 60 * MINUTE, 6 * 60, 60),
        Period(96, 30 * MINUTE, 240 * MINUTE, 24 * 60, 180),
    )
}


class Frame:
    """Steps of equal length, with the same beginnings as those of ``merged``; the first and the last may be cut off.

    Args:
        found: minutes of one consumer in this time, or sums of them.
    """

    def __init__(self, since: datetime, until: datetime, step: timedelta, found: Iterable[Minute]) -> None:
        self.since, self.until, self.step = since, until, step
        first = floor(since, step)
        self.starts = [first + number * step for number in range(-((first - until) // step))]
        """The beginning of each step."""
        by_start = {minute.at: minute for minute in merged(found, step)}
        self.steps = [by_start.get(at) or Minute(at, "") for at in self.starts]
        """What the workers did in each step: an empty one where they did nothing, or where none was running."""

    def end(self, number: int) -> datetime:
        """Return the end of a step."""
        return min(self.starts[number] + self.step, self.until)

    def minutes(self, number: int) -> float:
        """Return the length of a step in minutes."""
        return (self.end(number) - max(self.since, self.starts[number])) / MINUTE

    def index(self, at: datetime) -> int:
        """Return the step of a time; one before or after the frame has the first or the last step."""
        return max(0, min(len(self.starts) - 1, (at - self.starts[0]) // self.step))


def bounds(period: Period, now: datetime) -> tuple[datetime, datetime]:
    """Return the beginning and the end of the newest frame."""
    until = floor(now - DELAY, MINUTE)
    return floor(until - MINUTE, period.step) + period.step - timedelta(hours=period.hours), until


def floor(at: datetime, step: timedelta) -> datetime:
    """Return the beginning of the step that a time belongs to."""
    seconds = step.total_seconds()
    return datetime.fromtimestamp(at.timestamp() // seconds * seconds, UTC)
