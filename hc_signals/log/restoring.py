"""Takes over a log that was made elsewhere: restored, copied, or on a standby that was promoted.

``hc_signals_control`` stores the identity of server, database, table and timeline. Every new session compares it.

``restored``: the log comes from a dump. Transaction ids of the old server mean nothing here: stored snapshots would
call new changes delivered and old ones never begun. So old rows are compared with old positions. Undelivered changes
get a transaction id of this server, and positions start from a snapshot of this server.

``failed_over``: only the timeline differs. The server was promoted, forked or recovered to a point in time. It has what
the old server had at one point of its write-ahead log, and nothing later. Stored positions stay right:

- A snapshot calls a transaction visible: it committed before the position was stored, so its commit is here too.
- A snapshot calls a transaction open, and its end is not here: PostgreSQL counts it as aborted.
- The next transaction id and the next change id are above all that a position names. Both are logged before they are
  used, and the position was stored later.

But ids that the old server drew after that point are drawn again, for other changes. And receivers may know of changes
that are not here. So the worker starts a new epoch and reports a gap. It reads nothing again: all changes that this
server has were captured, and the missing ones cannot be read here.
"""

from dataclasses import dataclass

from django.db import DatabaseError, transaction

from hc_signals.log.claims import lock_all
from hc_signals.log.position import LogShard
from hc_signals.log.rotation import lock_free_table
from hc_signals.log.schema import Cause
from hc_signals.postgres.errors import refuses_row_changes
from hc_signals.postgres.query import execute, row, rows

PATIENCE = 5.0
"""Seconds to retry LOCK ... NOWAIT on the log, if its rows cannot be updated."""

RESTORED, FAILED_OVER = Cause.RESTORED, Cause.FAILED_OVER

MOVED = f"""
(
    SELECT CASE WHEN c.system_identifier <> (pg_control_system()).system_identifier OR c.database_oid <> d.oid
                  OR c.control_oid <> c.tableoid THEN '{RESTORED}'
                WHEN c.timeline <> public.hc_signals_timeline() THEN '{FAILED_OVER}' END
    FROM public.hc_signals_control c JOIN pg_database d ON d.datname = current_database()
)
"""
"""SQL expression of what :func:`moved` returns."""

WORDS: dict[str, str] = {
    RESTORED: "This database was restored from another server",
    FAILED_OVER: "This server was promoted or recovered to a point in time",
}
"""What has happened, as the beginning of a sentence, by what :func:`moved` returns."""

_TAKE_OVER = """
UPDATE public.hc_signals_control c
SET epoch = public.hc_signals_next_epoch(c.epoch), system_identifier = (pg_control_system()).system_identifier,
    database_oid = d.oid, control_oid = c.tableoid, timeline = public.hc_signals_timeline()
FROM pg_database d WHERE d.datname = current_database()
"""
_SHARDS = "SELECT DISTINCT consumer, shard FROM public.hc_signals_position ORDER BY 1, 2"
_COPY_POSITIONS = """
CREATE TEMPORARY TABLE hc_signals_moved ON COMMIT DROP AS
SELECT * FROM public.hc_signals_newest_position
"""
# A change captured after the position was stored was made later, or on this server: it is undelivered, whatever its
# transaction id says. Otherwise the old snapshots decide. Delivered changes get an id that is long done.
_NEW_XID = """
CASE WHEN EXISTS (
    SELECT 1 FROM pg_temp.hc_signals_moved p
    WHERE public.hc_signals_shard_of(c.table_name, c.record_id, c.record_key, p.shards) = p.shard AND (
        c.captured_at > p.created_at
        OR NOT (pg_visible_in_snapshot(c.xid, p.seen)
                OR p.target IS NOT NULL AND pg_visible_in_snapshot(c.xid, p.target) AND c.id <= p.last_id))
) THEN pg_current_xact_id() ELSE '3'::xid8 END
"""
_STAMP = f"UPDATE public.hc_signals_change c SET xid = {_NEW_XID}"
# A publication that covers the log but not its replica identity refuses UPDATE and DELETE, not TRUNCATE and INSERT.
# Used only then: it needs a moment in which no other session uses the log.
_STAMP_COPY = f"""
CREATE TEMPORARY TABLE hc_signals_stamped ON COMMIT DROP AS SELECT * FROM public.hc_signals_change;
UPDATE pg_temp.hc_signals_stamped c SET xid = {_NEW_XID};
TRUNCATE public.hc_signals_change;
INSERT INTO public.hc_signals_change SELECT * FROM pg_temp.hc_signals_stamped;
"""
_COUNT_STAMPED = "SELECT count(*) FROM public.hc_signals_change WHERE xid = pg_current_xact_id()"
# A gap that is not reported yet becomes part of this one.
_GAP = """
CASE WHEN shard = 0 THEN json_build_object(
    'cause', '{cause}', 'until', clock_timestamp(),
    'since', CASE WHEN gap IS NULL THEN {since}
                  WHEN gap->>'since' IS NOT NULL THEN least({since}, (gap->>'since')::timestamptz) END
) END
"""
_RESTORED_POSITIONS = f"""
INSERT INTO public.hc_signals_position (consumer, shard, shards, seen, floor_id, floor_xid, lost, gap)
SELECT consumer, shard, shards, %s::pg_snapshot, 0, '1', lost, {_GAP.format(cause=RESTORED, since="created_at")}
FROM pg_temp.hc_signals_moved
"""
# Object ids, snapshots and times of the old server mean nothing here. Two things stay: a table that was uninstalled on
# purpose, and rows that are due to be read again.
_FORGET_OLD_SERVER = """
WITH forgotten AS (
    DELETE FROM public.hc_signals_table WHERE uninstalled_at IS NULL AND reread_since IS NULL
)
UPDATE public.hc_signals_table SET relation = NULL, filenode = NULL, versions = NULL, seen = NULL
WHERE uninstalled_at IS NOT NULL OR reread_since IS NOT NULL
"""
# Workers stored these times on the old server. All that was committed before them is here as well.
_COMPLETE_UNTIL = """
least(clock_timestamp(), greatest(
    (SELECT max(created_at) FROM pg_temp.hc_signals_moved), (SELECT max(good_at) FROM public.hc_signals_table)))
"""
_KEPT = """
    consumer, shard, shards, seen, floor_id, floor_xid, target, ceiling_id, next_floor_id, next_floor_xid, last_id, lost
"""
_FAILED_OVER_POSITIONS = f"""
INSERT INTO public.hc_signals_position ({_KEPT}, gap)
SELECT {_KEPT}, {_GAP.format(cause=FAILED_OVER, since=_COMPLETE_UNTIL)}
FROM pg_temp.hc_signals_moved WHERE shard = 0
"""


@dataclass(frozen=True)
class Takeover:
    """The result of :func:`take_over`."""

    cause: str
    """RESTORED or FAILED_OVER; the gap has the same cause."""
    undelivered: int
    """Undelivered changes; 0 if FAILED_OVER, because positions stay right."""
    consumers: int


def moved(using: str) -> str | None:
    """Return RESTORED or FAILED_OVER if the log was made elsewhere, None if it was made here.

    A server in recovery does not show FAILED_OVER.
    """
    return row(using, f"SELECT {MOVED}")[0]  # type: ignore[no-any-return]


def take_over(using: str) -> Takeover | None:
    """Make the log go on here, for all consumers at once; None if it was made here, or another worker was quicker.

    With several consumers a change of a restored log may be delivered to a consumer again that had it already: at least
    once.

    Raises:
        DatabaseError: a publication refuses updates of the log, and the log is busy
            (:func:`~hc_signals.postgres.errors.is_lock_timeout`). Try again.
    """
    with transaction.atomic(using=using):
        (seen,) = row(using, "SELECT pg_current_snapshot()::text")  # before this transaction has an id of its own
        lock_all(LogShard(using, consumer, number) for consumer, number in rows(using, _SHARDS))
        cause, undelivered = moved(using), 0
        if cause is None:
            return None
        execute(using, _COPY_POSITIONS)
        if cause == RESTORED:
            _stamp(using)
            (undelivered,) = row(using, _COUNT_STAMPED)
            execute(using, "DELETE FROM public.hc_signals_position")
            execute(using, _FORGET_OLD_SERVER)
            execute(using, _RESTORED_POSITIONS, [seen])
        else:
            execute(using, _FAILED_OVER_POSITIONS)
        execute(using, _TAKE_OVER)
        (consumers,) = row(using, "SELECT count(DISTINCT consumer) FROM pg_temp.hc_signals_moved")
        return Takeover(cause, undelivered, consumers)


def _stamp(using: str) -> None:
    """Give undelivered changes a transaction id of this server, and delivered ones an id that is long done."""
    try:
        with transaction.atomic(using=using):
            execute(using, _STAMP)
    except DatabaseError as error:
        if not refuses_row_changes(error):
            raise
        lock_free_table(using, "public.hc_signals_change", PATIENCE)
        execute(using, _STAMP_COPY)
