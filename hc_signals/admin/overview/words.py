"""Numbers, durations, sizes and names, as the overview writes them."""

from collections.abc import Callable
from math import floor, log10
from typing import NamedTuple

from django.utils.html import format_html, format_html_join

LONGEST_NAME = 38
"""Characters of a name in a chart: as many as fit into a window of 400 pixels."""


def number(value: float) -> str:
    """Return a count, or a count a minute: ``0.3``, ``12``, ``1 200``."""
    return f"{value:,.1f}".replace(".0", "") if value < 10 else f"{value:,.0f}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """Return seconds in the unit that a person would take: ``80 ms``, ``2.5 s``, ``12 min``, ``5 h``, ``3 d``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= (2 if size > 1 else 1) * size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds * 1000)} ms" if seconds else "0 s"


def size(octets: float) -> str:
    """Return bytes in MB or GB, which are powers of 2 as in hc_status."""
    megabytes = octets / 2**20
    return f"{number(megabytes)} MB" if megabytes < 2048 else f"{number(megabytes / 1024)} GB"


def next_number(value: float) -> float:
    """Return the first of 1, 2, 5, 10, 20, 50, ... that is not below the value; also 0.1, 0.2, 0.5; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def next_duration(seconds: float) -> float:
    """Return the first usual duration that is not below this one."""
    if seconds <= 1:
        return next_number(seconds)
    steps = [1, 2, 5, 10, 20, 30, *(60 * n for n in (1, 2, 5, 10, 20, 30, 60, 120, 300, 720))]
    return next((step for step in steps if step >= seconds), 86400 * next_number(seconds / 86400))


def next_size(octets: float) -> float:
    """Return the first round number of MB or GB that is not below this size."""
    unit = 2**20 if octets <= 2**30 else 2**30
    return unit * next_number(octets / unit)


class Unit(NamedTuple):
    """What a chart shows."""

    words: Callable[[float], str]
    """Writes a value."""
    ceiling: Callable[[float], float]
    """Returns the upper edge for the highest value."""


COUNT, SECONDS, BYTES = Unit(number, next_number), Unit(duration, next_duration), Unit(size, next_size)


def short(name: str) -> str:
    """Return the end of a long name: it differs, where the beginning is a package."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def with_code(text: str) -> str:
    """Return HTML of a text in which backticks mark commands."""
    pieces = enumerate(text.split("`"))
    marked = (format_html("<code>{}</code>", piece) if number % 2 else piece for number, piece in pieces)
    return format_html_join("", "{}", ((piece,) for piece in marked))
