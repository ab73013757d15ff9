"""The log: gaps in it, its size, and the consumers that keep old changes in it."""

from collections.abc import Iterator
from datetime import timedelta

from hc_signals.log.figures import Buckets, buckets, recent_gaps, unreported_losses
from hc_signals.observability.findings import Finding, fine, problem
from hc_signals.observability.survey import Survey
from hc_signals.postgres.moments import age, now
from hc_signals.tables import model_label

RECENT_CHANGES = 10_000
"""Newest changes that are searched for gaps."""
RECENT = timedelta(hours=24)
"""Older gaps are not shown."""
LARGE = 0.8
"""Share of MAX_LOG_MB from which on the log is large."""
FULL = 0.95
"""Share of its limit from which on a bucket is full."""


def gaps(using: str) -> Iterator[Finding]:
    """Find changes that were missed: those without a gap in the log yet, and those with a recent one."""
    lost = unreported_losses(using)
    if lost > 0:
        yield problem("gaps-lost", "gaps", f"{lost} statement(s) were not captured, the gap is not sent yet", lost=lost)
    found = recent_gaps(using, RECENT_CHANGES, now() - RECENT)
    for each in found:
        text = f"{model_label(each.table)}: {each.number} ({each.cause}), the last {age(each.newest)} ago"
        counted = {"table": each.table, "count": each.number, "last": each.newest}
        yield problem("gaps-recent", "gaps", text, cause=each.cause, **counted)
    if not found and lost <= 0:
        yield fine("gaps", f"none in {age(now() - RECENT)}, among the newest {RECENT_CHANGES} changes")


def retention(survey: Survey) -> Iterator[Finding]:
    """Judge the size of the log, and name the consumers that hold up its rotation."""
    size, limit, held = survey.log_mb, survey.conf.MAX_LOG_MB, buckets(survey.using)
    text = f"{size:.1f} of {limit} MB" + (f", the oldest change {age(held.oldest)} old" if held.oldest else ", empty")
    facts = {"mb": round(size, 1), "max_mb": limit, "oldest": held.oldest, "buckets": held.filled}
    if size > limit:
        yield problem("log-too-large", "log", text, **facts)
    elif size > LARGE * limit:
        yield problem("log-large", "log", text, **facts)
    else:
        yield fine("log", text, **facts)
    yield from _newest_bucket(held)
    for consumer in survey.consumers:
        if consumer.holds_up_rotation:
            hours = f"{survey.conf.RETENTION_HOURS:g} h"
            text = f"{consumer.name} holds up the rotation: changes older than {hours} must stay"
            yield problem("log-held-up", "log", text, consumer=consumer.name)


def _newest_bucket(held: Buckets) -> Iterator[Finding]:
    size, most = held.newest_bytes, held.max_bytes
    if most and size > FULL * most:
        text = f"the newest bucket has {size / 2**20:.0f} of {most / 2**20:.0f} MB: capture stops there"
        yield problem("log-bucket-full", "log", text, bytes=size, max_bytes=most)
