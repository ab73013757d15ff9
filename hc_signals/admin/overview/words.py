"""Numbers, durations, sizes and names, as the overview writes them."""

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


def short(name: str) -> str:
    """Return the end of a long name: it differs, where the beginning is a package."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def with_code(text: str) -> str:
    """Return HTML of a text in which backticks mark commands."""
    pieces = enumerate(text.split("`"))
    marked = (format_html("<code>{}</code>", piece) if number % 2 else piece for number, piece in pieces)
    return format_html_join("", "{}", ((piece,) for piece in marked))
