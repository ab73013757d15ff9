"""Finds the receiver calls that end the worker's process: a crash in C code, too much memory, ``os._exit()``.

No code can catch such a call, so the next process must find it. To mark every call in the database would slow down
every receiver, so calls are marked after a process has died: its row is left in ``hc_signals_run``. The next process
then marks each call before it makes it. It stops when it is past the changes that the dead process was delivering. A
call that has ended the process LIMIT times is not made again.
"""

import uuid
from contextlib import closing, suppress
from typing import Any

from django.db import DatabaseError, InterfaceError, connections

from hc_signals.delivery.calls import Call, CallKey
from hc_signals.exceptions import ProcessEndedError
from hc_signals.log.position import LogShard
from hc_signals.postgres.locks import RUNS
from hc_signals.postgres.own_connections import another_connection
from hc_signals.postgres.query import execute, row

LIMIT = 3
"""How many times a call may end the process; after that it is not made again."""

RUN = uuid.uuid4().hex
"""Name of this process's run."""

_BEGIN = """
INSERT INTO public.hc_signals_run (run, consumer, is_locked) VALUES (%s, %s, %s) ON CONFLICT (run) DO NOTHING
"""
# One process counts each dead run. A run without a lock may be alive: it counts, but its row stays for a day.
_TAKE_DEAD = """
WITH dead AS (
    SELECT r.run, r.is_locked OR r.began_at < clock_timestamp() - interval '1 day' AS is_over
    FROM public.hc_signals_run r WHERE r.consumer = %(consumer)s AND r.run <> %(run)s AND NOT (
        r.is_locked AND EXISTS (
            SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
            WHERE l.locktype = 'advisory' AND l.classid = %(class)s AND l.objid = hashtext(r.run)::oid
              AND l.objsubid = 2 AND l.granted))
    FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM public.hc_signals_run r USING dead WHERE r.run = dead.run AND dead.is_over
)
SELECT count(*) FILTER (WHERE is_over) + least(1, count(*) FILTER (WHERE NOT is_over)) FROM dead
"""
_READ_MARK = """
SELECT receiver, change_id, attempt, begun, begun_at::text FROM public.hc_signals_call
WHERE consumer = %s AND shard = %s
"""
# A mark must survive the process, but not the server: the commit does not wait for the disk.
_MARK = """
WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO public.hc_signals_call (consumer, shard, receiver, change_id, attempt, begun)
SELECT %s, %s, %s, %s, %s, %s FROM quick
ON CONFLICT (consumer, shard) DO UPDATE SET receiver = excluded.receiver, change_id = excluded.change_id,
    attempt = excluded.attempt, begun = excluded.begun, begun_at = excluded.begun_at
"""


def hold_run(using: str) -> None:
    """Lock the run on this connection, until it closes: the process is running. Not through a transaction pooler."""
    execute(using, "SELECT pg_advisory_lock_shared(%s, hashtext(%s))", [RUNS, RUN])


def begin_run(using: str, consumer: str, *, is_locked: bool) -> None:
    """Record that this process delivers for the consumer, until :func:`end_run`; ``is_locked`` by :func:`hold_run`."""
    execute(using, _BEGIN, [RUN, consumer, is_locked])


def take_dead_runs(using: str, consumer: str) -> int:
    """Return how many processes of the consumer have died since the last call, in whichever process."""
    return int(row(using, _TAKE_DEAD, {"consumer": consumer, "run": RUN, "class": RUNS})[0])


def end_run(using: str) -> None:
    """Record that this process has ended normally."""
    # If it fails, the next process marks some calls without need.
    with suppress(DatabaseError, InterfaceError), closing(connections[using]):
        execute(using, "DELETE FROM public.hc_signals_run WHERE run = %s", [RUN])


class Marks:
    """Marks the calls of one shard before they are made, and refuses a call that has ended the process LIMIT times.

    ``dead`` processes have died. If they left no mark, the next call that ends the process counts for them. The shard
    had delivered ``since`` changes before the first mark.
    """

    def __init__(self, log: LogShard, dead: int, since: int) -> None:
        self._key = (log.consumer, log.shard)
        # A connection of its own: a mark commits at once, also if the page is rolled back.
        self._connection: Any = another_connection(log.using)
        self._dead = min(dead, LIMIT - 1)  # a harmless call before the fatal one is made at least once
        self._found: tuple[CallKey, int, str] | None = None
        self._is_read = False
        self.since = since

    def begin(self, call: Call) -> ProcessEndedError | None:
        """Mark the call, or return why it must not be made.

        If the mark cannot be written, the call is made without one: delivery is worth more than the count.
        """
        try:
            if not self._is_read:
                self._read()
            found, begun, last = self._found or (call.key, self._dead, "")
            if found != call.key:
                begun = 0
            if begun >= LIMIT:
                return ProcessEndedError(
                    f"The worker's process has ended {begun} times during this call, which last began at {last}: "
                    "killed, out of memory, a crash in a library, or os._exit(). The receiver is not called again for "
                    "this change. Fix it, then run `manage.py hc_deliveries retry`."
                )
            execute(self._connection, _MARK, [*self._key, *call.key, begun + 1])
        except (DatabaseError, InterfaceError):
            self._connection.close()
        return None

    def _read(self) -> None:
        if found := row(self._connection, _READ_MARK, self._key):
            self._found = found[:3], found[3], found[4]
        self._is_read = True

    def end(self) -> None:
        """Remove the mark: the shard is past the calls that may have ended a process."""
        sql = "DELETE FROM public.hc_signals_call WHERE consumer = %s AND shard = %s"
        # If it fails, the mark is of a call that is not made again.
        with suppress(DatabaseError, InterfaceError), closing(self._connection):
            execute(self._connection, sql, self._key)
