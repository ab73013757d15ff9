"""A database that was restored into another server, or copied: its transaction ids start again, the log's do not.

Stored snapshots would call new changes done and old ones never begun. So the identity of server and database stands in
``hc_signals_control``; where it differs, what was undelivered is found by comparing old with old, stamped with a
transaction id of this server, and positions start from a snapshot of this server.
"""

from django.db import connections, transaction

from hc_signals.locks import CLAIMS
from hc_signals.log.rows import SHARD

IS_RESTORED = """
EXISTS (
    SELECT 1 FROM public.hc_signals_control c JOIN pg_database d ON d.datname = current_database()
    WHERE c.system_identifier <> (pg_control_system()).system_identifier OR c.database_oid <> d.oid
)
"""
"""As a condition in SQL: see :func:`is_restored`."""
_TAKE_OVER = """
UPDATE public.hc_signals_control c
SET epoch = left(md5(gen_random_uuid()::text), 8), system_identifier = (pg_control_system()).system_identifier,
    database_oid = d.oid
FROM pg_database d WHERE d.datname = current_database()
"""
_POSITIONS = """
CREATE TEMPORARY TABLE hc_signals_restored ON COMMIT DROP AS
SELECT * FROM public.hc_signals_newest_position
"""
# A change captured after the position was stored was made later or here: it is undelivered, whatever its transaction
# id says. One from before is of the old server, so the old snapshots tell. The rest gets the id of one long done.
_STAMP = """
UPDATE public.hc_signals_change c SET xid = CASE WHEN EXISTS (
    SELECT 1 FROM pg_temp.hc_signals_restored p
    WHERE (p.shards = 1 OR {shard}) AND (
        c.captured_at > p.created_at
        OR NOT (pg_visible_in_snapshot(c.xid, p.seen)
                OR p.target IS NOT NULL AND pg_visible_in_snapshot(c.xid, p.target) AND c.id <= p.last_id))
) THEN pg_current_xact_id() ELSE '3'::xid8 END
"""
_NEW_POSITIONS = """
INSERT INTO public.hc_signals_position (consumer, shard, shards, seen, floor_id, floor_xid, lost, gap)
SELECT consumer, shard, shards, %s::pg_snapshot, 0, '1', lost,
    CASE WHEN shard = 0 THEN json_build_object('cause', 'restored', 'since', created_at) END
FROM pg_temp.hc_signals_restored
"""


def is_restored(using: str) -> bool:
    """Tell whether the log was made on another server, or in another database of this one."""
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT {IS_RESTORED}")
        return bool(cursor.fetchone()[0])


def rebase(using: str) -> tuple[int, int]:
    """Make log and positions fit this server, for all consumers at once.

    With several consumers a change that one of them has had and another not is delivered to both: at least once.

    Returns:
        how many changes are undelivered, and how many consumers there are.
    """
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_current_snapshot()::text")  # before this transaction has an id of its own
        seen = cursor.fetchone()[0]
        cursor.execute("SELECT DISTINCT consumer, shard FROM public.hc_signals_position ORDER BY 1, 2")
        for consumer, number in cursor.fetchall():
            cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (CLAIMS, f"{consumer} {number}"))
        cursor.execute(f"SELECT {IS_RESTORED}")
        if not cursor.fetchone()[0]:  # another worker has done it meanwhile
            return 0, 0
        cursor.execute(_POSITIONS)
        cursor.execute(_STAMP.format(shard=_shard_of_position()))
        cursor.execute("SELECT count(*) FROM public.hc_signals_change WHERE xid = pg_current_xact_id()")
        undelivered = cursor.fetchone()[0]
        cursor.execute("DELETE FROM public.hc_signals_position")
        cursor.execute(_NEW_POSITIONS, [seen])
        cursor.execute(_TAKE_OVER)
        cursor.execute("DELETE FROM public.hc_signals_table")  # object ids and snapshots of the old server
        cursor.execute("SELECT count(DISTINCT consumer) FROM pg_temp.hc_signals_restored")
        return undelivered, cursor.fetchone()[0]


def _shard_of_position() -> str:
    """Return the condition of a shard, with the numbers of the position and with the table of each column."""
    condition = SHARD.removeprefix("AND ").replace("%%", "%")
    condition = condition.replace("%(shards)s", "p.shards").replace("%(shard)s", "p.shard")
    for column in ("table_name", "record_id", "record_key"):
        condition = condition.replace(column, f"c.{column}")
    return condition
