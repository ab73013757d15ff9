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
from hc_signals.delivery.routing import signals_of
from hc_signals.exceptions import ProcessEndedError, RedeliveryError
from hc_signals.log.backlog import COUNT_LIMIT
from hc_signals.log.change import CHANGE_COLUMNS, SHARD, Change
from hc_signals.models import Delivery
from hc_signals.postgres.moments import aware, now
from hc_signals.postgres.names import quote
from hc_signals.postgres.query import execute, row, rows
from hc_signals.tables import counts_as_change, quoted_table

SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds after which a receiver is asked again that waits for a settled value."""

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
# The first delivery parked behind one that waits for a settled value, and whether each column differs from the value
# before both.
_NEXT = """
SELECT n.id, n.operation, n.signal, ARRAY(
    SELECT c FROM unnest(w.changed || n.changed) WITH ORDINALITY u (c, at)
    WHERE coalesce(w.old -> c, n.old -> c) ::text IS DISTINCT FROM (n.new -> c)::text GROUP BY c ORDER BY min(at))
FROM public.hc_signals_delivery w JOIN public.hc_signals_delivery n
    ON n.consumer = w.consumer AND n.state = 'parked' AND n.receiver = w.receiver AND n.table_name = w.table_name
   AND coalesce(n.record_id, n.record_key, '') = coalesce(w.record_id, w.record_key, '')
WHERE w.id = %s ORDER BY n.id LIMIT 1 FOR UPDATE OF n
"""
_JOIN = """
UPDATE public.hc_signals_delivery n SET operation = %(operation)s, signal = %(signal)s, changed = %(changed)s::text[],
    old = CASE WHEN %(operation)s = 'UPDATE' THEN (n.old::jsonb || w.old::jsonb)::json END
FROM public.hc_signals_delivery w WHERE n.id = %(next)s AND w.id = %(waiting)s
"""
_HURRY = """
UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp()
WHERE consumer = %(consumer)s AND state = 'retry' AND attempt = 0 AND starts_with(error, %(waits)s)
  AND receiver = %(receiver)s AND table_name = %(table)s
  AND coalesce(record_id, record_key, '') = coalesce(%(record)s, '')
RETURNING error
"""
# Whether the row of a delivery is there, and which columns have another value now.
_REPLACED = """
SELECT t.now IS NOT NULL, ARRAY(
    SELECT c FROM unnest(%(columns)s::text[]) c WHERE (t.now -> c)::text IS DISTINCT FROM (d.new -> c)::text)
FROM public.hc_signals_delivery d
LEFT JOIN LATERAL (SELECT to_json(r) AS now FROM {table} r WHERE {key} = %(record)s LIMIT 1) t ON true
WHERE d.id = %(id)s
"""
_CHANGED_LESS = """
UPDATE public.hc_signals_delivery SET changed = %s::text[], next_attempt_at = clock_timestamp() WHERE id = %s
"""
_DELETE = "DELETE FROM public.hc_signals_delivery WHERE id = ANY (%s)"
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
            self._insert(change, **values, state="retry", attempt=0, delay=_pause(change))
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
        """Go on with a delivery that waits for settled values of some columns: it may have become pointless.

        If a later change is parked behind it, both become one. If the row has other values by now, or is gone, the app
        has replaced these values for good, or a change that is still to be read has. Else it is postponed.
        """
        with self._together():
            if self.join_next(waiting):
                return
            is_new = (now() - waiting.change.captured_at).total_seconds() < SHORTEST_PAUSE
            if is_new or not self._forget(waiting, model, columns):
                execute(self.using, _POSTPONE, ["retry", 0, str(error), _pause(waiting.change), waiting.id])

    def join_next(self, waiting: FailedDelivery) -> bool:
        """Join a delivery that waits for a settled value with the one parked behind it; return whether there is one."""
        with self._together():
            found = row(self.using, _NEXT, [waiting.id])
            operation = joined(waiting.change.operation, found[1]) if found and found[2] in OF_ONE_CHANGE else None
            if operation is None:
                return False
            number, then, _, changed = found
            is_update = operation == waiting.change.operation == then == "UPDATE"
            gone = [waiting.id]
            if not operation or (is_update and not any(map(counts_as_change, changed))):
                gone.append(number)  # no change is left
            elif is_update or operation != then:
                values = {"changed": changed if is_update else None, "next": number, "waiting": waiting.id}
                execute(self.using, _JOIN, {**values, "operation": operation, "signal": signals_of(operation)[0]})
            execute(self.using, _DELETE, [gone])
            self._release_behind(waiting)
            return True

    def _forget(self, waiting: FailedDelivery, model: type[Model], columns: Sequence[str]) -> bool:
        """Forget those values of a delivery that the row does not have any more; return whether there is one."""
        change = waiting.change
        key = "sfid" if change.record_id else quote(str(model._meta.pk.column))
        sql = _REPLACED.format(table=quoted_table(model), key=key)
        params = {"record": change.record, "columns": list(columns), "id": waiting.id}
        is_there, replaced = row(self.using, sql, params)
        if is_there and (change.operation != "UPDATE" or not replaced):
            return False
        left = [column for column in change.changed or () if column not in replaced]
        if any(map(counts_as_change, left)):
            execute(self.using, _CHANGED_LESS, [left, waiting.id])
        else:
            execute(self.using, _DELETE, [[waiting.id]])
            self._release_behind(waiting)
        return True

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


OF_ONE_CHANGE = frozenset(signals_of(operation)[0] for operation in ("INSERT", "UPDATE", "DELETE"))
"""The signals whose deliveries can be joined: those that ``@on_change`` connects to, without that of a snapshot."""
_CREATES, _UPDATES = frozenset({"INSERT", "GAP_CREATE"}), frozenset({"UPDATE", "GAP_UPDATE"})


def joined(first: str, then: str) -> str | None:
    """Return the operation of two changes of a record that are one to a receiver; empty if they cancel each other.

    None: they cannot be one, because they mean different things.
    """
    if first not in _CREATES | _UPDATES:
        return None
    if then in _CREATES:
        return then
    if then == "DELETE":
        return "" if first in _CREATES else then
    if then not in _UPDATES:
        return None
    if first in _CREATES:
        return first
    return "UPDATE" if first == then == "UPDATE" else "GAP_UPDATE"


def _pause(change: Change) -> float:
    """Return the seconds after which a receiver is asked again that waits for a settled value: more for older ones.

    The next change of the record ends the pause. Without one, the app's write was refused, or nothing else changed.
    """
    age = (now() - change.captured_at).total_seconds()
    return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, age / 4))


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
