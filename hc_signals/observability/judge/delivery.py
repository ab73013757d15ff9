"""Delivery: receivers, the backlog of each consumer, its workers, the doorbell, and the failed deliveries."""

import time
from collections.abc import Iterator
from typing import Any

from django.db.models import Count

from hc_signals.delivery.listeners import Extras, Listeners
from hc_signals.log.backlog import Backlog
from hc_signals.models import Delivery
from hc_signals.observability.findings import Finding, finding
from hc_signals.observability.survey import Consumer, Survey
from hc_signals.postgres.locks import BELL
from hc_signals.postgres.moments import age, now
from hc_signals.postgres.own_connections import TROUBLED, application_name
from hc_signals.postgres.query import rows

LATE_SECONDS = 60
"""Age of the oldest undelivered change from which on a consumer is late."""
STUCK_SECONDS = 600
"""The age from which on it is stuck."""
COUNTED = 1000
"""Most failed deliveries that are searched for the receivers that fail most often."""
SHOWN = 3
"""Most receivers that a line names."""
QUEUE_SHARE = 0.5
"""Share of NOTIFY's queue from which on it is a problem."""
SLEEPER_SECONDS = 2.0
"""Longest wait for a worker to fall asleep: it may have been awake for a moment."""

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


def receivers(survey: Survey) -> Iterator[Finding]:
    """Name the receivers of each model, of its proxies and of its children, in the project that runs the check."""
    listeners = Listeners(Extras.of(survey.conf, survey.models))
    is_any = any(listeners.wanted(model) for model in survey.models)
    for model in survey.models:
        label, names, key = model._meta.label, sorted(listeners.names(model)), ""
        text = f"{label}: {', '.join(names[:SHOWN])}" + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")
        if not listeners.wanted(model):
            text = f"{label}: none, its changes reach no receiver" if is_any else f"{label}: none in this project"
            key = "" if is_any else "receivers-none"
        yield finding("receivers", text, key, model=label, receivers=names)


def consumers(survey: Survey) -> Iterator[Finding]:
    """Judge each consumer; the configured one may never have run."""
    configured = survey.conf.CONSUMER
    if configured not in {consumer.name for consumer in survey.consumers}:
        yield finding("consumer", f"{configured}: has never run", "consumer-new", consumer=configured)
    for consumer in survey.consumers:
        yield _consumer(consumer)


def _consumer(consumer: Consumer) -> Finding:
    seconds, key = _seconds(consumer.backlog), ""
    text = f"{consumer.name}: {consumer.workers} worker(s), {_backlog(consumer.backlog)}"
    if len(consumer.by_shard) > 1:
        text += "; by shard: " + ", ".join(f"{n}: {_backlog(b)}" for n, b in enumerate(consumer.by_shard))
    if not consumer.by_shard:
        text, key = f"{consumer.name}: no position, only failed deliveries", "consumer-no-position"
    elif not consumer.workers:
        key = "consumer-no-worker"
    elif seconds > LATE_SECONDS:
        key = "consumer-stuck" if seconds > STUCK_SECONDS else "consumer-late"
    facts: dict[str, Any] = {"consumer": consumer.name, "workers": consumer.workers, "backlog": consumer.backlog.count}
    facts |= {"oldest_seconds": seconds, "moved_at": consumer.moved_at}
    shards = [{"backlog": b.count, "oldest_seconds": _seconds(b)} for b in consumer.by_shard]
    return finding("consumer", text, key, **facts, shards=shards)


def _backlog(backlog: Backlog) -> str:
    if backlog.since is None:
        return "nothing to deliver"
    return f"{backlog} change(s) to deliver, the oldest {age(backlog.since)} old"


def _seconds(backlog: Backlog) -> float:
    return max(0.0, (now() - backlog.since).total_seconds()) if backlog.since else 0.0


def troubles(survey: Survey) -> Iterator[Finding]:
    """Find workers that cannot deliver: each writes so into the name of its session, all that it can still write."""
    for pid, (code, consumer) in rows(survey.using, _TROUBLED, [TROUBLED, TROUBLED]):
        text = f"{consumer}: a worker cannot deliver, the server answers SQLSTATE {code}"
        yield finding("worker", text, "worker-trouble", consumer=consumer, sqlstate=code, pid=pid)


def bell(survey: Survey) -> Iterator[Finding]:
    """Check whether workers listen, and whether one sleeps with the lock, so that writers wake it."""
    listeners, pooled = _connections(survey, "bell"), _connections(survey, "pooled")
    if pooled:
        text = f"{len(pooled)} process(es) of hc_listen behind a pooler read the log at intervals of up to 2 s"
        yield finding("bell", text, "bell-pooled", pooled=pooled)
    if listeners or not pooled:
        yield _bell(survey, listeners)
    ((usage,),) = rows(survey.using, "SELECT pg_notification_queue_usage()")
    if usage >= QUEUE_SHARE:
        yield finding("bell", f"the queue of NOTIFY is {usage:.0%} full", "bell-queue", usage=usage)


def _connections(survey: Survey, part: str) -> list[int]:
    names = [application_name(consumer.name, part)[:63] for consumer in survey.consumers]
    return [pid for (pid,) in rows(survey.using, _NAMED, [names])]


def _bell(survey: Survey, listeners: list[int]) -> Finding:
    workers = sum(consumer.workers for consumer in survey.consumers)
    should_sleep = bool(listeners) and not any(consumer.backlog.count for consumer in survey.consumers)
    pid, name = _sleeper(survey, SLEEPER_SECONDS if should_sleep else 0.0)
    text = f"{len(listeners)} listening connection(s), {f'{name!r} is asleep' if pid else 'none asleep'}"
    key = "bell-no-sleeper" if should_sleep and not pid else ""
    key = "bell-no-listener" if workers and not listeners else key
    return finding("bell", text if workers or key else "no worker to wake", key, listeners=listeners, asleep=pid)


def _sleeper(survey: Survey, wait: float) -> tuple[Any, ...]:
    deadline = time.monotonic() + wait
    while not (found := rows(survey.using, _SLEEPER, BELL)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found[0] if found else (None, None)


def deliveries(survey: Survey) -> Iterator[Finding]:
    """Judge the failed deliveries of each consumer."""
    failed = [consumer for consumer in survey.consumers if consumer.deliveries]
    for consumer in failed:
        dead, retry, waiting = (consumer.deliveries.get(state, 0) for state in ("dead", "retry", "waiting"))
        by_receiver = _by_receiver(survey.using, consumer.name, "dead" if dead else "retry")
        counts = ", ".join(f"{count} {state}" for state, count in sorted(consumer.deliveries.items()))
        text = f"{consumer.name}: {counts}; {', '.join(by_receiver)}"
        key = "deliveries-failing" if retry or not waiting else ""  # waiting for a settled value is no failure
        key = "deliveries-dead" if dead else key
        facts = {"consumer": consumer.name, **consumer.deliveries, "receivers": by_receiver}
        yield finding("deliveries", text, key, **facts)
    if not failed:
        yield finding("deliveries", "none has failed")


def _by_receiver(using: str, consumer: str, state: str) -> dict[str, int]:
    """Return the receivers that fail most often, with the number of their failed deliveries."""
    all_of = Delivery.objects.using(using)
    searched = all_of.filter(consumer=consumer, state=state).values("pk")[:COUNTED]
    counts = all_of.filter(pk__in=searched).values_list("receiver").annotate(count=Count("pk"))
    return dict(counts.order_by("-count", "receiver")[:SHOWN])
