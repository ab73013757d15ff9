"""What receivers failed on: kept with its change and retried; what follows it for the same record is parked behind it.

The only reader and writer of ``hc_signals_delivery``. Every call belongs into the transaction of a page, under the
claim of its shard: so one record's deliveries are handled by one worker at a time, in order.
"""

import json
import logging
import random
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import connections, transaction

from hc_signals.conf import Conf
from hc_signals.delivery.receiver_errors import show
from hc_signals.exceptions import ProcessEndedError, RedeliveryError
from hc_signals.log.change import Change
from hc_signals.log.rows import CHANGE_COLUMNS, SHARD, SHARD_NUMBER
from hc_signals.postgres.texts import storable

logger = logging.getLogger("hc_signals")

Key = tuple[str, str, str | None]
"""Receiver, table and record: what is delivered one after another."""


@dataclass(frozen=True)
class Delivery:
    """One event owed to one receiver."""

    id: int
    receiver: str
    signal: str
    sender: str
    attempt: int
    change: Change

    @property
    def key(self) -> Key:
        """What must go in order."""
        return self.receiver, self.change.table_name, self.change.record


_KEEP = """
INSERT INTO public.hc_signals_delivery (consumer, receiver, signal, sender, state, attempt, next_attempt_at, error,
    change_id, xid, captured_at, table_name, operation, origin, record_key, record_id, changed, old, new, note)
SELECT %(consumer)s, %(receiver)s, %(signal)s, %(sender)s, %(state)s, %(attempt)s,
    clock_timestamp() + make_interval(secs => %(delay)s), %(error)s,
    %(id)s, %(xid)s::xid8, %(captured_at)s, %(table_name)s, %(operation)s, %(origin)s, %(record_key)s, %(record_id)s,
    %(changed)s::text[], coalesce(l.old, %(old)s::json), coalesce(l.new, %(new)s::json), %(note)s::json
FROM (SELECT) one LEFT JOIN public.hc_signals_change l ON l.id = %(id)s
WHERE l.id IS NOT NULL OR %(has_images)s
"""
_ANY_KEPT = """
SELECT EXISTS (SELECT FROM public.hc_signals_delivery WHERE consumer = %(consumer)s AND state IN ('retry', 'parked'))
"""
_OF_CHANGE = ("id", "xid", "captured_at", "table_name", "operation", "origin", "record_key", "record_id", "changed")
_DUE = f"""
SELECT id, receiver, signal, sender, attempt, change_id, {CHANGE_COLUMNS}
FROM public.hc_signals_delivery c
WHERE consumer = %(consumer)s AND state = 'retry' AND next_attempt_at <= clock_timestamp() {SHARD}
ORDER BY next_attempt_at, id LIMIT %(limit)s FOR UPDATE
"""
# Of those that are due the first thousand say enough.
DUE_SHARDS = f"""
SELECT extract(epoch FROM min(next_attempt_at) - clock_timestamp()), ARRAY(
    SELECT DISTINCT {SHARD_NUMBER} FROM (
        SELECT table_name, record_id, record_key FROM public.hc_signals_delivery
        WHERE consumer = %(consumer)s AND state = 'retry' AND next_attempt_at <= clock_timestamp()
        ORDER BY next_attempt_at LIMIT 1000
    ) due
)
FROM public.hc_signals_delivery WHERE consumer = %(consumer)s AND state = 'retry'
"""
# OFFSET 0 keeps the planner from joining: each key is one probe of the record index, however many deliveries wait.
# It has no statistics of that index's expression, and before PostgreSQL 17 preferred to read all that wait.
_BLOCKED = """
SELECT waiting.* FROM unnest(%(tables)s::text[], %(records)s::text[]) k (table_name, record), LATERAL (
    SELECT receiver, table_name, coalesce(record_id, record_key) FROM public.hc_signals_delivery
    WHERE consumer = %(consumer)s AND state IN ('retry', 'parked') AND table_name = k.table_name
      AND coalesce(record_id, record_key, '') = k.record
    OFFSET 0
) waiting
"""
_RELEASE = """
UPDATE public.hc_signals_delivery SET state = 'retry', next_attempt_at = clock_timestamp()
WHERE id = (
    SELECT min(id) FROM public.hc_signals_delivery
    WHERE consumer = %(consumer)s AND state = 'parked' AND receiver = %(receiver)s AND table_name = %(table)s
      AND coalesce(record_id, record_key, '') = coalesce(%(record)s, '')
) AND NOT EXISTS (
    SELECT FROM public.hc_signals_delivery
    WHERE consumer = %(consumer)s AND state = 'retry' AND receiver = %(receiver)s AND table_name = %(table)s
      AND coalesce(record_id, record_key, '') = coalesce(%(record)s, '')
)
"""


class Deliveries:
    """The failed and parked deliveries of one consumer in one shard.

    Args:
        using: database alias.
        conf: CONSUMER, SHARDS, MAX_ATTEMPTS, RETRY_SECONDS and RETRY_MAX_SECONDS are used.
        shard: the shard.
    """

    def __init__(self, using: str, conf: Conf, shard: int) -> None:
        self.using, self.conf, self.shard = using, conf, shard
        self.images: Mapping[int, tuple[str | None, str | None]] = {}
        """Old and new images of changes that may leave the log before a delivery of them is kept."""

    def _execute(self, sql: str, params: Any) -> Any:
        with connections[self.using].cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall() if cursor.description else cursor.rowcount

    def any_kept(self) -> bool:
        """Tell whether the consumer has any delivery that waits."""
        return bool(self._execute(_ANY_KEPT, {"consumer": self.conf.CONSUMER})[0][0])

    def blocked(self, changes: Iterable[Change]) -> set[Key]:
        """Return for which receivers the records of these changes wait for an earlier delivery."""
        keys = {(change.table_name, change.record or "") for change in changes}
        tables, records = [table for table, _ in keys], [record for _, record in keys]
        params = {"consumer": self.conf.CONSUMER, "tables": tables, "records": records}
        rows = self._execute(_BLOCKED, params)
        return set(rows)

    def keep(self, change: Change, receiver: str, signal: str, sender: str, error: BaseException) -> bool:
        """Keep a delivery that failed for the first time; return whether it is retried, so that others wait behind it.

        The log line names the receiver and the error's class only: a message may hold a customer's data.
        """
        attempts_left = self.conf.MAX_ATTEMPTS > 1 and not isinstance(error, ProcessEndedError)
        state = "retry" if attempts_left else "dead"
        delay = self._delay(1) if attempts_left else None
        values = {"receiver": receiver, "signal": signal, "sender": sender, "error": describe(error, self.using)}
        self._insert(change, **values, state=state, attempt=1, delay=delay)
        about = {"shard": self.shard, "signal": signal, "model": sender, "change_id": change.id, "attempt": 1}
        show(receiver, error, **about)
        logger.log(
            logging.WARNING if attempts_left else logging.ERROR,
            "Receiver %s failed on %s of %s (change %s): %s; the delivery is kept and %s.",
            receiver,
            change.operation,
            change.table_name,
            change.id,
            type(error).__name__,
            "retried" if attempts_left else "dead: see `manage.py hc_deliveries list`",
            extra={"receiver": receiver, **about},
        )
        return attempts_left

    def park(self, change: Change, receiver: str, signal: str, sender: str) -> None:
        """Keep a delivery behind an earlier one of its record."""
        values = {"receiver": receiver, "signal": signal, "sender": sender, "error": ""}
        self._insert(change, **values, state="parked", attempt=0, delay=None)

    def _insert(self, change: Change, **values: Any) -> None:
        """Store a delivery, with the images of its change: those that the log has, else those that were read."""
        columns = {name: getattr(change, name) for name in _OF_CHANGE}
        note = None if change.note is None else json.dumps(change.note)
        old, new = self.images.get(change.id, (None, None))
        known = {"old": old, "new": new, "has_images": change.record is None or change.id in self.images}
        if not self._execute(_KEEP, {**columns, **values, **known, "consumer": self.conf.CONSUMER, "note": note}):
            raise RedeliveryError(
                f"{values['receiver']} failed on change {change.id} of {change.table_name}, and the log does not hold "
                "that change any more: its delivery cannot be kept."
            )

    def due(self, limit: int) -> list[Delivery]:
        """Return the deliveries of this shard whose time has come, the longest waiting first."""
        params = {"consumer": self.conf.CONSUMER, "limit": limit, "shard": self.shard, "shards": self.conf.SHARDS}
        rows = self._execute(_DUE, params)
        return [Delivery(row[0], row[1], row[2], row[3], row[4], Change(*row[5:])) for row in rows]

    def succeeded(self, delivery: Delivery) -> None:
        """Forget a delivery that is done; the next one of its record may go."""
        with self._together():
            self._execute("DELETE FROM public.hc_signals_delivery WHERE id = %s", [delivery.id])
            release(self.using, self.conf.CONSUMER, *delivery.key)

    def failed(self, delivery: Delivery, error: BaseException) -> None:
        """Put a delivery off; after the last attempt it is dead and the record goes on without it."""
        attempt = delivery.attempt + 1
        dead = attempt >= self.conf.MAX_ATTEMPTS or isinstance(error, ProcessEndedError)
        state, delay = ("dead", None) if dead else ("retry", self._delay(attempt))
        with self._together():
            self._execute(
                "UPDATE public.hc_signals_delivery SET state = %s, attempt = %s, error = %s, "
                "next_attempt_at = clock_timestamp() + make_interval(secs => %s) WHERE id = %s",
                [state, attempt, describe(error, self.using), delay, delivery.id],
            )
            if dead:
                release(self.using, self.conf.CONSUMER, *delivery.key)
        about = {"delivery_id": delivery.id, "change_id": delivery.change.id, "attempt": attempt}
        show(delivery.receiver, error, signal=delivery.signal, model=delivery.sender, **about)
        if dead:
            logger.error(
                "Delivery %s to %s is dead after %s attempts (%s); see `manage.py hc_deliveries show %s`.",
                delivery.id,
                delivery.receiver,
                attempt,
                type(error).__name__,
                delivery.id,
                extra={"receiver": delivery.receiver, "signal": delivery.signal, "model": delivery.sender, **about},
            )

    def _together(self) -> Any:
        """A transaction, also where the page is none: what is parked behind one that is gone would wait for ever."""
        return transaction.atomic(using=self.using, savepoint=False)

    def _delay(self, attempt: int) -> float:
        """Return seconds before the next attempt: doubled each time, capped, jittered by half."""
        delay = min(self.conf.RETRY_MAX_SECONDS, self.conf.RETRY_SECONDS * 2 ** (attempt - 1))
        return float(delay * random.uniform(0.5, 1.0))  # noqa: S311  (not for secrets)


def release(using: str, consumer: str, receiver: str, table: str, record: str | None) -> None:
    """Let the first of the deliveries go that are parked behind one that is done or gone.

    Unless another one is on its way: a dead one that was retried by hand may be ahead of it.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_RELEASE, {"consumer": consumer, "receiver": receiver, "table": table, "record": record})


def ring(using: str) -> None:
    """Wake a worker that sleeps, as a change would, when the transaction commits."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT public.hc_signals_ring()")


def describe(error: BaseException, using: str) -> str:
    """Return an error as it is stored: what, and below it where."""
    where = "".join(traceback.format_tb(error.__traceback__))
    try:
        what = str(error)
    except Exception as another:  # its class is the receiver's
        what = f"its text cannot be had ({type(another).__name__})"
    return storable(f"{type(error).__name__}: {what[:5000]}\n{where[-5000:]}".rstrip(), using)
