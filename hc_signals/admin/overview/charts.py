"""The charts of the overview: the figures of each, from the table of minutes. `drawing` makes them visible."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from hc_signals.admin.overview.frame import MINUTE, Frame, Period, bounds
from hc_signals.admin.overview.words import BYTES, COUNT, SECONDS, Unit, duration, number, size
from hc_signals.delivery.routing import route_of
from hc_signals.log.histogram import Histogram
from hc_signals.log.minutes import Minute, read
from hc_signals.tables import connected_models, table_label

SHOWN = 8
"""Most models or receivers of a chart; the others are added up."""

_QUANTILES = "Solid line: p50, half of the changes took less. Dashed line: p95, one in twenty took longer."

Both = tuple[Frame, Frame]
"""The frame of the chart and that of its table."""
Values = Sequence[float | None]
"""One value per step; None if nothing is known."""
Groups = Mapping[str, Collection[str]]
"""What a chart shows: by label, the names whose figures are added up."""


@dataclass(frozen=True)
class Line:
    """One line of a row, and one column of the table."""

    name: str
    """What the line is, if the row has two: ``p50``."""
    values: Values
    of_table: Values
    """In the steps of the table."""


@dataclass(frozen=True)
class Row:
    """One row of a chart: it has its own scale."""

    label: str
    lines: tuple[Line, ...]
    summary: str
    """The figures of the whole time, in words."""


@dataclass(frozen=True)
class Chart:
    """One chart, with its figures."""

    key: str
    title: str
    explanation: str
    unit: Unit
    rows: Sequence[Row]
    empty: str
    """What it means if there are no rows."""


@dataclass(frozen=True)
class Present:
    """The figures of now, which the table of minutes does not have yet."""

    at: datetime
    lag: float | None = None
    """Age in seconds of the oldest undelivered change; 0 without any, None if it is not known."""
    log_bytes: float | None = None


@dataclass(frozen=True)
class Charts:
    """The charts of one consumer in one period."""

    frame: Frame
    table: Frame
    charts: Sequence[Chart]


def charts(using: str, period: Period, consumer: str, present: Present) -> Charts:
    """Read the minutes and return the charts."""
    since, until = bounds(period, present.at)
    everything = read(using, since, until)
    own = [minute for minute in everything if minute.consumer == consumer]
    fine = Frame(since, until, period.step, own)
    table = Frame(since, until, period.row, fine.steps)
    return Charts(fine, table, list(_charts((fine, table), own, everything, present)))


def _charts(both: Both, own: Sequence[Minute], everything: Sequence[Minute], present: Present) -> Iterator[Chart]:
    names = {table_label(model): model._meta.label for model in connected_models()}
    nothing = "No change was delivered in this time."

    text = "Delivered changes a minute."
    yield Chart("types", "Changes by type", text, COUNT, _rates(both, _by_type, "change"), nothing)
    yield Chart("models", "Changes by model", text, COUNT, _rates(both, partial(_by_model, names), "change"), nothing)

    text = "Age of the oldest undelivered change. It grows while no worker delivers."
    yield Chart("lag", "Lag", text, SECONDS, _lag(both, own, present), "The lag was not read in this time.")

    text = f"Time from the capture of a change to the call of its receivers. {_QUANTILES}"
    yield Chart("latency", "Latency", text, SECONDS, _quantiles(both, _latency), nothing)

    text = f"Time from a change in Salesforce to its capture: the part of Heroku Connect. {_QUANTILES}"
    rows, empty = _quantiles(both, partial(_freshness, names)), "No change in this time has a time of Salesforce."
    yield Chart("freshness", "Freshness from Salesforce", text, SECONDS, rows, empty)

    rows, empty = _rates(both, _failures, "failed call"), "No receiver has failed in this time."
    yield Chart("failures", "Failures by receiver", "Failed calls a minute.", COUNT, rows, empty)

    text, empty = "Size on disk, with the indexes.", "The size was not read in this time."
    yield Chart("log", "Size of the log", text, BYTES, _log(both, everything, present), empty)


def _by_type(minute: Minute) -> Counter[str]:
    found: Counter[str] = Counter()
    for counts in minute.changes.values():
        for operation, count in counts.items():
            found[route_of(operation).change_type] += count
    return found


def _by_model(names: Mapping[str, str], minute: Minute) -> Counter[str]:
    return Counter({names.get(table, table): sum(counts.values()) for table, counts in minute.changes.items()})


def _failures(minute: Minute) -> Counter[str]:
    return Counter({name: calls.failures for name, calls in minute.receivers.items() if calls.failures})


def _latency(minute: Minute) -> Mapping[str, Histogram]:
    return {"all models": minute.latency}


def _freshness(names: Mapping[str, str], minute: Minute) -> Mapping[str, Histogram]:
    return {names.get(table, table): histogram for table, histogram in minute.freshness.items()}


def _groups(totals: Counter[str]) -> Groups:
    """Return the names with the highest totals, and the others as one group."""
    names = [name for name, _ in totals.most_common(SHOWN)]
    others = totals.keys() - set(names)
    return {name: (name,) for name in names} | ({f"{len(others)} more": others} if others else {})


def _rates(both: Both, count: Callable[[Minute], Counter[str]], noun: str) -> list[Row]:
    fine, table = (_per_minute(frame, [count(step) for step in frame.steps]) for frame in both)
    totals = sum((count(step) for step in both[0].steps), Counter[str]())
    return [
        Row(
            label,
            (Line("", *(_summed(each, names) for each in (fine, table))),),
            _counted(sum(totals[name] for name in names), noun),
        )
        for label, names in _groups(totals).items()
    ]


def _per_minute(frame: Frame, counts: Sequence[Counter[str]]) -> list[Mapping[str, float]]:
    return [{name: value / frame.minutes(number) for name, value in each.items()} for number, each in enumerate(counts)]


def _summed(steps: Iterable[Mapping[str, float]], names: Collection[str]) -> Values:
    return [sum(step.get(name, 0.0) for name in names) for step in steps]


def _counted(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def _quantiles(both: Both, of: Callable[[Minute], Mapping[str, Histogram]]) -> list[Row]:
    by_step = tuple([of(step) for step in frame.steps] for frame in both)
    totals: Counter[str] = Counter()
    for step in by_step[0]:
        totals.update({name: histogram.count for name, histogram in step.items()})
    return [
        _quantiles_of(label, *([_merged(step, names) for step in each] for each in by_step))
        for label, names in _groups(+totals).items()
    ]


def _quantiles_of(label: str, fine: Sequence[Histogram], table: Sequence[Histogram]) -> Row:
    lines = [
        Line(name, *([histogram.quantile(share) for histogram in each] for each in (fine, table)))
        for name, share in (("p50", 0.5), ("p95", 0.95))
    ]
    whole = Histogram.merged(fine)
    return Row(label, tuple(lines), f"p50 {_quantile(whole, 0.5)}, p95 {_quantile(whole, 0.95)}")


def _merged(step: Mapping[str, Histogram], names: Collection[str]) -> Histogram:
    return Histogram.merged(step[name] for name in names if name in step)


def _quantile(histogram: Histogram, share: float) -> str:
    return duration(histogram.quantile(share) or 0.0)


def _lag(both: Both, found: Sequence[Minute], present: Present) -> list[Row]:
    known = [(minute.at + MINUTE, minute.lag) for minute in found if minute.lag is not None]
    if present.lag is not None:
        known.append((present.at, present.lag))
    if not known:
        return []
    lines = Line("", *(_lags(frame, known) for frame in both))
    highest = max(value or 0.0 for value in lines.values)
    return [Row("all models", (lines,), f"now {duration(known[-1][1])}, highest {duration(highest)}")]


def _lags(frame: Frame, known: Iterable[tuple[datetime, float]]) -> Values:
    """Return the highest lag of each step.

    A change that was undelivered for some seconds at one time was undelivered all these seconds. So the lag is known
    also where no worker has written it.
    """
    lags = [0.0] * len(frame.starts)
    for at, lag in known:
        captured = at - timedelta(seconds=lag)
        if at <= frame.since or captured >= frame.until:
            continue
        for step in range(frame.index(captured), frame.index(at - timedelta(microseconds=1)) + 1):
            lags[step] = max(lags[step], (min(at, frame.end(step)) - captured).total_seconds())
    return lags


def _log(both: Both, everything: Sequence[Minute], present: Present) -> list[Row]:
    """Return the row of the log, which all consumers share."""
    line = Line("", *(_sizes(frame, everything, present.log_bytes) for frame in both))
    known = [value for value in line.values if value is not None]
    if not known:
        return []
    return [Row("the log", (line,), f"now {size(known[-1])}, highest {size(max(known))}")]


def _sizes(frame: Frame, found: Iterable[Minute], last: float | None) -> Values:
    """Return the newest size of each step. Without one it is that of the step before: a worker writes what differs."""
    sizes: list[float | None] = [None] * len(frame.starts)
    for minute in found:
        if minute.log_bytes is not None:
            sizes[frame.index(minute.at)] = minute.log_bytes
    if last is not None:
        sizes[-1] = last
    for step, value in enumerate(sizes[1:], 1):
        sizes[step] = sizes[step - 1] if value is None else value
    return sizes
