"""The calls of receivers: collects those of one transaction, appends and reads them.

The rows are appended in the statement that appends the position, so they cost no round trip. They commit with the page:
a page that is rolled back and delivered again has its calls once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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


_Calls = tuple[Sequence[int], Sequence[_Named], Sequence[float], int, bool, bool]
"""See the arguments of :meth:`Heard.add`."""


class Heard:
    """The calls of one transaction of a worker or of a replay. :meth:`add` only collects: it runs for every signal."""

    __slots__ = ("_failed", "_rows", "consumer", "shard", "using")

    def __init__(self, using: str, consumer: str, shard: int) -> None:
        self.using, self.consumer, self.shard = using, consumer, shard
        # Retries and replays have a row of their own: their changes are old, and a row is found by its range of ids.
        self._rows: tuple[list[_Calls], list[_Calls]] = [], []
        self._failed: set[tuple[int, str]] = set()
        """By the id of the list of seconds: the receivers that failed."""

    def add(
        self,
        changes: Sequence[int],
        receivers: Sequence[_Named],
        seconds: list[float],
        attempt: int,
        *,
        in_bulk: bool,
        is_replay: bool,
    ) -> None:
        """Add calls that are about to be made, each for all of the changes; ``seconds`` is filled with their times."""
        self._rows[attempt > 1 or is_replay].append((changes, receivers, seconds, attempt, in_bulk, is_replay))

    def fail(self, receiver: str, seconds: list[float]) -> None:
        """Note that a receiver has failed, perhaps after it had returned; ``seconds``: the list given with its call."""
        self._failed.add((id(seconds), receiver))

    def _values(self, calls: list[_Calls]) -> list[Any]:
        """Return the values of the columns from ``first_id`` on; arrays have an element for each call and change."""
        numbers: dict[Called, int] = {}
        known: dict[Any, tuple[list[int], str]] = {}
        """Numbers of receivers, by the list of them, and the same as text: most calls of a page share one."""
        for _, receivers, _, _, in_bulk, is_replay in calls:
            if (key := (id(receivers), in_bulk, is_replay)) not in known:
                names = [(each.name, in_bulk, is_replay) for each in receivers]
                found = [numbers.setdefault(name, len(numbers) + 1) for name in names]
                known[key] = found, _elements(found)
        # The texts are made call by call: of a change with a hundred receivers, two of three need no loop.
        changes, called = [], []
        for ids, receivers, seconds, _, in_bulk, is_replay in calls:
            of_list, text = known[id(receivers), in_bulk, is_replay]
            changes.append(_elements(ids) * len(seconds))
            if len(ids) == 1 and len(seconds) == len(of_list):
                called.append(text)
            else:  # called for several changes; or some receivers were not called, because the process is ending
                called += [f"{number}," * len(ids) for number in of_list[: len(seconds)]]
        times = [int(each * 1_000_000) for ids, _, seconds, _, _, _ in calls for each in seconds for _ in ids]
        if max(times) > LONGEST:
            times = [min(LONGEST, each) for each in times]
        attempts = [attempt for ids, _, seconds, attempt, _, _ in calls if attempt > 1 for _ in seconds for _ in ids]
        if attempts and len(attempts) < len(times):
            attempts = [attempt for ids, _, seconds, attempt, _, _ in calls for _ in seconds for _ in ids]
        failed = self._failed and [
            (id(seconds), each.name) in self._failed
            for ids, receivers, seconds, *_ in calls
            for each, _ in zip(receivers, seconds, strict=False)
            for _ in ids
        ]
        every = [change for ids, _, seconds, _, _, _ in calls if seconds for change in ids]
        return [
            *(min(every), max(every)),
            [storable(name, self.using) for name, _, _ in numbers],
            [in_bulk for _, in_bulk, _ in numbers],
            [is_replay for _, _, is_replay in numbers],
            f"{{{''.join(changes)[:-1]}}}",
            f"{{{''.join(called)[:-1]}}}",
            _array(times),
            _array(attempts) if attempts else None,
            _array(failed) if failed and any(failed) else None,
        ]

    def statement(self) -> tuple[str, list[Any]] | None:
        """Return the statement that appends the calls, and its parameters; None without a call."""
        found = [[self.consumer, self.shard, *self._values(calls)] for calls in self._rows if calls]
        return (_APPEND + ", ".join([_ROW] * len(found)), [*chain(*found)]) if found else None


def _elements(numbers: Iterable[int]) -> str:
    """Return the elements of an array as text, each with a comma behind it."""
    return "".join(f"{number}," for number in numbers)


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
