"""``manage.py hc_status``: shows the whole system on one screen, with a verdict and a remedy for each thing."""

import difflib
import json
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error, connections

from hc_signals.conf import Conf, get_conf
from hc_signals.management.arguments import at_least
from hc_signals.management.command import OwnCommand, answered
from hc_signals.management.interruption import Interruption, interruptible
from hc_signals.observability.findings import PROBLEMS, Finding, Verdict, worst
from hc_signals.observability.judge import examine
from hc_signals.observability.judge.heroku import Heroku, ask
from hc_signals.observability.runbook import section
from hc_signals.postgres.moments import now, shown


class Command(OwnCommand):
    help = "Show on one screen: server, capture, consumers, doorbell, deliveries, gaps, log, Heroku Connect."

    HEROKU_EVERY = 60.0
    """Seconds between two questions to Heroku Connect's API with --watch."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--json", action="store_true", help="for programs; with --watch one line each time")
        parser.add_argument("--strict", action="store_true", help="exit 1 for a warning too")
        parser.add_argument("--verbose", action="store_true", help="show messages of Salesforce: they may quote values")
        text = "print the runbook's section about this problem: a [name] of the output, such as consumer-no-worker"
        parser.add_argument("--explain", metavar="NAME", help=text)
        text, every = "repeat until Ctrl-C, which exits 0 (default: every 2 s)", at_least(0.2)
        parser.add_argument("--watch", nargs="?", type=every, const=2.0, metavar="SECONDS", help=text)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["explain"]:
            self.stdout.write(_explained(options["explain"]))
            return
        self.using, self.options = options["database"], options
        conf = get_conf()
        if options["watch"]:
            with interruptible() as interruption:
                self._watch(conf, interruption)
            return
        found = self._examine(conf)
        verdict = worst(found)
        is_bad = verdict is Verdict.ERROR or (verdict is Verdict.WARN and options["strict"])
        self._print(found, has_summary=not is_bad)
        if is_bad:
            raise CommandError(_summary(found))  # Django prints it

    def _examine(self, conf: Conf, answer: Heroku | None = None) -> list[Finding]:
        return examine(self.using, conf, verbose=self.options["verbose"], answer=answer)

    def _watch(self, conf: Conf, interruption: Interruption) -> None:
        ask_at = 0.0
        answer = Heroku()
        while not interruption:
            if time.monotonic() >= ask_at:
                answer, ask_at = ask(), time.monotonic() + self.HEROKU_EVERY
            try:
                found = self._examine(conf, answer)
            except Error as error:
                connections[self.using].close()
                self.stderr.write(answered(self.using, error))
            else:
                if self.stdout.isatty() and not self.options["json"]:
                    self.stdout.write("\x1b[H\x1b[2J", ending="")  # an empty screen
                self._print(found)
            interruption.sleep(self.options["watch"])

    def _print(self, found: Sequence[Finding], *, has_summary: bool = True) -> None:
        if self.options["json"]:
            findings = [asdict(finding) for finding in found]
            report = {"verdict": worst(found), "database": self.using, "checked_at": now(), "findings": findings}
            indent = None if self.options["watch"] else 2
            self.stdout.write(json.dumps(report, cls=DjangoJSONEncoder, indent=indent))
            return
        self.stdout.write(f"hc_status of {self.using!r}, {shown(now())}")
        for finding, following in zip(found, [*found[1:], None], strict=True):
            self.stdout.write(f"{self._painted(finding.verdict)} {finding.name:<11} {finding.text}")
            # Lines with the same problem share one remedy, below the last of them.
            if finding.problem and (following is None or following.problem != finding.problem):
                self.stdout.write(f"{'':<18}-> {finding.remedy} [{finding.problem}]")
        if has_summary:
            self.stdout.write(_summary(found))

    def _painted(self, verdict: Verdict) -> str:
        styles = {Verdict.OK: self.style.SUCCESS, Verdict.WARN: self.style.WARNING, Verdict.ERROR: self.style.ERROR}
        return str(styles[verdict](f"{verdict:<5}"))


def _summary(found: Sequence[Finding]) -> str:
    counts = {verdict: sum(finding.verdict is verdict for finding in found) for verdict in Verdict}
    if worst(found) is Verdict.OK:
        return "All is well."
    counted = f"{counts[Verdict.ERROR]} error(s), {counts[Verdict.WARN]} warning(s)"
    return f"{counted}; `manage.py hc_status --explain NAME` has more about each [name]."


def _explained(name: str) -> str:
    """Return the section of the runbook about a problem; raise a CommandError if there is no such problem."""
    if name not in PROBLEMS:
        near = difflib.get_close_matches(name, PROBLEMS, n=3, cutoff=0.5)
        known = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(PROBLEMS)}."
        raise CommandError(f"hc_status finds no problem with the name {name!r}; {known}")
    return section(name)
