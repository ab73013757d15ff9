"""Stores failed deliveries with their changes, to be retried; parks later changes of the same record behind them.

A receiver that waits for a settled value has a delivery as well, without a failed attempt. If a later change of the
record is there when it is due, both become one.

Call it in the transaction of a page, under the claim of its shard: then one worker at a time handles the deliveries of
a record, in order.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import Model

from hc_signals.conf import Conf
from hc_signals.delivery.calls import NotSettled
from hc_signals.delivery.failure_log import FailedCall, log_failure
from hc_signals.delivery.project_code import describe
from hc_signals.delivery.waiting import join_next, pause, still_there
from hc_signals.exceptions import ProcessEndedError, RedeliveryError
from hc_signals.log.backlog import COUNT_LIMIT
from hc_signals.log.change import CHANGE_COLUMNS, SHARD, Change
from hc_signals.models import Delivery
from hc_signals.postgres.moments import aware
from hc_signals.postgres.query import execute, row, rows
from hc_signals.tables import counts_as_change

Key = tuple[str, str, str | None]
"""Receiver, table and record: deliveries with the same key are delivered one after another."""


class FailedDelivery(NamedTuple):
    """A call of one receiver for one change that has failed, and is due again."""

    id: int
    receiver: str
    signal: str
    sender: str
    attempt: int
    is_waiting: bool
    """The receiver waits for a settled value of this change, or of an earlier one."""
    change: Change


_ADD = """
INSERT INTO public.hc_signals_delivery (consumer, receiver, signal, sender, state, attempt, next_attempt_at, error,
    change_id, xid, captured_at, table_name, operation, origin, record_key, record_id, changed, old, new, note)
SELECT %(consumer)s, %(receiver)s, %(signal)s, %(sender)s, %(state)s, %(attempt)s,
    clock_timestamp() + make_interval(secs => %(delay)s), %(error)s,
    %(id)s, %(xid)s::xid8, %(captured_at)s, %(table_name)s, %(operation)s, %(origin)s, %(record_key)s, %(record_id)s,
    %(changed)s::text[], coalesce(l.old, %(old)s::json), coalesce(l.new, %(new)s::json), %(note)s::json
FROM (SELECT) one LEFT JOIN public.hc_signals_log l ON l.id = %(id)s
WHERE l.id IS NOT NULL OR %(has_images)s
RETURNING id, next_attempt_at
"""
_ANY_WAITING = """
SELECT EXISTS (SELECT FROM public.hc_signals_delivery WHERE consumer = %(consumer)s AND state IN ('retry', 'parked'))
"""
_OF_CHANGE = ("id", "xid", "captured_at", "table_name", "operation", "origin", "record_key", "record_id", "changed")
_DUE = f"""
SELECT id, receiver, signal, sender, attempt, attempt = 0 AND starts_with(error, %(waits)s), change_id, {CHANGE_COLUMNS}
FROM public.hc_signals_delivery c
WHERE consumer = %(consumer)s AND state = 'retry' AND next_attempt_at <= clock_timestamp() {SHARD}
ORDER BY next_attempt_at, id LIMIT %(limit)s FOR UPDATE
"""
_LOOK = "SELECT * FROM public.hc_signals_look(%s, %s)"
# OFFSET 0 keeps the planner from joining: each key is one probe of the record index, however many deliveries wait.
# Without statistics of the index's expression, the planner of PostgreSQL 16 reads all waiting deliveries.
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
_BRING_FORWARD = """
UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp()
WHERE consumer = %(consumer)s AND state = 'retry'
  AND next_attempt_at > clock_timestamp() + make_interval(secs => %(longest)s)
"""
_POSTPONE = """
UPDATE public.hc_signals_delivery
SET state = %s, attempt = %s, error = %s, next_attempt_at = clock_timestamp() + make_interval(secs => %s)
WHERE id = %s RETURNING next_attempt_at
"""
_HURRY = """
UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp()
WHERE consumer = %(consumer)s AND state = 'retry' AND attempt = 0 AND starts_with(error, %(waits)s)
  AND receiver = %(receiver)s AND table_name = %(table)s
  AND coalesce(record_id, record_key, '') = coalesce(%(record)s, '')
RETURNING error
"""
_CHANGED_LESS = """
UPDATE public.hc_signals_delivery SET changed = %s::text[], next_attempt_at = clock_timestamp() WHERE id = %s
"""
_COUNT = """
SELECT CASE WHEN counted.is_called THEN s.state ELSE 'waiting' END, count(*)
FROM unnest(%(states)s::text[]) s (state), LATERAL (
    SELECT s.state <> 'retry' OR d.attempt > 0 AS is_called FROM public.hc_signals_delivery d
    WHERE d.consumer = %(consumer)s AND d.state = s.state LIMIT %(limit)s
) counted GROUP BY 1
"""


class FailureStore:
    """The failed and parked deliveries of one consumer in one shard.

    ``images`` has old and new images by change, for changes that may leave the log before a delivery is stored.
    """

    def __init__(
        self, using: str, conf: Conf, shard: int, images: Mapping[int, tuple[str | None, str | None]] | None = None
    ) -> None:
        self.using, self.conf, self.shard, self._images = using, conf, shard, images or {}

    def any_waiting(self) -> bool:
        """Return whether the consumer has any delivery that waits, in whichever shard."""
        return bool(row(self.using, _ANY_WAITING, {"consumer": self.conf.CONSUMER})[0])

    def blocked(self, changes: Iterable[Change]) -> set[Key]:
        """Return the keys with which the records of these changes wait for an earlier delivery."""
        keys = {(change.table_name, change.record or "") for change in changes}
        tables, records = [table for table, _ in keys], [record for _, record in keys]
        params = {"consumer": self.conf.CONSUMER, "tables": tables, "records": records}
        return set(rows(self.using, _BLOCKED, params))

    def add(self, change: Change, receiver: str, signal: str, sender: str, error: BaseException) -> bool:
        """Store a delivery after its first attempt; return whether it is retried, so that later changes are parked."""
        if isinstance(error, NotSettled):
            values = {"receiver": receiver, "signal": signal, "sender": sender, "error": str(error)}
            self._insert(change, **values, state="retry", attempt=0, delay=pause(change))
            return True
        is_retried = self.conf.MAX_ATTEMPTS > 1 and not isinstance(error, ProcessEndedError)
        state = "retry" if is_retried else "dead"
        delay = self._delay(1) if is_retried else None
        values = {"receiver": receiver, "signal": signal, "sender": sender, "error": describe(error, self.using)}
        delivery, next_at = self._insert(change, **values, state=state, attempt=1, delay=delay)
        self._log(FailedDelivery(delivery, receiver, signal, sender, 1, False, change), not is_retried, next_at, error)
        return is_retried

    def park(self, change: Change, receiver: str, signal: str, sender: str) -> None:
        """Store a delivery that has to wait for an earlier one of its record.

        If that one waits for a settled value, it is due now, because this change may bring the value. This one then
        waits for a settled value as well.
        """
        key = {"receiver": receiver, "table": change.table_name, "record": change.record}
        ahead = row(self.using, _HURRY, {**key, "consumer": self.conf.CONSUMER, "waits": NotSettled.TEXT})
        values = {"receiver": receiver, "signal": signal, "sender": sender, "error": ahead[0] if ahead else ""}
        self._insert(change, **values, state="parked", attempt=0, delay=None)

    def _insert(self, change: Change, **values: Any) -> tuple[int, datetime | None]:
        """Store a delivery with the images of its change: those in the log, or those that were read in advance.

        Returns:
            its id, and when its next attempt is due.
        """
        columns = {name: getattr(change, name) for name in _OF_CHANGE}
        note = None if change.note is None else json.dumps(change.note)
        old, new = self._images.get(change.id, (None, None))
        known = {"old": old, "new": new, "has_images": change.record is None or change.id in self._images}
        params = {**columns, **values, **known, "consumer": self.conf.CONSUMER, "note": note}
        stored = row(self.using, _ADD, params)
        if stored is None:
            raise RedeliveryError(
                f"{values['receiver']} failed on change {change.id} of {values['sender']}, and the log does not hold "
                "that change any more: its delivery cannot be stored."
            )
        return stored[0], aware(stored[1])

    def due(self, limit: int) -> list[FailedDelivery]:
        """Return up to ``limit`` deliveries of this shard that are due, the longest waiting first."""
        params = {"consumer": self.conf.CONSUMER, "limit": limit, "shard": self.shard, "shards": self.conf.SHARDS}
        found = rows(self.using, _DUE, {**params, "waits": NotSettled.TEXT})
        return [FailedDelivery._make([*each[:6], Change(*each[6:])]) for each in found]

    def succeeded(self, delivery: FailedDelivery) -> None:
        """Remove a delivery that is done, and release the next one of its record."""
        with self._together():
            execute(self.using, "DELETE FROM public.hc_signals_delivery WHERE id = %s", [delivery.id])
            self._release_behind(delivery)

    def failed(self, delivery: FailedDelivery, error: BaseException) -> None:
        """Postpone a delivery. After the last attempt it is dead, and the next one of its record is released."""
        attempt = delivery.attempt + 1
        dead = attempt >= self.conf.MAX_ATTEMPTS or isinstance(error, ProcessEndedError)
        state, delay = ("dead", None) if dead else ("retry", self._delay(attempt))
        with self._together():
            (next_at,) = row(
                self.using, _POSTPONE, [state, attempt, describe(error, self.using), delay, delivery.id]
            ) or (None,)
            if dead:
                self._release_behind(delivery)
        self._log(delivery._replace(attempt=attempt), dead, aware(next_at), error)

    def wait(self, waiting: FailedDelivery, error: NotSettled, model: type[Model], columns: Sequence[str]) -> None:
        """Go on with a delivery that waits for settled values of some columns.

        If a later change is parked behind it, both become one. Values that the row no longer has are forgotten. Else it
        is postponed.
        """
        with self._together():
            if self.join_next(waiting):
                return
            if (left := still_there(self.using, waiting.id, waiting.change, model, columns)) is None:
                execute(self.using, _POSTPONE, ["retry", 0, str(error), pause(waiting.change), waiting.id])
            elif any(map(counts_as_change, left)):
                execute(self.using, _CHANGED_LESS, [left, waiting.id])
            else:
                self.succeeded(waiting)

    def join_next(self, waiting: FailedDelivery) -> bool:
        """Join a delivery that waits for a settled value with the one parked behind it; return whether there is one."""
        with self._together():
            if is_joined := join_next(self.using, waiting.id, waiting.change.operation):
                self._release_behind(waiting)
        return is_joined

    def _log(self, failed: FailedDelivery, is_dead: bool, next_at: datetime | None, error: BaseException) -> None:
        call = FailedCall(
            using=self.using,
            consumer=self.conf.CONSUMER,
            shard=self.shard,
            receiver=failed.receiver,
            signal=failed.signal,
            model=failed.sender,
            change=failed.change,
            delivery=failed.id,
            attempt=failed.attempt,
            attempts=self.conf.MAX_ATTEMPTS,
            is_dead=is_dead,
            next_at=next_at,
        )
        log_failure(call, error)

    def _release_behind(self, done: FailedDelivery) -> None:
        release(self.using, self.conf.CONSUMER, done.receiver, done.change.table_name, done.change.record)

    def _together(self) -> Any:
        """Return a transaction, also with ``ATOMIC = False``: a crash in between would strand parked deliveries."""
        return transaction.atomic(using=self.using, savepoint=False)

    def _delay(self, attempt: int) -> float:
        """Return the seconds before the next attempt: doubled each time, capped, reduced by up to half at random."""
        delay = min(self.conf.RETRY_MAX_SECONDS, self.conf.RETRY_SECONDS * 2 ** (attempt - 1))
        return float(delay * random.uniform(0.5, 1.0))  # noqa: S311  (not for secrets)


def release(using: str, consumer: str, receiver: str, table: str, record: str | None) -> None:
    """Make the first parked delivery of a record due, after the delivery before it is done or removed.

    It stays parked while another delivery of the record is retried: a dead one, retried by hand, may be ahead of it.
    """
    execute(using, _RELEASE, {"consumer": consumer, "receiver": receiver, "table": table, "record": record})


def waiting_shards(using: str, conf: Conf) -> tuple[set[int], float | None]:
    """Return the shards with changes, gaps or due retries, and the seconds until the next retry; None without one."""
    waiting, seconds, due = row(using, _LOOK, [conf.CONSUMER, conf.SHARDS])
    if seconds is not None and seconds > conf.RETRY_MAX_SECONDS:  # the server's clock was set back
        execute(using, _BRING_FORWARD, {"consumer": conf.CONSUMER, "longest": conf.RETRY_MAX_SECONDS})
        seconds = 0
    return {*waiting, *due}, None if seconds is None else max(0.0, seconds)


def counts(using: str, consumer: str) -> dict[str, int]:
    """Return the consumer's stored deliveries by their state, each counted up to one more than COUNT_LIMIT.

    Those in the state ``retry`` that have not failed are ``waiting``.
    """
    params = {"states": Delivery.State.values, "consumer": consumer, "limit": COUNT_LIMIT + 1}
    return dict(rows(using, _COUNT, params))
