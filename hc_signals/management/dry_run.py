"""What ``hc_replay --dry-run`` prints, saves and compares."""

import json
import statistics
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

import hc_signals
from hc_signals.delivery.dry_run.comparing import Difference
from hc_signals.delivery.dry_run.report import FORMAT, ReceiverReport, Report
from hc_signals.postgres.moments import now, shown

_TAKEN_BACK = """Rolled back: all writes through this process's database connections, and transaction.on_commit hooks.
Not rolled back: effects outside of the databases, other connections and threads, sequences."""


def report_lines(report: Report, *, values: bool, traces: bool) -> Iterator[str]:
    """Yield the lines of a report.

    Args:
        values: show the messages of errors, which may quote values of records.
        traces: show the traceback of each error.
    """
    types = ", ".join(f"{count} {kind}" for kind, count in sorted(report.by_type.items()))
    yield f"Dry run of {report.changes} change(s){f': {types}' if types else ''}."
    for name, each in sorted(report.receivers.items()):
        yield from _receiver_lines(name, each, values=values, traces=traces)
    yield ""
    yield from _TAKEN_BACK.splitlines()
    if not report.counts_writes:
        yield "Written rows were not counted: the server's setting track_counts is off."
    for alias, reason in report.unreachable.items():
        yield f"The database {alias!r} could not be reached ({reason}): writes to it would not be rolled back."
    yield from _unasked_lines(report)


def _receiver_lines(name: str, each: ReceiverReport, *, values: bool, traces: bool) -> Iterator[str]:
    yield ""
    filtered = f", {each.filtered} more change(s) did not match its filters" if each.filtered else ""
    yield f"{name}: {each.calls} call(s), {each.failed} failed{filtered}"
    for failure in each.failures.values():
        example = f"{failure.model} {failure.record}, change {failure.replay_id}"
        yield f"  {failure.count} failed: {failure.error}; for example {example}"
        if values:
            yield f"    {failure.message}"
        if traces:
            yield from (f"    {line}" for line in failure.trace.splitlines())
    for table, written in sorted(each.written.items()):
        counts = ", ".join(f"{count} {kind}" for kind, count in written._asdict().items() if count)
        yield f"  {table}: {counts}"
    if each.seconds:
        yield f"  {each.queries} queries, at most {each.most_queries} in one call"
        total, middle, longest = sum(each.seconds), statistics.median(each.seconds), max(each.seconds)
        yield f"  {total:.3f} s, p50 {1000 * middle:.1f} ms, max {1000 * longest:.1f} ms"


def _unasked_lines(report: Report) -> Iterator[str]:
    unasked = {name: each for name, each in sorted(report.receivers.items()) if each.unasked}
    if unasked:
        yield "Called without reading event.dry_run: any effects outside of the databases have happened:"
    for name, each in unasked.items():
        hint = "" if each.gets_event else "; it gets no event: use hc_signals.events.in_dry_run()"
        yield f"  {name} ({each.unasked} of {each.calls} calls{hint})"


def as_json(report: Report, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report for a file, with the options that choose the changes."""
    chosen = {"models": options["model"], "taken_at": now().isoformat(), "hc_signals": hc_signals.__version__}
    return {**report.as_json(values=options["values"]), **chosen}


def save(path: str, report: Mapping[str, Any]) -> None:
    """Write a report into a file.

    Raises:
        CommandError: it cannot be written.
    """
    try:
        Path(path).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise CommandError(f"The report cannot be written to {path}: {error.strerror}.") from error


def load(path: str) -> dict[str, Any]:
    """Read a report from a file.

    Raises:
        CommandError: the file is no report of this version, or has no changes.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise CommandError(f"{path} holds no JSON; expected a file of `hc_replay --dry-run --save`.") from error
    version = found.get("hc_signals_dry_run") if isinstance(found, dict) else None
    if version != FORMAT:
        raise CommandError(
            f"{path} has the format {version}; expected {FORMAT}. Make it again with `hc_replay --dry-run --save` of "
            "this version of hc_signals."
        )
    if not found["changes"]:
        raise CommandError(f"{path} is a dry run without a change; there is nothing to compare.")
    return dict(found)


def comparison_lines(path: str, before: Mapping[str, Any], report: Report, found: list[Difference]) -> Iterator[str]:
    """Yield the lines of a comparison with the report in a file."""
    yield ""
    taken = shown(datetime.fromisoformat(before["taken_at"]))
    yield f"Compared with {path} of {taken}, hc_signals {before['hc_signals']}:"
    if before["changes"] != report.changes:
        yield f"  The number of changes differs: {before['changes']} → {report.changes}."
    if all(each.kind == "time" for each in found):
        yield "  no difference besides the time"
    receiver = ""
    for each in found:
        if each.receiver != receiver:
            yield f"  {each.receiver}"
        receiver = each.receiver
        yield f"    {each.kind:<12} {each.text}"
