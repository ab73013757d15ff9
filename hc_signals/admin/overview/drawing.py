"""Draws a chart as SVG: one strip per row, below each other, on one axis of time.

The strips differ by their place and their label, not by colour. A strip is an inner ``<svg>`` that is stretched to the
width of the page; labels are outside of it, at percentages, so they keep their size at every width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from hc_signals.admin.overview.charts import Chart, Charts, Row, Values
from hc_signals.admin.overview.frame import Frame, Period
from hc_signals.admin.overview.words import short
from hc_signals.postgres.moments import in_zone, shown

LABEL, STRIP, TALL, AXIS = 24, 34, 110, 20
"""Heights in pixels: of a label, of a strip, of a strip that is alone, of the labels of the time axis."""
SCALE = 100
"""Height of a strip in its own units."""


@dataclass(frozen=True)
class Strip:
    """One row, as the template writes it."""

    label: str
    name: str
    """The whole name, if the label is shortened."""
    summary: str
    top: str
    """The value at the upper edge."""
    label_y: int
    y: int
    height: int
    areas: Sequence[str]
    """Data of the paths that are filled: the first line of the row."""
    lines: Sequence[tuple[str, str]]
    """Name and data of each path."""

    @property
    def bottom(self) -> int:
        """The lower edge."""
        return self.y + self.height

    @property
    def top_y(self) -> int:
        """The base line of the text at the upper edge."""
        return self.y + 11


@dataclass(frozen=True)
class Tick:
    """One label of the time axis."""

    x: str
    """In percent of the width."""
    label: str


@dataclass(frozen=True)
class Drawing:
    """One chart, as the template writes it."""

    chart: Chart
    strips: Sequence[Strip]
    ticks: Sequence[Tick]
    width: int
    """Number of steps."""
    header: Sequence[str]
    body: Sequence[tuple[str, Sequence[str]]]

    @property
    def plot_height(self) -> int:
        """Height of the strips in pixels."""
        return self.strips[-1].bottom if self.strips else 0

    @property
    def height(self) -> int:
        """Height of the whole chart in pixels."""
        return self.plot_height + AXIS

    @property
    def axis_y(self) -> int:
        """The base line of the time axis' labels."""
        return self.height - 4


def draw(chart: Chart, of: Charts, period: Period) -> Drawing:
    """Return a chart with its paths, its labels and its table."""
    strips, ticks = list(_strips(chart)), list(_ticks(of.frame, period))
    return Drawing(chart, strips, ticks, len(of.frame.starts), list(_header(chart)), list(_body(chart, of.table)))


def _strips(chart: Chart) -> Iterator[Strip]:
    height = TALL if len(chart.rows) == 1 else STRIP
    y = 0
    for row in chart.rows:
        yield _strip(chart, row, y, height)
        y += LABEL + height


def _strip(chart: Chart, row: Row, y: int, height: int) -> Strip:
    top = chart.unit.ceiling(max((value or 0.0 for line in row.lines for value in line.values), default=0.0))
    # Not `for line in ...`: in CPython 3.12.0 and 3.12.1 that hides the function line() from the rest of this one.
    scaled = [(each.name, list(_scaled(each.values, top))) for each in row.lines]
    return Strip(
        label=short(row.label),
        name=row.label,
        summary=row.summary,
        top=chart.unit.words(top),
        label_y=y + 18,
        y=y + LABEL,
        height=height,
        areas=[area(scaled[0][1])],
        lines=[(name, line(values)) for name, values in scaled],
    )


def _scaled(values: Values, top: float) -> Iterator[int | None]:
    for value in values:
        yield None if value is None else round(SCALE * (1 - min(1.0, value / top)))


def line(values: Sequence[int | None]) -> str:
    """Return a path with one horizontal piece per step; it ends where a value is not known."""
    return "".join(f"M{start} {run[0]}" + "".join(f"V{y}h1" for y in run) for start, run in _runs(values))


def area(values: Sequence[int | None]) -> str:
    """Return the area below :func:`line`."""
    return "".join(f"M{start} {SCALE}" + "".join(f"V{y}h1" for y in run) + f"V{SCALE}z" for start, run in _runs(values))


def _runs(values: Sequence[int | None]) -> Iterator[tuple[int, list[int]]]:
    """Yield the first step and the values of each stretch without an unknown one."""
    run: list[int] = []
    for number, value in enumerate([*values, None]):
        if value is not None:
            run.append(value)
        elif run:
            yield number - len(run), run
            run = []


def _ticks(frame: Frame, period: Period) -> Iterator[Tick]:
    """Yield the labels of the time axis at full hours or days of the shown time zone, without those at its ends."""
    whole = (frame.until - frame.since).total_seconds()
    quarter = timedelta(minutes=15)
    at = datetime.fromtimestamp(frame.since.timestamp() // 900 * 900, frame.since.tzinfo)
    while (at := at + quarter) < frame.until:
        local = in_zone(at)
        share = (at - frame.since).total_seconds() / whole
        if (local.hour * 60 + local.minute) % period.tick_minutes == 0 and 0.04 < share < 0.96:
            yield Tick(f"{100 * share:.2f}%", f"{local:%a %d}" if period.tick_minutes >= 1440 else f"{local:%H:%M}")


def _header(chart: Chart) -> Iterator[str]:
    for row in chart.rows:
        for line in row.lines:
            yield f"{row.label} {line.name}".strip()


def _body(chart: Chart, table: Frame) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the table, the newest first."""
    lines = [line for row in chart.rows for line in row.lines]
    for number in reversed(range(len(table.starts))):
        cells = [line.of_table[number] for line in lines]
        yield shown(table.starts[number]), ["-" if each is None else chart.unit.words(each) for each in cells]
