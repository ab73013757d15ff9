"""The calls of receivers: collects those of one transaction, appends and reads them.

The rows are appended in the statement that appends the position, so they cost no round trip. They commit with the page:
a page that is rolled back and delivered again has its calls once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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


class Heard:
    """The calls of one transaction of a worker or of a replay."""

    __slots__ = ("_calls", "_failed", "consumer", "shard", "using")

    def __init__(self, using: str, consumer: str, shard: int) -> None:
        self.using, self.consumer, self.shard = using, consumer, shard
        self._calls: list[tuple[int, Called, float, int]] = []
        self._failed: set[int] = set()

    def add(self, changes: Sequence[int], called: Called, seconds: float, attempt: int) -> None:
        """Add a call, which may be about several changes."""
        for change in changes:
            self._calls.append((change, called, seconds, attempt))

    def fail(self, receiver: str, changes: Sequence[int]) -> None:
        """Note that the last call of a receiver for these changes has failed, perhaps after it had returned."""
        for index in range(len(self._calls) - 1, -1, -1):
            if self._calls[index][0] == changes[-1] and self._calls[index][1][0] == receiver:
                self._failed.update(range(index - len(changes) + 1, index + 1))
                return

    def statement(self) -> tuple[str, list[Any]] | None:
        """Return the statement that appends the calls, and its parameters; None without a call.

        Retries have a row of their own: their changes are old, and a row is found by its range of ids.
        """
        groups: tuple[list[int], list[int]] = [], []
        for number, (_, called, _, attempt) in enumerate(self._calls):
            groups[attempt > 1 or called[2]].append(number)
        values = [self._row(chosen) for chosen in groups if chosen]
        return (_APPEND + ", ".join([_ROW] * len(values)), [*chain(*values)]) if values else None

    def _row(self, chosen: Sequence[int]) -> list[Any]:
        changes, called, seconds, attempts = zip(*[self._calls[number] for number in chosen], strict=True)
        numbers = {each: number for number, each in enumerate(dict.fromkeys(called), 1)}
        failed = [number in self._failed for number in chosen]
        return [
            *(self.consumer, self.shard, min(changes), max(changes)),
            [storable(name, self.using) for name, _, _ in numbers],
            [in_bulk for _, in_bulk, _ in numbers],
            [is_replay for _, _, is_replay in numbers],
            _array(changes),
            _array([numbers[each] for each in called]),
            _array([min(LONGEST, int(each * 1_000_000)) for each in seconds]),
            _array(attempts) if max(attempts) > 1 else None,
            _array(failed) if any(failed) else None,
        ]


def _array(values: Iterable[Any]) -> str:
    """Return the text of an array. psycopg would take several times as long for a list."""
    return f"{{{','.join(map(str, values))}}}"


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
