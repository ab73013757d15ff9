"""The writers' side: Writer of doorbell.pml and gap.pml. It is known before the workers' steps are played."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from specs.follows.record import Log, Snapshot, Span, Spans, Step

_LOCKS = ("bell", "untold")


@dataclass
class _Transaction:
    """A writer's transaction while it is open."""

    xid: int
    last: int = 0
    """The end of its last statement: its locks are known to be held until then."""
    sent: int = 0
    """When its end was sent."""
    since: dict[str, int] = field(default_factory=dict)
    """By lock that it shares: since when."""
    rung: list[int] = field(default_factory=list)
    """The begins of its statements that have notified."""
    shared: list[Span] = field(default_factory=list)
    """Its statements that have begun to share the bell's lock."""


class Writers:
    """When writers shared locks, notified and committed."""

    def __init__(self, steps: Iterable[Step], log: Log) -> None:
        self._log = log
        self._spans: dict[str, list[Span]] = {name: [] for name in _LOCKS}
        self._rings: list[tuple[int, int]] = []
        self.shared: list[Span] = []
        """Statements that have begun to share the bell's lock."""
        self._seen_at: dict[int, int] = {}
        """By xid: when the writer's COMMIT had been answered."""
        self._open: dict[int, _Transaction] = {}
        for step in steps:
            if step.get("xid"):
                self._play(step, self._open.setdefault(int(step["xid"]), _Transaction(int(step["xid"]))))
        self.bell, self.untold = Spans(self._spans["bell"]), Spans(self._spans["untold"])
        """When transactions shared these locks."""
        self._rings.sort()
        self._rings_seen = [seen for seen, _ in self._rings]
        self._rings_sent = [*accumulate((sent for _, sent in self._rings), max)]
        self.commits = sorted((at, xid) for xid, at in self._seen_at.items())
        """When COMMITs were answered, with their transactions."""
        self._commits_at = [at for at, _ in self.commits]
        self._highest = [*accumulate((xid for _, xid in self.commits), max)]

    def _play(self, step: Step, own: _Transaction) -> None:
        if step["step"] == "end":
            own.sent = step["t"]
        elif step["step"] == "end.seen":
            self._end(step, self._open.pop(own.xid))
        else:
            self._write(step, own)

    def _write(self, step: Step, own: _Transaction) -> None:
        """``hc_signals_ring()`` of doorbell.pml, or ROLLBACK TO SAVEPOINT, which gives back what was taken since."""
        end = step["t1"] if "t1" in step else step["t"]
        if step["step"] == "back":
            own.rung = [at for at in own.rung if at < step["t0"]]
            own.shared = [span for span in own.shared if span.begin < step["t0"]]
        elif not step["bell"]:
            own.rung.append(step["t0"])
        elif "bell" not in own.since:
            own.shared.append(Span(step["t0"], end, f"transaction {own.xid}"))
        for name in _LOCKS:
            if step[name]:
                own.since.setdefault(name, end)
            else:
                self._give_back(own, name, own.last)
        own.last = step["t"]

    def _give_back(self, own: _Transaction, name: str, until: int) -> None:
        if name in own.since:
            self._spans[name].append(Span(own.since.pop(name), until, f"transaction {own.xid}"))

    def _end(self, step: Step, own: _Transaction) -> None:
        for name in _LOCKS:
            # If a statement has failed, the server gives the locks back at once, and not with the ROLLBACK.
            self._give_back(own, name, own.sent if step["how"] in ("committed", "undone") else own.last)
        self.shared += own.shared
        if step["how"] == "committed":
            if own.xid in self._log.of_xid:
                self._seen_at[own.xid] = step["t"]
            if own.rung:
                self._rings.append((step["t"], own.sent))

    def last_ring(self, before: int) -> int:
        """Return when the last COMMIT with a notification was sent that had been answered before this time."""
        index = bisect_left(self._rings_seen, before)
        return self._rings_sent[index - 1] if index else 0

    def missing_in(self, target: Snapshot, at: int) -> int | None:
        """Return a transaction that had committed before this time, and that the snapshot does not show."""
        index = bisect_left(self._commits_at, at)
        if index and self._highest[index - 1] >= target.xmax:
            return next(xid for _, xid in self.commits[:index] if xid >= target.xmax)
        return next((xid for xid in target.xip if self._seen_at.get(xid, at) < at), None)
