"""Reads changes as they become visible, for people: it moves no position, writes nothing, and needs no consumer.

It reads the difference of two snapshots as a worker does (:mod:`hc_signals.log.window`), but the caller keeps the
:class:`Place`, in a process or as a token in a page. The database role needs SELECT on ``hc_signals_change``,
``hc_signals_log`` and ``hc_signals_control``. A place is right in any transaction under READ COMMITTED, and on a
follower.

PostgreSQL's own snapshot is wrong in two cases. A follower's has no list of open transactions, so that all seem
finished. And the list has never the reader's own transaction. Then the snapshot is made from the status of each
transaction. The status is read before the rows, so a transaction that the snapshot calls finished is visible to the
statement that reads the rows.
"""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from django.core import signing

from hc_signals.log.change import Change, number_of
from hc_signals.log.figures import id_at
from hc_signals.log.images import stored_images
from hc_signals.log.position import LogShard, Position
from hc_signals.log.schema import Cause
from hc_signals.log.window import read_page
from hc_signals.postgres.moments import aware_row
from hc_signals.postgres.query import row

PAGE = 2_000
"""Most changes that one read passes, whether they are chosen or not."""
SEARCHED = 200_000
"""Most ids in which the newest chosen changes are searched: the log has no index of records or tables."""
_SALT = "hc_signals.log.tail"

# Between two reads only the transactions that were open at `seen` can end, and new ones: no other status is read. All
# transactions below the snapshot's xmin have ended. PostgreSQL 14 has no min(xid8).
_SNAPSHOT_BY_STATUS = """
WITH now AS (SELECT pg_current_snapshot() AS is), seen AS (
    SELECT coalesce(%(seen)s::pg_snapshot, format('%%1$s:%%1$s:', pg_snapshot_xmin(now.is))::pg_snapshot) AS was
    FROM now
), open (xid) AS (
    SELECT candidate FROM now, seen, LATERAL (
        SELECT pg_snapshot_xip(seen.was)
        UNION ALL
        SELECT n::text::xid8 FROM generate_series(
            greatest(pg_snapshot_xmax(seen.was), pg_snapshot_xmin(now.is))::text::bigint,
            pg_snapshot_xmax(now.is)::text::bigint - 1) n
    ) candidates (candidate)
    WHERE candidate >= pg_snapshot_xmin(now.is) AND candidate < pg_snapshot_xmax(now.is)
      AND pg_xact_status(candidate) = 'in progress'
)
SELECT format('%%s:%%s:%%s', coalesce((SELECT xid FROM open ORDER BY xid LIMIT 1), pg_snapshot_xmax(now.is)),
              pg_snapshot_xmax(now.is), (SELECT string_agg(xid::text, ',' ORDER BY xid) FROM open))
FROM now
"""
_NOW = """
SELECT epoch, emptied_id,
    concat_ws('-', (pg_control_system()).system_identifier,
              (SELECT oid FROM pg_database WHERE datname = current_database()), tableoid),
    public.hc_signals_timeline(),
    CASE WHEN has_sequence_privilege('public.hc_signals_lost_seq', 'SELECT')
         THEN pg_sequence_last_value('public.hc_signals_lost_seq') END,
    CASE WHEN NOT pg_is_in_recovery() AND pg_current_xact_id_if_assigned() IS NULL THEN pg_current_snapshot()::text END
FROM public.hc_signals_control
"""
_ANY = """
SELECT EXISTS (
    SELECT FROM (SELECT xid FROM public.hc_signals_change WHERE xid >= pg_snapshot_xmax(%(seen)s::pg_snapshot)
                 ORDER BY xid, id LIMIT 1) begun
) OR EXISTS (
    SELECT FROM pg_snapshot_xip(%(seen)s::pg_snapshot) open (x), LATERAL (
        SELECT FROM public.hc_signals_change WHERE xid BETWEEN open.x AND open.x ORDER BY xid, id LIMIT 1
    ) late
)
"""
# From one transaction to the next by the index of (xid, id); its first entry of each is the lowest id. A range of xids
# would need an estimate of its size, which is wrong for the newest ones.
_SINCE = """
WITH RECURSIVE begun (xid, id) AS (
    (SELECT xid, id FROM public.hc_signals_change WHERE xid >= pg_snapshot_xmax(%(seen)s::pg_snapshot)
     ORDER BY xid, id LIMIT 1)
    UNION ALL
    SELECT next.xid, next.id FROM begun, LATERAL (
        SELECT c.xid, c.id FROM public.hc_signals_change c WHERE c.xid > begun.xid ORDER BY c.xid, c.id LIMIT 1
    ) next
), late (id) AS (
    SELECT first.id FROM pg_snapshot_xip(%(seen)s::pg_snapshot) open (x), LATERAL (
        SELECT id FROM public.hc_signals_change WHERE xid BETWEEN open.x AND open.x ORDER BY xid, id LIMIT 1
    ) first
)
SELECT CASE WHEN count(*) < %(most)s THEN min(id) WHEN %(most)s IS NULL THEN min(id) ELSE 1 END,
       coalesce((SELECT max(id) FROM public.hc_signals_change), 0)
FROM ((SELECT id FROM begun LIMIT %(most)s) UNION ALL SELECT id FROM late) first
"""
_EMPTIED = "SELECT emptied_id, emptied_at FROM public.hc_signals_control"


@dataclass(frozen=True)
class Place:
    """How far a reader of the log is. Immutable; each read returns the next one."""

    server: str
    """Identity of server, database and log. With another one, snapshots mean nothing."""
    timeline: int | None
    """Of the server; None on a follower."""
    epoch: str
    seen: str
    """Snapshot: all changes visible in it were read."""
    last_id: int = 0
    """All changes up to this id that could be read were read; in an open window, those of the window."""
    emptied_id: int = 0
    """The newest change that was emptied from the log, as far as the reader knows it."""
    lost: int | None = None
    """Number of uncaptured statements; None: the role may not read it."""
    target: str | None = None
    """Snapshot of the open window; None: no window is open."""
    ceiling_id: int = 0
    """The highest id that can be visible in ``target``."""

    def token(self) -> str:
        """Return the place as signed text, for :meth:`of_token`."""
        return signing.dumps(asdict(self), salt=_SALT, compress=True)

    @classmethod
    def of_token(cls, token: str) -> "Place":
        """Return the place of a token; raise ValueError if this project has not made it."""
        try:
            return cls(**signing.loads(token, salt=_SALT))
        except (signing.BadSignature, TypeError) as error:
            raise ValueError("This is no place in the log; begin again without it.") from error


@dataclass(frozen=True)
class Chosen:
    """Which changes to read; by default all. A row of a whole table, such as a gap, has neither record nor fields."""

    tables: frozenset[str] = frozenset()
    """As the log names them; empty: all."""
    operations: frozenset[str] = frozenset()
    """As the log has them; empty: all."""
    records: frozenset[str] = frozenset()
    """Sfids, of 15 or 18 characters, or keys of rows; empty: all."""
    columns: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By table: one of these columns must have changed; in a created or deleted record all have. Empty: any."""

    def __contains__(self, change: Change) -> bool:
        if self.tables and change.table_name not in self.tables:
            return False
        if self.operations and change.operation not in self.operations:
            return False
        return change.record is None or (self._has_record(change) and self._has_columns(change))

    def _has_record(self, change: Change) -> bool:
        sfid = change.record_id or ""
        return not self.records or not self.records.isdisjoint((sfid, sfid[:15], change.record_key))

    def _has_columns(self, change: Change) -> bool:
        columns = self.columns.get(change.table_name, frozenset())
        changed = columns if change.operation != "UPDATE" else columns.intersection(change.changed or ())
        return not self.columns or bool(changed)


class TailChange(NamedTuple):
    """A change with its images, by column, as JSON has the values."""

    change: Change
    old: Mapping[str, Any] | None
    """Before the change. The old image of an update may have the changed columns only."""
    new: Mapping[str, Any] | None
    """After the change; None for a deleted record."""


class Reading(NamedTuple):
    """What one read has found."""

    changes: list[TailChange]
    """The chosen ones, in order."""
    place: Place
    """Where the next read begins."""
    more: bool = False
    """True if the next read may find more at once."""
    skipped: int = 0
    """Most changes that were left out, because there were too many; 0 without ``may_skip``."""
    missed: tuple[Cause, ...] = ()
    """Why changes may be missing before this read: ``EMPTIED`` from the log before they were read; ``CAPTURE_FAILED``,
    statements were not captured; ``RESTORED``, ``FAILED_OVER``, another server answers, and the reader begins at the
    present again."""


EVERYTHING = Chosen()


def start(using: str) -> Place:
    """Return the present as a place: everything that is visible was read.

    Raises:
        DatabaseError: the log does not exist, or the role may not read it.
    """
    present, _ = _now(using, None)
    _, newest = row(using, _SINCE, {"seen": present.seen, "most": None})
    return replace(present, last_id=newest)


def _before(present: Place, first: int) -> Place:
    """Return the place before the change with the id ``first``; nothing was read of what is visible now."""
    ceiling = present.last_id
    return replace(present, seen="1:1:", target=present.seen, ceiling_id=ceiling, last_id=first - 1, emptied_id=0)


def start_at(using: str, bound: datetime | str) -> Place:
    """Return the place before the first change that was captured at a time or later, or that has this replay id.

    Raises:
        ReplayError: the replay id is of another database, or ahead of the log.
        DatabaseError: the log does not exist, or the role may not read it.
    """
    present = start(using)
    if isinstance(bound, str):
        return _before(present, number_of(bound, present.epoch, max(present.last_id, present.emptied_id)))
    first = id_at(using, bound) or present.last_id + 1
    emptied_id, emptied_at = aware_row(row(using, _EMPTIED))
    # One of the emptied changes is among the wanted ones: the first read says so.
    return _before(present, min(first, emptied_id) if emptied_at and emptied_at >= bound else first)


def start_with_newest(using: str, number: int, chosen: Chosen) -> Place:
    """Return the place before the newest ``number`` of the chosen changes, which are searched in SEARCHED ids."""
    present = start(using)
    for width in (PAGE, 10 * PAGE, SEARCHED):
        window = place = _before(present, max(1, present.last_id - width + 1))
        newest: deque[int] = deque(maxlen=number)
        while place.target is not None:
            passed, place = _pass(using, place)
            newest.extend(change.id for change in passed if change in chosen)
        if len(newest) == number or window.last_id == 0:
            break
    return replace(window, last_id=newest[0] - 1 if newest else window.ceiling_id)


def read(using: str, place: Place, chosen: Chosen = EVERYTHING, limit: int = 500, *, may_skip: bool = False) -> Reading:
    """Return changes that have become visible since ``place``, in the order of the log.

    Args:
        limit: most changes.
        may_skip: if there are more, return the newest ones and count the rest as skipped.

    Raises:
        DatabaseError: the log does not exist, or the role may not read it.
    """
    now, missed = _now(using, place)
    if (now.server, now.timeline) != (place.server, place.timeline):
        return Reading([], start(using), missed=missed)
    place = replace(place, epoch=now.epoch, lost=now.lost)
    window = _opened(using, place, now.seen, most=PAGE if may_skip else None)
    if window.target is None:
        reading = Reading([], replace(window, emptied_id=now.emptied_id))
    elif may_skip:
        reading = _newest(using, window, chosen, limit, place.last_id)
    else:
        reading = _next(using, window, chosen, limit)
    if reading.place.emptied_id > max(place.last_id, place.emptied_id):
        missed += (Cause.EMPTIED,)
    return reading._replace(missed=missed)


def _opened(using: str, place: Place, target: str, most: int | None) -> Place:
    """Return the place with an open window, or without one if nothing has become visible.

    If that are more than ``most`` transactions, the window begins at the beginning of the log.
    """
    if place.target is not None or target == place.seen:
        return place
    if not row(using, _ANY, {"seen": place.seen})[0]:
        return replace(place, seen=target)
    first, newest = row(using, _SINCE, {"seen": place.seen, "most": most})
    if first is None:
        return replace(place, seen=target, last_id=max(place.last_id, newest))
    return replace(place, target=target, ceiling_id=newest, last_id=first - 1)


def _next(using: str, place: Place, chosen: Chosen, limit: int) -> Reading:
    passed, after = _pass(using, place)
    found = [change for change in passed if change in chosen]
    if len(found) > limit:
        found = found[:limit]
        after = replace(place, last_id=found[-1].id, emptied_id=after.emptied_id)
    return Reading(_with_images(using, found), after, more=after.target is not None)


def _newest(using: str, place: Place, chosen: Chosen, limit: int, last_id: int) -> Reading:
    """Read the rest of the open window; with a ``place`` before ``last_id``, some of it was read before."""
    begin, skipped = place.ceiling_id - PAGE, 0
    if begin > place.last_id:
        place, skipped = replace(place, last_id=begin), max(1, begin - max(place.last_id, last_id))
    found: deque[Change] = deque(maxlen=limit)
    while place.target is not None:
        passed, place = _pass(using, place)
        those = [change for change in passed if change in chosen]
        skipped += max(0, len(found) + len(those) - limit)
        found.extend(those)
    return Reading(_with_images(using, list(found)), place, skipped=skipped)


def _pass(using: str, place: Place) -> tuple[list[Change], Place]:
    """Return the next page of the open window, and the place behind it; the last page closes the window."""
    window = Position(place.seen, target=place.target, ceiling_id=place.ceiling_id, last_id=place.last_id)
    page, more = read_page(LogShard(using, consumer=""), window, PAGE)
    # Now, after the rows were read: TRUNCATE also hides rows from statements that began before it.
    emptied_id, _ = row(using, _EMPTIED)
    place = replace(place, emptied_id=emptied_id)
    if more:
        return page, replace(place, last_id=page[-1].id)
    return page, replace(place, seen=place.target or place.seen, target=None, last_id=place.ceiling_id)


def _now(using: str, place: Place | None) -> tuple[Place, tuple[Cause, ...]]:
    """Return the present as a place without ids, and why changes may be missing between ``place`` and it."""
    seen = None if place is None else place.target or place.seen
    epoch, emptied_id, server, timeline, lost, target = row(using, _NOW)
    if target is None:
        (target,) = row(using, _SNAPSHOT_BY_STATUS, {"seen": seen})
    now = Place(server, timeline, epoch, target, emptied_id=emptied_id, lost=lost)
    if place is None:
        return now, ()
    if now.server != place.server:
        return now, (Cause.RESTORED,)
    if (now.timeline, now.epoch) != (place.timeline, place.epoch):
        return now, (Cause.FAILED_OVER,)
    return now, (Cause.CAPTURE_FAILED,) if (now.lost or 0) > (place.lost or 0) else ()


def _with_images(using: str, changes: list[Change]) -> list[TailChange]:
    images = stored_images(using, [change.id for change in changes])
    decoded = {number: [text and json.loads(text) for text in both] for number, both in images.items()}
    return [TailChange(change, *decoded.get(change.id, (None, None))) for change in changes]
