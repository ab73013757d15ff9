"""Plays a record, step by step."""

from collections.abc import Callable
from pathlib import Path

from specs.follows.bell import Bell, check_lock
from specs.follows.reader import Reader
from specs.follows.record import Refused, Step, log_in, steps_in
from specs.follows.report import PROOFS, Refusal, Report
from specs.follows.writers import Writers


def check(directory: Path) -> Report:
    """Play the record in a directory; return what was refused."""
    report = Report()
    log = log_in(directory / "log.txt")
    own = [*steps_in(directory / "writers.jsonl")]
    writers = Writers(own, log)
    report.steps = sum(step["step"] in ("write", "back", "end", "end.seen") for step in own)
    del own
    files = sorted(set(directory.glob("*.jsonl")) - {directory / "writers.jsonl", directory / "end.jsonl"})
    steps = sorted((step for file in files for step in steps_in(file)), key=lambda step: step["t"])
    about = {step["process"]: step for step in steps if step["step"] == "process"}
    reader = Reader(log, writers, report, {each["consumer"] for each in about.values() if each["atomic"] == "False"})
    bells = {name: Bell(name, each["consumer"], int(each["shards"]), writers, report) for name, each in about.items()}
    played: dict[str, Callable[[str, Step], None]] = {
        "claim": reader.claim,
        "open": reader.window_opens,
        "page": reader.page,
        "gap": reader.gap,
        "store": reader.store,
        "forget": reader.forget,
        "commit": reader.commit_sent,
        "ended": reader.ended,
    }
    for step in steps:
        process, name = step["process"], step["step"]
        consumer = about[process]["consumer"]
        if name == "process" or consumer in report.refusals:
            continue
        report.steps += 1
        report.seen[name] += 1
        try:
            if name in played:
                played[name](process, step)
            else:
                bells[process].play(step, reader)
        except Refused as refused:
            report.refusals[consumer] = Refusal(consumer, refused.rule, str(refused), process, step["line"])
    for consumer, reason in reader.end(steps_in(directory / "end.jsonl")):
        report.refusals.setdefault(consumer, Refusal(consumer, reason.rule, str(reason), "end", 0))
    check_lock(bells.values(), writers, report)
    report.missing = [name for name in PROOFS if not report.seen[name]]
    return report
