"""Counts what the workers of this process do, minute by minute: once, for the metrics and for the table of minutes."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter

from hc_signals.delivery.event import cause_of
from hc_signals.delivery.pulse import Observer, Tally
from hc_signals.delivery.routing import OF_RECORDS, route_of
from hc_signals.log.change import Change
from hc_signals.log.freshness import can_be_fresh
from hc_signals.log.histogram import Histogram

MINUTE = 60
"""Seconds."""
WAITING = 60
"""Most minutes that wait to be appended to the table; the oldest are then counted for the metrics only."""
SAMPLED = 100
"""Changes per table and minute whose freshness is read, and changes of a page that are considered for it."""

_EPOCH = datetime(1970, 1, 1)
_kind = itemgetter(Change._fields.index("table_name"), Change._fields.index("operation"))


class Sample:
    """Ids of some of the changes of one table in one minute, evenly spread; of few changes, all."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._step, self._skip = 1, 0

    def add(self, number: int) -> None:
        """Consider one change."""
        if self._skip:
            self._skip -= 1
            return
        self.ids.append(number)
        if len(self.ids) > 2 * SAMPLED:
            self.ids, self._step = self.ids[::2], 2 * self._step
        self._skip = self._step - 1


class Counts:
    """What the workers did in some time."""

    def __init__(self) -> None:
        self.changes: Counter[tuple[str, str]] = Counter()
        """Delivered changes, by table and operation, as the log names them."""
        self.unheard: Counter[str] = Counter()
        """Of these, changes of records that have no receiver, by table."""
        self.gaps: Counter[str] = Counter()
        """By cause."""
        self.latency = Histogram()
        """From the capture of a change to its receivers."""
        self.receivers: dict[str, Histogram] = defaultdict(Histogram)
        """Duration of calls, by receiver."""
        self.failures: Counter[str] = Counter()
        """Calls that raised, by receiver."""
        self.freshness: dict[str, Histogram] = defaultdict(Histogram)
        """From Salesforce's systemmodstamp to the capture, by table; of the sample, once it is read."""
        self.newest: dict[str, float] = {}
        """The newest systemmodstamp that is known when the sample is read, by table, as Unix time."""
        self.sample: dict[str, Sample] = defaultdict(Sample)
        """Changes whose freshness is to be read, by table."""

    def add(self, tally: Tally, is_committed: bool) -> None:
        """Count a page. If it was not committed, count its calls alone: it is delivered again."""
        for receiver, seconds in tally.calls.items():
            self.receivers[receiver].add(seconds)
        self.failures += tally.failures
        if is_committed and (tally.delivered or tally.gaps):
            self._add_changes(tally)

    def _add_changes(self, tally: Tally) -> None:
        self._add_latency(tally)
        kinds = Counter(map(_kind, tally.delivered))
        self.changes += kinds
        for (table, operation), count in kinds.items():
            if table in tally.unheard and operation in OF_RECORDS:
                self.unheard[table] += count
        self.gaps.update(tally.gaps)
        of_tables = {operation for _, operation in kinds if route_of(operation).change_type == "GAP_OVERFLOW"}
        if of_tables:
            self.gaps.update(cause_of(change) for change in tally.delivered if change.operation in of_tables)
        self._take_sample(tally.delivered)

    def _add_latency(self, tally: Tally) -> None:
        """Count the latency of each timed change once for each change up to the next timed one."""
        timed = zip(tally.begun_at, tally.delivered[:: tally.step], strict=True)
        # The clocks of the two machines may differ.
        found = [max(0.0, begun_at - (change.captured - _EPOCH).total_seconds()) for begun_at, change in timed]
        self.latency.add(found[:-1], tally.step)
        self.latency.add(found[-1:], len(tally.delivered) - tally.step * (len(found) - 1))

    def _take_sample(self, changes: Sequence[Change]) -> None:
        for change in changes[:: max(1, len(changes) // SAMPLED)]:
            if can_be_fresh(change):
                self.sample[change.table_name].add(change.id)

    def merge(self, other: "Counts") -> None:
        """Add the counts of another time, without its sample."""
        self.changes += other.changes
        self.unheard += other.unheard
        self.gaps += other.gaps
        self.failures += other.failures
        self.latency = Histogram.merged([self.latency, other.latency])
        for mine, theirs in ((self.receivers, other.receivers), (self.freshness, other.freshness)):
            for name, histogram in theirs.items():
                mine[name] = Histogram.merged([mine[name], histogram])


class Counting(Observer):
    """Counts the pages of all workers of this process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._past = Counts()
        """All minutes that do not wait any more."""
        self._waiting: dict[int, Counts] = {}
        """By the Unix time of their start: minutes that are not appended to the table yet."""

    def page_ends(self, tally: Tally, error: BaseException | None) -> None:
        """Count a page in the present minute."""
        if not (tally.delivered or tally.calls or tally.gaps):
            return
        with self._guard:
            minute = this_minute()
            if minute not in self._waiting:
                self._begin(minute)
            self._waiting[minute].add(tally, error is None)

    def _begin(self, minute: int) -> None:
        self._waiting[minute] = Counts()
        while len(self._waiting) > WAITING:
            self._past.merge(self._waiting.pop(min(self._waiting)))

    def waiting(self, before: int) -> list[tuple[int, Counts]]:
        """Return the minutes that began before this Unix time, with their counts, which nothing changes any more."""
        with self._guard:
            return sorted(
                ((minute, counts) for minute, counts in self._waiting.items() if minute < before), key=itemgetter(0)
            )

    def measured(self, minute: int, freshness: Mapping[str, Histogram], newest: Mapping[str, float]) -> None:
        """Note the freshness of a waiting minute's sample, which need not be read again."""
        with self._guard:
            if (counts := self._waiting.get(minute)) is not None:
                counts.freshness.update(freshness)
                counts.newest.update(newest)
                counts.sample.clear()

    def done(self, minute: int) -> None:
        """Note that a minute is appended to the table."""
        with self._guard:
            if (counts := self._waiting.pop(minute, None)) is not None:
                self._past.merge(counts)

    def total(self) -> Counts:
        """Return the counts since the start of the process."""
        found = Counts()
        with self._guard:
            for counts in (self._past, *self._waiting.values()):
                found.merge(counts)
        return found


def this_minute() -> int:
    """Return the Unix time at which the present minute began."""
    return int(time.time() // MINUTE) * MINUTE
