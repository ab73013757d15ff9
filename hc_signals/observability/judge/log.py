"""The log: gaps in it, its size, and the consumers that keep old changes in it."""

from collections.abc import Iterator
from datetime import timedelta

from hc_signals.log.figures import buckets, recent_gaps, unreported_losses
from hc_signals.observability.findings import Finding, finding
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
        yield finding("gaps", f"{lost} statement(s) were not captured, the gap is not sent yet", "gaps-lost", lost=lost)
    found = recent_gaps(using, RECENT_CHANGES, now() - RECENT)
    for each in found:
        whose = "every model" if each.table is None else model_label(each.table)
        text = f"{whose}: {each.number} ({each.cause}), the last {age(each.newest)} ago"
        counted = {"table": each.table, "count": each.number, "last": each.newest}
        yield finding("gaps", text, "gaps-recent", cause=each.cause, **counted)
    if not found and lost <= 0:
        yield finding("gaps", f"none in {age(now() - RECENT)}, among the newest {RECENT_CHANGES} changes")


def retention(survey: Survey) -> Iterator[Finding]:
    """Judge the size of the log and of its newest bucket, and name the consumers that hold up its rotation."""
    size, limit, held = survey.log_mb, survey.conf.MAX_LOG_MB, buckets(survey.using)
    text = f"{size:.1f} of {limit} MB" + (f", the oldest change {age(held.oldest)} old" if held.oldest else ", empty")
    facts = {"mb": round(size, 1), "max_mb": limit, "oldest": held.oldest, "buckets": held.filled}
    key = "log-too-large" if size > limit else "log-large" if size > LARGE * limit else ""
    yield finding("log", text, key, **facts)
    size, most = held.newest_bytes, held.max_bytes
    if most and size > FULL * most:
        text = f"the newest bucket has {size / 2**20:.0f} of {most / 2**20:.0f} MB: capture stops there"
        yield finding("log", text, "log-bucket-full", bytes=size, max_bytes=most)
    for consumer in survey.consumers:
        if consumer.holds_up_rotation:
            hours = f"{survey.conf.RETENTION_HOURS:g} h"
            text = f"{consumer.name} holds up the rotation: changes older than {hours} must stay"
            yield finding("log", text, "log-held-up", consumer=consumer.name)
