"""A record: the steps of all processes, the log as it was at the end, snapshots, and spans of time."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

Step = dict[str, Any]
"""One line: ``t``, ``step``, ``thread`` and facts, and ``line`` and ``process``, by which a refusal names it."""


class Refused(Exception):
    """A step that a model does not allow.

    Args:
        rule: model, promise and step of the model, as in ``reader: nothing_lost: find_next_row``.
        fact: what was found, and what the rule expects.
    """

    def __init__(self, rule: str, fact: str) -> None:
        super().__init__(f"{rule}: {fact}")
        self.rule = rule


class Snapshot(NamedTuple):
    """``pg_snapshot``: see specs/postgres.pml."""

    xmax: int
    xip: frozenset[int]

    def shows(self, xid: int) -> bool:
        """Return True if the transaction had ended: ``ended_in()`` of the model."""
        return xid < self.xmax and xid not in self.xip


@cache
def snapshot(text: str) -> Snapshot:
    """Return the snapshot in PostgreSQL's notation."""
    _, xmax, xip = text.split(":")
    return Snapshot(int(xmax), frozenset(int(xid) for xid in xip.split(",") if xid))


class Log:
    """The committed changes, as the server had them at the end: ``change[]`` of reader.pml."""

    def __init__(self, rows: Iterable[tuple[int, int, int]]) -> None:
        self.of_xid: dict[int, list[int]] = {}
        self.record: dict[int, int] = {}
        """By id: the hash of the record. Its remainder is the number of the shard."""
        for number, xid, record in rows:
            self.of_xid.setdefault(xid, []).append(number)
            self.record[number] = record
        self._xids = sorted(self.of_xid)
        lowest = accumulate((self.of_xid[xid][0] for xid in reversed(self._xids)), min)
        self._lowest = [*reversed([*lowest])]
        """By the index in ``_xids``: the lowest id of this transaction and all later ones."""

    def shard(self, number: int, shards: int) -> int:
        """Return the shard of a change."""
        return self.record[number] % shards

    def open_at(self, seen: Snapshot, below: int) -> list[int]:
        """Return the transactions with changes below the xid ``below`` that the snapshot does not show."""
        later = self._xids[bisect_left(self._xids, seen.xmax) : bisect_left(self._xids, below)]
        return [*(xid for xid in sorted(seen.xip) if xid in self.of_xid), *later]

    def between(self, seen: Snapshot, target: Snapshot) -> list[int]:
        """Return the ids of the window: visible in ``target`` and not in ``seen``, in order."""
        xids = self.open_at(seen, target.xmax)
        return sorted(number for xid in xids if target.shows(xid) for number in self.of_xid[xid])

    def lowest_from(self, xid: int) -> int | None:
        """Return the lowest id of the transactions from this one on."""
        index = bisect_left(self._xids, xid)
        return self._lowest[index] if index < len(self._xids) else None


class Span(NamedTuple):
    """From when until when a lock is known to be held, or a notification is on its way."""

    begin: int
    end: int
    what: str


class Spans:
    """Spans in order, to find one that contains another or lies within it."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = sorted(spans)
        self._begins = [span.begin for span in self._spans]
        self._ends = [*accumulate((span.end for span in self._spans), max)]

    def around(self, begin: int, end: int) -> Span | None:
        """Return a span that lasts from before ``begin`` until after ``end``."""
        for index in range(bisect_right(self._begins, begin) - 1, -1, -1):
            if self._ends[index] < end:
                return None
            if self._spans[index].end >= end:
                return self._spans[index]
        return None


def steps_in(file: Path) -> Iterator[Step]:
    """Yield the steps of one process."""
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith("\n"):  # a killed process may have written half of one
                yield {**json.loads(line), "line": number, "process": file.stem}


def log_in(file: Path) -> Log:
    """Return the log."""
    with file.open(encoding="utf-8") as lines:
        return Log((int(number), int(xid), int(record)) for number, xid, record in map(str.split, lines))
