"""Takes over a log that was made elsewhere: restored, copied, or on a standby that was promoted.

``hc_signals_control`` stores the identity of server, database, table and timeline. Every new session compares it.

``restored``: the log comes from a dump. Transaction ids of the old server mean nothing here: stored snapshots would
call new changes done and old ones never begun. So old rows are compared with old positions. What was undelivered gets a
transaction id of this server, and positions start from a snapshot of this server.

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

from django.db import DatabaseError, connections, transaction

from hc_signals.log.rotation import lock_free_table
from hc_signals.log.rows import SHARD
from hc_signals.postgres.errors import refuses_row_changes
from hc_signals.postgres.locks import CLAIMS

PATIENCE = 5.0
"""Seconds for which a moment is sought in which nobody uses the log, where rows cannot be updated."""

RESTORED, FAILED_OVER = "restored", "failed_over"

MOVED = f"""
(
    SELECT CASE WHEN c.system_identifier <> (pg_control_system()).system_identifier OR c.database_oid <> d.oid
                  OR c.control_oid <> c.tableoid THEN '{RESTORED}'
                WHEN c.timeline <> public.hc_signals_timeline() THEN '{FAILED_OVER}' END
    FROM public.hc_signals_control c JOIN pg_database d ON d.datname = current_database()
)
"""
"""As an expression in SQL: see :func:`moved`."""

WORDS = {
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
_POSITIONS = """
CREATE TEMPORARY TABLE hc_signals_moved ON COMMIT DROP AS
SELECT * FROM public.hc_signals_newest_position
"""
# A change captured after the position was stored was made later or here: it is undelivered, whatever its transaction
# id says. One from before is of the old server, so the old snapshots tell. The rest gets the id of one long done.
_STAMPED = """
CASE WHEN EXISTS (
    SELECT 1 FROM pg_temp.hc_signals_moved p
    WHERE (p.shards = 1 OR {shard}) AND (
        c.captured_at > p.created_at
        OR NOT (pg_visible_in_snapshot(c.xid, p.seen)
                OR p.target IS NOT NULL AND pg_visible_in_snapshot(c.xid, p.target) AND c.id <= p.last_id))
) THEN pg_current_xact_id() ELSE '3'::xid8 END
"""
# A publication that covers the log but not its replica identity refuses UPDATE and DELETE, not TRUNCATE and INSERT.
# Used only then: it needs a moment in which nobody writes.
_REPLACE = """
CREATE TEMPORARY TABLE hc_signals_stamped ON COMMIT DROP AS SELECT * FROM public.hc_signals_change;
UPDATE pg_temp.hc_signals_stamped c SET xid = {stamped};
TRUNCATE public.hc_signals_change;
INSERT INTO public.hc_signals_change SELECT * FROM pg_temp.hc_signals_stamped;
"""
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
SELECT consumer, shard, shards, %(seen)s::pg_snapshot, 0, '1', lost, {_GAP.format(cause="restored", since="created_at")}
FROM pg_temp.hc_signals_moved
"""
# Object ids, snapshots and times of the old server mean nothing here. What somebody decided or is owed stays: a table
# without capture on purpose, rows that are due to be read again.
_FORGET_OLD_SERVER = """
WITH forgotten AS (
    DELETE FROM public.hc_signals_table WHERE uninstalled_at IS NULL AND reread_since IS NULL
)
UPDATE public.hc_signals_table SET relation = NULL, filenode = NULL, versions = NULL, seen = NULL
WHERE uninstalled_at IS NOT NULL OR reread_since IS NOT NULL
"""
# Workers stored these times on the old server. Everything committed before them is here as well.
_COMPLETE_UNTIL = """
least(clock_timestamp(), greatest(
    (SELECT max(created_at) FROM pg_temp.hc_signals_moved), (SELECT max(good_at) FROM public.hc_signals_table)))
"""
_FAILED_OVER_POSITIONS = f"""
INSERT INTO public.hc_signals_position (
    consumer, shard, shards, seen, floor_id, floor_xid, target, ceiling_id, next_floor_id, next_floor_xid, last_id,
    lost, gap
)
SELECT consumer, shard, shards, seen, floor_id, floor_xid, target, ceiling_id, next_floor_id, next_floor_xid, last_id,
    lost, {_GAP.format(cause="failed_over", since=_COMPLETE_UNTIL)}
FROM pg_temp.hc_signals_moved WHERE shard = 0
"""


@dataclass(frozen=True)
class Takeover:
    """What :func:`take_over` has done."""

    cause: str
    """RESTORED or FAILED_OVER; also that of the gap."""
    undelivered: int
    """Changes that were undelivered; 0 if FAILED_OVER, where positions say so as ever."""
    consumers: int


def moved(using: str) -> str | None:
    """Tell whether the log was made elsewhere: RESTORED, FAILED_OVER, or None if it was made here.

    On a server in recovery FAILED_OVER cannot be seen.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT {MOVED}")
        return cursor.fetchone()[0]  # type: ignore[no-any-return]


def take_over(using: str) -> Takeover | None:
    """Make the log go on here, for all consumers at once; None if it was made here, or another worker has done it.

    With several consumers a change of a restored log that one of them has had and another not is delivered to both: at
    least once.

    Raises:
        DatabaseError: under a publication that refuses to update the log, it is being written to at this moment
            (:func:`~hc_signals.postgres.errors.is_lock_timeout`). Try again.
    """
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_current_snapshot()::text")  # before this transaction has an id of its own
        seen = cursor.fetchone()[0]
        cursor.execute("SELECT DISTINCT consumer, shard FROM public.hc_signals_position ORDER BY 1, 2")
        for consumer, number in cursor.fetchall():
            cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (CLAIMS, f"{consumer} {number}"))
        cause, undelivered = moved(using), 0
        if cause is None:
            return None
        cursor.execute(_POSITIONS)
        if cause == RESTORED:
            _stamp(using)
            cursor.execute("SELECT count(*) FROM public.hc_signals_change WHERE xid = pg_current_xact_id()")
            undelivered = cursor.fetchone()[0]
            cursor.execute("DELETE FROM public.hc_signals_position")
            cursor.execute(_FORGET_OLD_SERVER)
        cursor.execute(_RESTORED_POSITIONS if cause == RESTORED else _FAILED_OVER_POSITIONS, {"seen": seen})
        cursor.execute(_TAKE_OVER)
        cursor.execute("SELECT count(DISTINCT consumer) FROM pg_temp.hc_signals_moved")
        return Takeover(cause, undelivered, cursor.fetchone()[0])


def _stamp(using: str) -> None:
    stamped = _STAMPED.format(shard=_shard_of_position())
    with connections[using].cursor() as cursor:
        try:
            with transaction.atomic(using=using):
                cursor.execute(f"UPDATE public.hc_signals_change c SET xid = {stamped}")
        except DatabaseError as error:
            if not refuses_row_changes(error):
                raise
            lock_free_table(using, "public.hc_signals_change", PATIENCE)
            cursor.execute(_REPLACE.format(stamped=stamped))


def _shard_of_position() -> str:
    """Return the condition of a shard, with the numbers of the position and with the table of each column."""
    condition = SHARD.removeprefix("AND ").replace("%%", "%")
    condition = condition.replace("%(shards)s", "p.shards").replace("%(shard)s", "p.shard")
    for column in ("table_name", "record_id", "record_key"):
        condition = condition.replace(column, f"c.{column}")
    return condition
