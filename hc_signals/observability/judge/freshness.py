"""Freshness: how old changes are when they are captured, and which part of their way is slow or stuck.

The way of a change has three legs: Salesforce -> table (Heroku Connect), table -> log (capture), log -> receiver
(delivery). Capture and consumers have findings of their own, with more details. For the first leg there is only
evidence: see :mod:`hc_signals.heroku.polling`. Without any, the finding says that nothing can be known, and is no
problem.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Model

from hc_signals.heroku import polling
from hc_signals.log import minutes
from hc_signals.log.histogram import Histogram
from hc_signals.observability.findings import Finding, finding
from hc_signals.observability.judge.delivery import LATE_SECONDS
from hc_signals.observability.judge.heroku import Heroku
from hc_signals.observability.survey import Survey
from hc_signals.postgres.moments import age, now
from hc_signals.tables import model_label, table_label, table_parts

HOURS = 24
"""Hours whose freshness is shown."""
INTERVALS = 2
"""Polling intervals after which a leg is slow, or a waiting write is stuck."""
LEAST = 3
"""Least changes of the last hour that make a table slow: a single one may be repaired drift."""
SHOWN = 3
"""Most models without changes that a line names."""
AHEAD = 5.0
"""Seconds by which a systemmodstamp may lie in the future before the line says so."""

FROM_SALESFORCE, TO_LOG, TO_RECEIVER = "Salesforce -> table", "table -> log", "log -> receiver"


def freshness(survey: Survey, heroku: Heroku) -> Iterator[Finding]:
    """Show the freshness of each model, and judge the legs of each connection of Heroku Connect."""
    if not minutes.exists(survey.using):
        yield finding("freshness", "hc_signals_minute does not exist: freshness is not recorded", "minutes-missing")
        return
    stamps = polling.newest_stamps(survey.using, survey.models)
    fresh = minutes.freshness(survey.using, now() - timedelta(hours=HOURS))
    recent = minutes.freshness(survey.using, now() - timedelta(hours=1))
    for table, histogram in sorted(fresh.items()):
        seconds = heroku.poll_seconds(table, survey.conf)
        yield _of_table(table, histogram, recent.get(table), stamps.get(table), seconds)
    quiet = [model._meta.label for model in survey.models if table_label(model) not in fresh]
    if quiet:
        names = ", ".join(quiet[:SHOWN]) + (f" and {len(quiet) - SHOWN} more" if quiet[SHOWN:] else "")
        yield finding("freshness", f"no change from Salesforce in {HOURS} h: {names}", models=quiet)
    yield from _legs(survey, heroku, stamps)


def _of_table(table: str, day: Histogram, hour: Histogram | None, stamp: float | None, poll_seconds: float) -> Finding:
    p50, p95 = day.quantile(0.5) or 0.0, day.quantile(0.95) or 0.0
    newest = None if stamp is None else datetime.fromtimestamp(stamp, UTC)
    text = f"{model_label(table)}: {FROM_SALESFORCE} p50 {_time(p50)}, p95 {_time(p95)} ({day.count} changes, sampled)"
    if newest is not None:
        text += f"; newest stamp {_age(newest)} old"
        ahead = (newest - now()).total_seconds()
        text += f": it is {_time(ahead)} ahead, so the clocks differ" if ahead > AHEAD else ""
    slow = hour is not None and hour.count >= LEAST and (hour.quantile(0.5) or 0.0) > INTERVALS * poll_seconds
    if slow and hour is not None:
        text += f"; {FROM_SALESFORCE} is slow: p50 of the last hour {_time(hour.quantile(0.5) or 0.0)}"
        text += f", polled every {_time(poll_seconds)}"
    facts: dict[str, Any] = {"table": table, "p50": p50, "p95": p95, "changes": day.count, "newest": newest}
    return finding("freshness", text, "freshness-slow" if slow else "", **facts)


def _legs(survey: Survey, heroku: Heroku, stamps: Mapping[str, float]) -> Iterator[Finding]:
    schemas: dict[str, list[type[Model]]] = {}
    for model in survey.models:
        schemas.setdefault(table_parts(model)[0], []).append(model)
    for schema, models in sorted(schemas.items()):
        yield _from_salesforce(survey, heroku, schema, models, stamps)


def _later_legs(survey: Survey) -> str:
    """Name the legs behind the tables that are broken or slow, whose findings say more; empty as a rule."""
    broken = [status.table for status in survey.statuses if not status.is_captured and status.state != "absent"]
    late = [
        each.name for each in survey.consumers if each.backlog.since and _seconds(each.backlog.since) > LATE_SECONDS
    ]
    text = ""
    if broken or survey.pause.since is not None:
        text += f"; {TO_LOG} is broken, see the lines `capture`"
    if late:
        text += f"; {TO_RECEIVER} is slow for {', '.join(late)}, see the lines `consumer`"
    return text


def _seconds(since: datetime) -> float:
    return (now() - since).total_seconds()


def _from_salesforce(
    survey: Survey, heroku: Heroku, schema: str, models: Sequence[type[Model]], stamps: Mapping[str, float]
) -> Finding:
    """Judge whether one connection reads Salesforce: polls, is stuck, or nothing can be known."""
    seconds = max(heroku.poll_seconds(table_label(model), survey.conf) for model in models)
    limit = now() - timedelta(seconds=INTERVALS * seconds)
    stamp = max((stamps[table_label(model)] for model in models if table_label(model) in stamps), default=None)
    newest = None if stamp is None else datetime.fromtimestamp(stamp, UTC)
    facts: dict[str, Any] = {"schema": schema, "poll_seconds": seconds, "newest": newest}
    later = _later_legs(survey)
    if reason := _stuck(survey.using, schema, models, stamps, limit):
        text = f"{schema}: {FROM_SALESFORCE} is stuck: {reason}{later}"
        return finding("freshness", text, "freshness-stuck", **facts)
    said = heroku.states(schema)
    if newest is not None and newest > limit:
        text = f"{schema}: {FROM_SALESFORCE} works, the newest change is {_age(newest)} old"
    else:
        what = f"the newest change is {_age(newest)} old" if newest else "no systemmodstamp can be read"
        text = f"{schema}: {FROM_SALESFORCE} is quiet or stuck, {what}"
        text += f"; Heroku Connect says {said}" if said else f"; {heroku.advice}"
    return finding("freshness", text + later, **facts)


def _stuck(using: str, schema: str, models: Sequence[type[Model]], stamps: Mapping[str, float], limit: datetime) -> str:
    """Return why Heroku Connect must be stuck; empty if nothing shows that."""
    found = polling.writes(using, schema)
    if found is None:
        return ""
    is_busy = found.processed_at is not None and found.processed_at > limit
    if found.waiting_since is not None and found.waiting_since < limit and not is_busy:
        return f"{found.waiting} write(s) of the app wait for Salesforce, the oldest for {age(found.waiting_since)}"
    for model in models:
        record, accepted_at = (found.accepted or {}).get(table_parts(model)[1], (0, None))
        stamp = stamps.get(table_label(model))
        if accepted_at is None or accepted_at > limit or stamp is None:
            continue
        if stamp < accepted_at.timestamp() - polling.CLOCKS and polling.is_unread(using, model, record, accepted_at):
            return f"{model._meta.label} {record} was accepted by Salesforce {age(accepted_at)} ago and not read back"
    return ""


def _age(since: datetime) -> str:
    # Not in seconds: two readings of a busy table would differ.
    return age(since) if _seconds(since) >= 120 else "less than 2 min"


def _time(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
