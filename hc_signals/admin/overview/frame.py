"""A frame of time in steps, and what the workers did in each of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

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
    """Steps of equal length; the last one ends with a minute that is over, so it may be shorter.

    Args:
        found: minutes of one consumer, or sums of them; those before and after this time are left out.
    """

    def __init__(self, since: datetime, until: datetime, step: timedelta, found: Iterable[Minute]) -> None:
        self.since, self.until, self.step = since, until, step
        self.starts = [since + number * step for number in range(-((since - until) // step))]
        """The start of each step."""
        by_start = {minute.at: minute for minute in merged(found, step)}
        self.steps = [by_start.get(at) or Minute(at, "") for at in self.starts]
        """What the workers did in each step: an empty one where they did nothing, or where none was running."""

    def end(self, number: int) -> datetime:
        """Return the end of a step."""
        return min(self.starts[number] + self.step, self.until)

    def minutes(self, number: int) -> float:
        """Return the length of a step in minutes."""
        return (self.end(number) - self.starts[number]) / MINUTE

    def index(self, at: datetime) -> int:
        """Return the step of a time; one before or after the frame has the first or the last step."""
        return max(0, min(len(self.starts) - 1, (at - self.since) // self.step))


def newest_frame(period: Period, step: timedelta, now: datetime, found: Iterable[Minute]) -> Frame:
    """Return the newest frame; its steps are those of ``merged``."""
    seconds = step.total_seconds()
    until = datetime.fromtimestamp((now - DELAY).timestamp() // 60 * 60, now.tzinfo)
    newest = datetime.fromtimestamp((until - MINUTE).timestamp() // seconds * seconds, now.tzinfo)
    return Frame(newest + step - timedelta(hours=period.hours), until, step, found)
