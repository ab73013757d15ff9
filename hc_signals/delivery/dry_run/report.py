"""The figures of a dry run, by receiver: calls, failures, written rows, queries, seconds. As JSON for another run."""

import statistics
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hc_signals.delivery.project_code import in_words, message_of, trace_of
from hc_signals.log.change import Change
from hc_signals.postgres.written_rows import Written

FORMAT = 1
"""Version of the JSON; a file of another version is refused."""


@dataclass
class Failure:
    """The failed calls of one receiver with the same error."""

    error: str
    """Class and place, or the server's words; no value of a record."""
    model: str
    """Of the first failed call, as are the next four."""
    record: str
    replay_id: str
    message: str
    """First line of the error's message, which may quote values of the record."""
    trace: str
    count: int = 0


@dataclass
class ReceiverReport:
    """The calls of one receiver."""

    calls: int = 0
    filtered: int = 0
    """Changes that the filters of ``@on_change`` kept from the receiver."""
    unasked: int = 0
    """Calls in which the receiver did not ask whether it is a dry run."""
    gets_event: bool = True
    failures: dict[str, Failure] = field(default_factory=dict)
    """By :func:`~hc_signals.delivery.project_code.in_words` without line numbers, which other code has elsewhere."""
    written: dict[str, Written] = field(default_factory=dict)
    """Rows by table, of the calls that did not fail."""
    queries: int = 0
    most_queries: int = 0
    seconds: "array[float]" = field(default_factory=lambda: array("d"))

    @property
    def failed(self) -> int:
        """How many calls have failed."""
        return sum(failure.count for failure in self.failures.values())

    def note_call(self, *, asked: bool, gets_event: bool, queries: int, seconds: float) -> None:
        """Count a call that was made."""
        self.calls += 1
        self.unasked += not asked
        self.gets_event = self.gets_event and gets_event
        self.queries += queries
        self.most_queries = max(self.most_queries, queries)
        self.seconds.append(seconds)

    def note_written(self, written: Mapping[str, Written]) -> None:
        """Count the rows that a call wrote."""
        for table, counts in written.items():
            self.written[table] = self.written.get(table, Written()).plus(counts)

    def note_failure(self, change: Change, model: str, error: BaseException) -> None:
        """Count a failed call."""
        key = in_words(error, has_lines=False)
        if key not in self.failures:
            about = (model, change.record or "", change.replay_id)
            self.failures[key] = Failure(in_words(error), *about, message_of(error), trace_of(error))
        self.failures[key].count += 1

    def as_json(self, *, values: bool) -> dict[str, Any]:
        """Return the figures for a file; ``values``: with the messages of errors."""
        kept = ("error", "count", "model", "record", "replay_id", *(["message"] if values else []))
        seconds = sorted(self.seconds)
        return {
            "calls": self.calls,
            "filtered": self.filtered,
            "unasked": self.unasked,
            "gets_event": self.gets_event,
            "failures": {key: {name: getattr(each, name) for name in kept} for key, each in self.failures.items()},
            "written": {table: counts._asdict() for table, counts in sorted(self.written.items())},
            "queries": self.queries,
            "most_queries": self.most_queries,
            "seconds": {
                "total": sum(seconds),
                "p50": statistics.median(seconds) if seconds else 0.0,
                "max": max(seconds, default=0.0),
            },
        }


@dataclass
class Report:
    """A dry run so far."""

    receivers: dict[str, ReceiverReport]
    """By name; also those that were not called."""
    changes: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    first: str = ""
    """Replay id of the first change."""
    last: str = ""
    unreachable: dict[str, str] = field(default_factory=dict)
    """Database aliases that could not be reached, each with the reason: a write to one would not be rolled back."""
    counts_writes: bool = True
    """False: the server's setting track_counts is off, so no row was counted."""

    def of(self, receiver: str) -> ReceiverReport:
        """Return the report of one receiver."""
        return self.receivers.setdefault(receiver, ReceiverReport())

    def as_json(self, *, values: bool = False) -> dict[str, Any]:
        """Return the report for a file; ``values``: with the messages of errors, which may quote values of records."""
        return {
            "hc_signals_dry_run": FORMAT,
            "changes": self.changes,
            "by_type": dict(sorted(self.by_type.items())),
            "first": self.first,
            "last": self.last,
            "counts_writes": self.counts_writes,
            "unreachable": self.unreachable,
            "receivers": {name: each.as_json(values=values) for name, each in sorted(self.receivers.items())},
        }
