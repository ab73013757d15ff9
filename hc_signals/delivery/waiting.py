"""Deliveries that wait for a settled value: the final one, while a write of the app is on its way to Salesforce.

A waiting delivery is in the state ``retry``, without an attempt, and later changes of the record are parked behind it.
"""

from collections.abc import Sequence

from django.db.models import Model

from hc_signals.delivery.routing import signals_of
from hc_signals.log.change import Change
from hc_signals.postgres.moments import now
from hc_signals.postgres.names import quote
from hc_signals.postgres.query import execute, row
from hc_signals.tables import counts_as_change, quoted_table

SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds after which a receiver is asked again that waits for a settled value."""

# The first delivery parked behind one that waits for a settled value, and whether each column differs from the value
# before both.
_NEXT = """
SELECT n.id, n.operation, n.signal, ARRAY(
    SELECT c FROM unnest(w.changed || n.changed) WITH ORDINALITY u (c, at)
    WHERE coalesce(w.old -> c, n.old -> c)::text IS DISTINCT FROM (n.new -> c)::text GROUP BY c ORDER BY min(at))
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
# Whether the row of a delivery is there, and which columns have another value now.
_REPLACED = """
SELECT t.now IS NOT NULL, ARRAY(
    SELECT c FROM unnest(%(columns)s::text[]) c WHERE (t.now -> c)::text IS DISTINCT FROM (d.new -> c)::text)
FROM public.hc_signals_delivery d
LEFT JOIN LATERAL (SELECT to_json(r) AS now FROM {table} r WHERE {key} = %(record)s LIMIT 1) t ON true
WHERE d.id = %(id)s
"""
_DELETE = "DELETE FROM public.hc_signals_delivery WHERE id = ANY (%s)"

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


def pause(change: Change) -> float:
    """Return the seconds after which a receiver is asked again that waits for a settled value: more for older ones.

    The next change of the record ends the pause. Without one, the app's write was refused, or nothing else changed.
    """
    age = (now() - change.captured_at).total_seconds()
    return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, age / 4))


def join_next(using: str, waiting: int, operation: str) -> bool:
    """Join a waiting delivery, by its id, with the first one parked behind it; return False if there is none.

    The result is the parked one. Both are deleted if no change is left. Call it in a transaction, and release the next
    delivery afterwards.
    """
    found = row(using, _NEXT, [waiting])
    result = joined(operation, found[1]) if found and found[2] in OF_ONE_CHANGE else None
    if result is None:
        return False
    number, then, _, changed = found
    is_update = result == operation == then == "UPDATE"
    gone = [waiting]
    if not result or (is_update and not any(map(counts_as_change, changed))):
        gone.append(number)
    elif is_update or result != then:
        values = {"changed": changed if is_update else None, "next": number, "waiting": waiting}
        execute(using, _JOIN, {**values, "operation": result, "signal": signals_of(result)[0]})
    execute(using, _DELETE, [gone])
    return True


def still_there(
    using: str, waiting: int, change: Change, model: type[Model], columns: Sequence[str]
) -> list[str] | None:
    """Return the changed columns of a waiting delivery without those of ``columns`` that have another value by now.

    The app has replaced these for good, or a change that is still to be read has. None: all are still there, or the
    change is so new that a change of it may be on its way. If the row is gone, none is there.
    """
    if (now() - change.captured_at).total_seconds() < SHORTEST_PAUSE:
        return None
    key = "sfid" if change.record_id else quote(str(model._meta.pk.column))
    sql = _REPLACED.format(table=quoted_table(model), key=key)
    is_there, replaced = row(using, sql, {"record": change.record, "columns": list(columns), "id": waiting})
    if is_there and (change.operation != "UPDATE" or not replaced):
        return None
    return [column for column in change.changed or () if column not in replaced]
