"""Delivery: how far each consumer has come, who works and listens, what receivers failed on."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connections

from hc_signals.conf import Conf
from hc_signals.log.backlog import Backlog
from hc_signals.log.consumers import Consumer
from hc_signals.observability.findings import Finding, fine, problem
from hc_signals.postgres.locks import BELL
from hc_signals.postgres.moments import age, now
from hc_signals.postgres.own_connections import TROUBLED, application_name

LATE_SECONDS = 60
STUCK_SECONDS = 600

_TROUBLED = """
SELECT pid, (regexp_match(application_name, %s))[1:2] FROM pg_stat_activity
WHERE datname = current_database() AND application_name ~ %s ORDER BY backend_start
"""
_NAMED = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = ANY(%s)"
_SLEEPER = """
SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.objsubid = 2 AND l.mode = 'ExclusiveLock'
  AND l.granted AND a.datname = current_database()
"""
# Of the receivers that fail, the worst; a thousand deliveries tell enough.
_RECEIVERS = """
SELECT receiver, count(*) FROM (
    SELECT receiver FROM public.hc_signals_delivery WHERE consumer = %s AND state = ANY(%s) LIMIT 1000
) failed GROUP BY receiver ORDER BY count(*) DESC, receiver LIMIT 3
"""


def consumer_findings(found: Sequence[Consumer], conf: Conf) -> Iterator[Finding]:
    """Judge each consumer; the configured one may never have run."""
    if conf.CONSUMER not in {consumer.name for consumer in found}:
        yield problem("consumer-new", "consumer", f"{conf.CONSUMER}: has never run", consumer=conf.CONSUMER)
    for consumer in found:
        yield _consumer(consumer)


def _consumer(consumer: Consumer) -> Finding:
    facts = {
        "consumer": consumer.name,
        "workers": consumer.workers,
        "backlog": consumer.backlog.count,
        "oldest_seconds": _seconds(consumer.backlog),
        "moved_at": consumer.moved_at,
        "shards": [{"backlog": b.count, "oldest_seconds": _seconds(b)} for b in consumer.by_shard],
    }
    name = "consumer"
    if not consumer.shards:
        return problem("consumer-no-position", name, f"{consumer.name}: no position, only failed deliveries", **facts)
    text = f"{consumer.name}: {consumer.workers} worker(s), {_backlog(consumer.backlog)}"
    if consumer.shards > 1:
        text += "; by shard: " + ", ".join(f"{n}: {_backlog(b)}" for n, b in enumerate(consumer.by_shard))
    if not consumer.workers:
        return problem("consumer-no-worker", name, text, **facts)
    seconds = _seconds(consumer.backlog)
    if seconds > LATE_SECONDS:
        return problem("consumer-stuck" if seconds > STUCK_SECONDS else "consumer-late", name, text, **facts)
    return fine(name, text, **facts)


def troubles(using: str) -> Iterator[Finding]:
    """Look which workers cannot deliver: each says so by the name of its session, all that it can still write."""
    for pid, (code, consumer) in _rows(using, _TROUBLED, [TROUBLED, TROUBLED]):
        text = f"{consumer}: a worker cannot deliver, the server answers SQLSTATE {code}"
        yield problem("worker-trouble", "worker", text, consumer=consumer, sqlstate=code, pid=pid)


def _backlog(backlog: Backlog) -> str:
    if backlog.since is None:
        return "nothing to deliver"
    return f"{backlog} change(s) to deliver, the oldest {age(backlog.since)} old"


def _seconds(backlog: Backlog) -> float:
    return max(0.0, (now() - backlog.since).total_seconds()) if backlog.since else 0.0


def bell(using: str, found: Sequence[Consumer]) -> Iterator[Finding]:
    """Look who listens, and whether somebody sleeps with the lock, so that writers ring."""
    workers = sum(consumer.workers for consumer in found)
    listeners, pooled = _connections(using, found, "bell"), _connections(using, found, "pooled")
    if pooled:
        text = f"{len(pooled)} process(es) of hc_listen behind a pooler look at the log at intervals of up to 2 s"
        yield problem("bell-pooled", "bell", text, pooled=pooled)
    if listeners or not pooled:
        yield _bell(using, found, workers, listeners)
    ((usage,),) = _rows(using, "SELECT pg_notification_queue_usage()", [])
    if usage >= 0.5:
        yield problem("bell-queue", "bell", f"the queue of NOTIFY is {usage:.0%} full", usage=usage)


def _connections(using: str, found: Sequence[Consumer], part: str) -> list[int]:
    names = [application_name(consumer.name, part)[:63] for consumer in found]
    return [pid for (pid,) in _rows(using, _NAMED, [names])]


def _bell(using: str, found: Sequence[Consumer], workers: int, listeners: list[int]) -> Finding:
    sleeper = _sleeper(using, wait=bool(listeners) and not any(consumer.backlog.count for consumer in found))
    facts: dict[str, Any] = {"listeners": listeners, "asleep": sleeper[0] if sleeper else None}
    text = f"{len(listeners)} listening connection(s), "
    text += f"{sleeper[1]!r} is asleep" if sleeper else "nobody asleep"
    if workers and not listeners:
        return problem("bell-nobody-listens", "bell", text, **facts)
    if listeners and not sleeper and not any(consumer.backlog.count for consumer in found):
        return problem("bell-nobody-asleep", "bell", text, **facts)
    return fine("bell", text if workers else "no worker, nobody to ring", **facts)


def _sleeper(using: str, wait: bool) -> Any:
    """Return who sleeps; where somebody should, for two seconds look again: it may just have been awake."""
    deadline = time.monotonic() + 2 * wait
    while not (rows := _rows(using, _SLEEPER, BELL)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return rows[0] if rows else None


def deliveries(using: str, found: Sequence[Consumer]) -> Iterator[Finding]:
    """Judge what receivers failed on."""
    for consumer in found:
        if not consumer.deliveries:
            continue
        dead = consumer.deliveries.get("dead", 0)
        states = ["dead"] if dead else ["retry"]
        worst = _rows(using, _RECEIVERS, [consumer.name, states])
        counts = ", ".join(f"{count} {state}" for state, count in sorted(consumer.deliveries.items()))
        text = f"{consumer.name}: {counts}; {', '.join(receiver for receiver, _ in worst)}"
        facts = {"consumer": consumer.name, **consumer.deliveries, "receivers": dict(worst)}
        yield problem("deliveries-dead" if dead else "deliveries-failing", "deliveries", text, **facts)
    if not any(consumer.deliveries for consumer in found):
        yield fine("deliveries", "none has failed")


def _rows(using: str, sql: str, params: Any) -> list[Any]:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())
