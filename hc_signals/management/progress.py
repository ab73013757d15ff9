"""Shows the progress of a long command: one line redrawn on a terminal, else one line every few seconds."""

import time
from collections.abc import Callable
from typing import Any

BAR = 24
"""Characters of the bar."""

COUNT_LIMIT = 1_000_000
"""Most rows that a command counts before it begins: the count must not take longer than the work."""


class Progress:
    """Counts the rows that are done and writes the progress to ``stream``, a command's ``stderr``.

    The line begins with ``what``. A ``total`` number of rows above COUNT_LIMIT is unknown.
    """

    REDRAW_EVERY = 0.1
    """Seconds between two drawings on a terminal."""
    LINE_EVERY = 5.0
    """Seconds between two lines elsewhere."""

    def __init__(self, stream: Any, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock, self._redraws = stream, clock, stream.isatty()
        self.what, self.total = what, total
        self.done = 0
        self._began = self._written = clock()

    def advance(self, count: int) -> None:
        """Add ``count`` to the rows that are done."""
        self.done += count
        now = self._clock()
        if now - self._written >= (self.REDRAW_EVERY if self._redraws else self.LINE_EVERY):
            self._written = now
            self._write(f"\r{self.line()}\x1b[K" if self._redraws else f"{self.line()}\n")

    def say(self, text: str) -> None:
        """Write a line of its own, which the progress does not overwrite."""
        self._write(f"\r{text}\x1b[K\n" if self._redraws else f"{text}\n")

    def close(self) -> None:
        """Write the last state and end the line."""
        self.say(self.line())

    def _write(self, text: str) -> None:
        self._stream.write(text, style_func=str, ending="")  # neither red nor ended

    def line(self) -> str:
        """Return the progress in words."""
        rate = self.done / max(self._clock() - self._began, 0.001)
        if self.total > COUNT_LIMIT:
            return f"{self.what}: {self.done} of more than {COUNT_LIMIT}, {rate:.0f}/s"
        share = min(1.0, self.done / self.total) if self.total else 1.0
        bar = f" [{'#' * int(share * BAR):<{BAR}}]" if self._redraws else ""
        left = max(0, self.total - self.done)
        until = f", {_duration(left / rate)} left" if rate and left else ""
        return f"{self.what}:{bar} {self.done} of {self.total} ({share:.0%}), {rate:.0f}/s{until}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
