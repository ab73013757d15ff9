"""Finds the receiver calls that end the worker's process: a crash in C code, too much memory, ``os._exit()``.

Such a call cannot be caught, so the next process has to know of it. Marking every call in the database would cost every
receiver; so a call is marked only after a process has died. A run that does not end in good order leaves its row in
``hc_signals_run``. The next process then marks each call before it makes it, until it has delivered what the dead
process was at. A call that has ended the process LIMIT times is not made again.
"""

import uuid
from typing import Any

from django.db import DatabaseError, InterfaceError, connections

from hc_signals.delivery.calls import Call, CallKey
from hc_signals.exceptions import ProcessEndedError
from hc_signals.postgres.locks import RUNS
from hc_signals.postgres.sessions import another_connection

LIMIT = 3
"""How many times a call may end the process before it is not made any more."""

RUN = uuid.uuid4().hex
"""Name of this process's run."""

_BEGIN = """
INSERT INTO public.hc_signals_run (run, consumer, is_locked) VALUES (%s, %s, %s) ON CONFLICT (run) DO NOTHING
"""
# Each dead run is counted by one process. Without a lock it may live: it counts, but stays until it is a day old.
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
# A mark must survive the process, not the server: the commit does not wait for the disk.
_MARK = """
WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO public.hc_signals_call (consumer, shard, receiver, change_id, attempt, begun)
SELECT %s, %s, %s, %s, %s, %s FROM quick
ON CONFLICT (consumer, shard) DO UPDATE SET receiver = excluded.receiver, change_id = excluded.change_id,
    attempt = excluded.attempt, begun = excluded.begun, begun_at = excluded.begun_at
"""


def hold_run(using: str) -> None:
    """Show on this connection, until it is closed, that the process lives. Only on a session that stays ours."""
    _execute(using, "SELECT pg_advisory_lock_shared(%s, hashtext(%s))", [RUNS, RUN])


def begin_run(using: str, consumer: str, *, is_locked: bool) -> None:
    """Note that this process delivers for the consumer, until :func:`end_run`.

    Args:
        is_locked: its connections show that it lives: see :func:`hold_run`.
    """
    _execute(using, _BEGIN, [RUN, consumer, is_locked])


def take_dead_runs(using: str, consumer: str) -> int:
    """Return how many runs of the consumer have ended without saying so, since somebody last asked."""
    return int(_execute(using, _TAKE_DEAD, {"consumer": consumer, "run": RUN, "class": RUNS})[0][0])


def end_run(using: str) -> None:
    """Note that this process has ended in good order, if the database can be asked."""
    try:
        _execute(using, "DELETE FROM public.hc_signals_run WHERE run = %s", [RUN])
    except (DatabaseError, InterfaceError):
        pass  # the next process marks some calls in vain
    finally:
        connections[using].close()


def _execute(using: str, sql: str, params: Any) -> Any:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


class Marks:
    """Marks the calls of one shard before they are made, and refuses those that have ended the process LIMIT times.

    Args:
        using: database alias.
        consumer: name of the consumer.
        shard: number of the shard.
        dead: how many processes have died and left no mark; the next call to end the process has ended these.
        since: how many changes the shard had delivered when marking began.
    """

    def __init__(self, using: str, consumer: str, shard: int, dead: int, since: int) -> None:
        self._key = (consumer, shard)
        # Its own connection: a mark commits at once, whatever becomes of the page.
        self._connection: Any = another_connection(using)
        self._dead = min(dead, LIMIT - 1)  # an innocent call before the fatal one is made at least once
        self._found: tuple[CallKey, int, str] | None = None
        self._is_read = False
        self.since = since

    def begin(self, call: Call) -> ProcessEndedError | None:
        """Mark the call; or return why it must not be made.

        Where the mark cannot be written the call is made without: delivery is worth more than the count.
        """
        try:
            if not self._is_read:
                self._read()
            begun = self._begun_before(call)
            if begun >= LIMIT:
                return self._refusal(begun)
            self._execute(_MARK, [*self._key, *call.key, begun + 1])
        except (DatabaseError, InterfaceError):
            self._connection.close()
        return None

    def _begun_before(self, call: Call) -> int:
        if self._found is None:
            return self._dead
        found, begun, _ = self._found
        return begun if found == call.key else 0

    def _refusal(self, begun: int) -> ProcessEndedError:
        last = self._found[2] if self._found else ""
        return ProcessEndedError(
            f"The worker's process has ended {begun} times during this call, which last began at {last}: killed, "
            "out of memory, a crash in a library, or os._exit(). The receiver is not called again for this "
            "change. Mend it, then run `manage.py hc_deliveries retry`."
        )

    def _read(self) -> None:
        row = self._execute(_READ_MARK, self._key)
        if row:
            self._found = row[0][:3], row[0][3], row[0][4]
        self._is_read = True

    def end(self) -> None:
        """Remove the mark: the calls that may have ended a process are behind us."""
        try:
            self._execute("DELETE FROM public.hc_signals_call WHERE consumer = %s AND shard = %s", self._key)
        except (DatabaseError, InterfaceError):
            pass  # it names a call that is not made again
        finally:
            self._connection.close()

    def _execute(self, sql: str, params: Any) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall() if cursor.description else None
