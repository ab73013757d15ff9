"""The calls of receivers: collects those of one transaction, appends and reads them.

The rows are appended in the statement that appends the position, so they cost no round trip. They commit with the page:
a page that is rolled back and delivered again has its calls once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any, Protocol

from hc_signals.postgres.moments import aware_row
from hc_signals.postgres.names import storable
from hc_signals.postgres.query import execute, relation_exists, row, rows

LONGEST = 2**31 - 1
"""Microseconds of a longer call are stored as these."""

_MAY_APPEND = "SELECT coalesce(has_table_privilege(to_regclass('public.hc_signals_heard'), 'INSERT'), false)"
_APPEND = """
INSERT INTO public.hc_signals_heard (consumer, shard, first_id, last_id, receivers, in_bulk, is_replay, changes,
    numbers, microseconds, attempts, failed) VALUES """
_ROW = (
    "(%s, %s, %s, %s, %s::text[], %s::boolean[], %s::boolean[], %s::bigint[], %s::smallint[], %s::integer[], "
    "%s::smallint[], %s::boolean[])"
)
_CALLS = "SELECT * FROM public.hc_signals_calls_of(%s)"


Called = tuple[str, bool, bool]
"""A receiver's name, whether it was called once for several changes, and whether the call belongs to a replay."""


@dataclass(frozen=True)
class HeardCall:
    """One call of a receiver for one change."""

    change_id: int
    consumer: str
    heard_at: datetime
    """When the calls of its page had ended."""
    receiver: str
    in_bulk: bool
    """The receiver was called once for several changes; the time is that of the whole call."""
    is_replay: bool
    microseconds: int
    attempt: int
    failed: bool


class _Named(Protocol):
    @property
    def name(self) -> str: ...


@dataclass
class Calls:
    """Calls of receivers for the same changes, one after the other."""

    changes: Sequence[int]
    receivers: Sequence[_Named]
    seconds: Sequence[float]
    """Of each call; filled while they are made."""
    attempt: int
    in_bulk: bool
    is_replay: bool
    failed: set[int] = field(default_factory=set)
    """Indices of the receivers that failed."""

    def fail(self, receiver: str) -> None:
        """Note that a receiver has failed, perhaps after it had returned."""
        self.failed |= {index for index, each in enumerate(self.receivers) if each.name == receiver}


@dataclass
class _Row:
    """A row of the table."""

    calls: list[Calls] = field(default_factory=list)

    def values(self, using: str) -> list[Any]:
        """Return the values of the columns from ``first_id`` on; arrays have an element for each call and change."""
        numbers: dict[Called, int] = {}
        known: dict[Any, list[int]] = {}
        """Numbers of the receivers, by a list of them: most calls of a page share one."""
        changes: list[int] = []
        called: list[int] = []
        microseconds: list[int] = []
        attempts: list[int] = []
        failed: set[int] = set()
        for calls in self.calls:
            key = id(calls.receivers), calls.in_bulk, calls.is_replay
            if key not in known:
                names = [(each.name, calls.in_bulk, calls.is_replay) for each in calls.receivers]
                known[key] = [numbers.setdefault(name, len(numbers) + 1) for name in names]
            times = len(calls.changes)
            failed |= {len(changes) + index * times + each for index in calls.failed for each in range(times)}
            changes += [*calls.changes] * len(calls.seconds)
            called += _repeated(known[key], times)
            microseconds += _repeated([int(each * 1_000_000) for each in calls.seconds], times)
            attempts += [calls.attempt] * (len(calls.seconds) * times)
        if max(microseconds) > LONGEST:
            microseconds = [min(LONGEST, each) for each in microseconds]
        return [
            *(min(changes), max(changes)),
            [storable(name, using) for name, _, _ in numbers],
            [in_bulk for _, in_bulk, _ in numbers],
            [is_replay for _, _, is_replay in numbers],
            _array(changes),
            _array(called),
            _array(microseconds),
            _array(attempts) if max(attempts) > 1 else None,
            _array([n in failed for n in range(len(changes))]) if failed else None,
        ]


def _repeated(values: list[int], times: int) -> list[int]:
    return values if times == 1 else [each for each in values for _ in range(times)]


class Heard:
    """The calls of one transaction of a worker or of a replay. :meth:`add` only collects: it runs for every event."""

    __slots__ = ("_rows", "consumer", "shard", "using")

    def __init__(self, using: str, consumer: str, shard: int) -> None:
        self.using, self.consumer, self.shard = using, consumer, shard
        # Retries and replays have a row of their own: their changes are old, and a row is found by its range of ids.
        self._rows = _Row(), _Row()

    def add(self, calls: Calls) -> None:
        """Add calls that are about to be made."""
        self._rows[calls.attempt > 1 or calls.is_replay].calls.append(calls)

    def statement(self) -> tuple[str, list[Any]] | None:
        """Return the statement that appends the calls, and its parameters; None without a call."""
        found = [[self.consumer, self.shard, *calls.values(self.using)] for calls in self._rows if calls.calls]
        return (_APPEND + ", ".join([_ROW] * len(found)), [*chain(*found)]) if found else None


def _array(values: list[int] | list[bool]) -> str:
    """Return the text of an array. psycopg would take several times as long for a list."""
    return f"{{{str(values)[1:-1]}}}"


def exists(using: str) -> bool:
    """Return whether the database has the table of calls: it has none until migration 0004 has run."""
    return relation_exists(using, "public.hc_signals_heard")


def may_append(using: str) -> bool:
    """Return whether the database has the table, and the role may append to it."""
    return bool(row(using, _MAY_APPEND)[0])


def append_calls(heard: Heard) -> None:
    """Append the calls by a statement of their own; none if there is no call."""
    if statement := heard.statement():
        execute(heard.using, *statement)


def calls_of(using: str, ids: Iterable[int]) -> list[HeardCall]:
    """Return the calls for these changes, in the order of the changes and of the calls."""
    return [HeardCall(*aware_row(found)) for found in rows(using, _CALLS, [list(ids)])]
