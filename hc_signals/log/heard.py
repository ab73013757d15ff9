"""The calls of receivers: collects those of one transaction, appends and reads them.

The rows are appended in the statement that appends the position, so they cost no round trip. They commit with the page:
a page that is rolled back and delivered again has its calls once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any

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


@dataclass
class _Row:
    """A row of the table."""

    calls: list[tuple[int, Called, float, int]] = field(default_factory=list)
    """Change, receiver, seconds and attempt: of a call for several changes, one element for each of them."""
    failed: set[int] = field(default_factory=set)
    """Indices of the failed ones."""

    def values(self, using: str) -> list[Any]:
        """Return the values of the columns from ``first_id`` on."""
        changes, called, seconds, attempts = zip(*self.calls, strict=True)
        numbers = {each: number for number, each in enumerate(dict.fromkeys(called), 1)}
        microseconds = [int(each * 1_000_000) for each in seconds]
        if max(microseconds) > LONGEST:
            microseconds = [min(LONGEST, each) for each in microseconds]
        return [
            *(min(changes), max(changes)),
            [storable(name, using) for name, _, _ in numbers],
            [in_bulk for _, in_bulk, _ in numbers],
            [is_replay for _, _, is_replay in numbers],
            _array(list(changes)),
            _array([numbers[each] for each in called] if len(numbers) > 1 else [1] * len(called)),
            _array(microseconds),
            _array(list(attempts)) if max(attempts) > 1 else None,
            _array([n in self.failed for n in range(len(changes))]) if self.failed else None,
        ]


class Heard:
    """The calls of one transaction of a worker or of a replay. :meth:`add` only collects: it runs for every call."""

    __slots__ = ("_rows", "consumer", "shard", "using")

    def __init__(self, using: str, consumer: str, shard: int) -> None:
        self.using, self.consumer, self.shard = using, consumer, shard
        # Retries and replays have a row of their own: their changes are old, and a row is found by its range of ids.
        self._rows = _Row(), _Row()

    def add(self, changes: Sequence[int], called: Called, seconds: float, attempt: int) -> None:
        """Add a call, which may be about several changes."""
        calls = self._rows[attempt > 1 or called[2]].calls
        for change in changes:
            calls.append((change, called, seconds, attempt))

    def fail(self, receiver: str, changes: Sequence[int]) -> None:
        """Note that the last call of a receiver for these changes has failed, perhaps after it had returned."""
        for calls in self._rows:
            for index in range(len(calls.calls) - 1, -1, -1):
                change, called, _, _ = calls.calls[index]
                if change == changes[-1] and called[0] == receiver:
                    calls.failed.update(range(index - len(changes) + 1, index + 1))
                    return

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
