"""``manage.py hc_status``: the whole system on one screen, with a verdict and a remedy for each thing."""

import json
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from django.core.management.base import CommandError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError, InterfaceError, connections
from django.utils.connection import ConnectionDoesNotExist

from hc_signals.conf import Conf, get_conf
from hc_signals.exceptions import ConfigurationError
from hc_signals.management.arguments import at_least
from hc_signals.management.command import OwnCommand
from hc_signals.management.interruption import Interruption, interruptible
from hc_signals.observability.findings import Finding, Verdict, worst
from hc_signals.observability.judge import examine
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import now, shown


class Command(OwnCommand):
    help = "Tell on one screen how everything is: server, capture, consumers, doorbell, deliveries, gaps, log, Heroku."

    HEROKU_EVERY = 60.0
    """With --watch: seconds between two questions to Heroku Connect's API."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", default="default", help="database alias (default: default)")
        parser.add_argument("--json", action="store_true", help="for programs; with --watch one line per look")
        parser.add_argument("--strict", action="store_true", help="exit 1 for a warning too")
        parser.add_argument("--verbose", action="store_true", help="messages of Salesforce too: they may hold contents")
        parser.add_argument(
            "--watch",
            nargs="?",
            type=at_least(0.2),
            const=2.0,
            metavar="SECONDS",
            help="look again and again until Ctrl-C, which exits 0 (default: every 2 s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.using, self.options = options["database"], options
        try:
            conf = get_conf()
            if options["watch"]:
                with interruptible() as interruption:
                    self._watch(conf, interruption)
                return
            found = self._examine(conf)
        except (ConfigurationError, ConnectionDoesNotExist) as error:
            raise CommandError(str(error)) from error
        except (DatabaseError, InterfaceError) as error:
            raise CommandError(_sentence(self.using, error)) from error
        self._print(found)
        verdict = worst(found)
        if verdict is Verdict.ERROR or (verdict is Verdict.WARN and options["strict"]):
            raise CommandError(_summary(found))

    def _examine(self, conf: Conf, ask_heroku: bool = True) -> list[Finding]:
        return examine(self.using, conf, verbose=self.options["verbose"], ask_heroku=ask_heroku)

    def _watch(self, conf: Conf, interruption: Interruption) -> None:
        heroku: list[Finding] = []
        ask_at = 0.0
        while not interruption:
            is_due = time.monotonic() >= ask_at
            try:
                found = self._examine(conf, is_due)
            except (DatabaseError, InterfaceError) as error:
                connections[self.using].close()
                self.stderr.write(_sentence(self.using, error))
            else:
                if is_due:
                    ask_at = time.monotonic() + self.HEROKU_EVERY
                    heroku = [finding for finding in found if finding.name == "heroku"]
                self._clear()
                self._print(found if is_due else found + heroku)
            _pause(self.options["watch"], interruption)

    def _clear(self) -> None:
        if self.stdout.isatty() and not self.options["json"]:
            self.stdout.write("\x1b[H\x1b[2J", ending="")

    def _print(self, found: Sequence[Finding]) -> None:
        if self.options["json"]:
            self.stdout.write(_json(self.using, found, None if self.options["watch"] else 2))
            return
        self.stdout.write(f"hc_status of {self.using!r}, {shown(now())}")
        for finding, following in pairwise([*found, None]):
            assert finding is not None  # noqa: S101  (only the last is)
            self.stdout.write(f"{self._painted(finding.verdict)} {finding.name:<11} {finding.text}")
            # Of several alike, the remedy is said once.
            if finding.problem and (following is None or following.problem != finding.problem):
                self.stdout.write(f"{'':<18}-> {finding.remedy} [{finding.problem}]")
        self.stdout.write(_summary(found))

    def _painted(self, verdict: Verdict) -> str:
        styles = {Verdict.OK: self.style.SUCCESS, Verdict.WARN: self.style.WARNING, Verdict.ERROR: self.style.ERROR}
        return str(styles[verdict](f"{verdict:<5}"))


def _pause(seconds: float, interruption: Interruption) -> None:
    deadline = time.monotonic() + seconds
    while not interruption and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))


def _summary(found: Sequence[Finding]) -> str:
    counts = {verdict: sum(finding.verdict is verdict for finding in found) for verdict in Verdict}
    if worst(found) is Verdict.OK:
        return "All is well."
    counted = f"{counts[Verdict.ERROR]} error(s), {counts[Verdict.WARN]} warning(s)"
    return f"{counted}; docs/operations.md has each by its [name]."


def _json(using: str, found: Sequence[Finding], indent: int | None) -> str:
    report = {
        "verdict": worst(found),
        "database": using,
        "checked_at": now(),
        "findings": [asdict(finding) for finding in found],
    }
    return json.dumps(report, cls=DjangoJSONEncoder, indent=indent)


def _sentence(using: str, error: Exception) -> str:
    return f"The database {using!r} answered: {one_line(error)}"
