"""``manage.py hc_replay``: sends past changes of the log again, or tries what receivers would do with them."""

import sys
from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from hc_signals.conf import get_conf
from hc_signals.delivery.dry_run.comparing import compare
from hc_signals.delivery.dry_run.running import DryRun
from hc_signals.delivery.failure_log import log_counted
from hc_signals.delivery.replay import Replay, ReplayRun
from hc_signals.management import dry_run
from hc_signals.management.arguments import moment, moment_or_replay_id, replay_id
from hc_signals.management.choice import check_receivers, connected_model
from hc_signals.management.command import OwnCommand, answered, continuation
from hc_signals.management.interruption import Interruption, interruptible
from hc_signals.management.progress import COUNT_LIMIT, Progress
from hc_signals.tables import connected_models


class Command(OwnCommand):
    help = (
        "Send past changes of the log again, in order, without moving any position. Ctrl-C or SIGTERM ends it after "
        "the current change (exit code 130 or 143) and prints the command that continues. With --dry-run everything "
        "that receivers write is rolled back, and a report says what they did."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        first = parser.add_mutually_exclusive_group()
        first.add_argument("--since", type=moment, metavar="TIME", help="90m, 2h, 3d, or ISO 8601")
        first.add_argument("--from", dest="first", type=replay_id, metavar="REPLAY_ID", help="the first change")
        first.add_argument(
            "--against", metavar="FILE", help="dry run: the changes of this saved report; compare with it"
        )
        parser.add_argument("--until", type=moment_or_replay_id, metavar="TIME|REPLAY_ID", help="default: now")
        parser.add_argument("--model", nargs="+", action="extend", metavar="app.Model", help="default: all connected")
        parser.add_argument("--receiver", nargs="+", action="extend", metavar="dotted.path", help="default: all")
        parser.add_argument("--yes", action="store_true", help="do not ask before all receivers are called")
        text = "roll everything back and report calls, errors, written rows, queries, time; receivers see event.dry_run"
        parser.add_argument("--dry-run", action="store_true", help=text)
        parser.add_argument("--save", metavar="FILE", help="dry run: write the report to this file, for --against")
        text = "dry run: show the messages of errors, which may quote values of records"
        parser.add_argument("--values", action="store_true", help=text)

    def handle(self, *args: Any, **options: Any) -> None:
        _check_usage(options)
        using = options["database"]
        self.require_log(using)
        before = dry_run.load(options["against"]) if options["against"] else None
        if before:
            options |= {"first": before["first"], "until": before["last"], "model": before["models"]}
        models = [connected_model(label) for label in options["model"] or ()] or connected_models()
        replay = Replay(using, get_conf(), models, options["receiver"])
        check_receivers(options["receiver"] or (), replay.known_receivers())
        kind = DryRun if options["dry_run"] else ReplayRun
        run = kind(replay, options["since"] or options["first"], options["until"])
        count = run.count(COUNT_LIMIT + 1)
        self._confirm(replay, count, options)
        if isinstance(run, DryRun):
            self._try(run, count, before, options)
        else:
            self._run(run, count, options)

    def _confirm(self, replay: Replay, count: int, options: dict[str, Any]) -> None:
        if options["receiver"] or options["yes"] or not count:
            return
        many = f"more than {COUNT_LIMIT}" if count > COUNT_LIMIT else str(count)
        names = "\n  ".join(sorted(replay.receivers)) or "(none)"
        how = "sent in a dry run, which takes back writes to databases only," if options["dry_run"] else "sent again"
        self.stderr.write(f"{many} changes are {how} to every receiver:\n  {names}")
        if not sys.stdin.isatty():
            raise CommandError("Choose with --receiver, or say --yes.", returncode=2)
        if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was replayed.")

    def _run(self, run: ReplayRun, count: int, options: dict[str, Any]) -> None:
        try:
            interruption = self._send(run, count)
        except DatabaseError as error:
            sentence = answered(options["database"], error)
            raise CommandError(f"{sentence}; go on with: {_command(run, options)}") from error
        if not run.finished:
            self.stderr.write(f"hc_replay: interrupted; go on with: {_command(run, options)}")
            sys.exit(interruption.exit_code)

    def _send(self, run: ReplayRun, count: int) -> Interruption:
        progress = Progress(self.stderr, "hc_replay", count)
        with interruptible() as interruption:
            try:
                while not run.finished and not interruption:
                    progress.advance(run.page(lambda: bool(interruption)))
            finally:
                log_counted()
                progress.close()
        return interruption

    def _try(self, run: DryRun, count: int, before: dict[str, Any] | None, options: dict[str, Any]) -> None:
        """Make a dry run; print and save its report also after an interruption or an error."""
        try:
            interruption = self._send(run, count)
        finally:
            for line in dry_run.report_lines(run.report, values=options["values"], traces=options["verbosity"] > 1):
                self.stdout.write(line)
            found = dry_run.as_json(run.report, options)
            if options["save"]:
                dry_run.save(options["save"], found)
        if not run.finished:
            self.stderr.write("hc_replay: interrupted; the report has the changes up to then.")
            sys.exit(interruption.exit_code)
        if before:
            self._compare(before, run, found, options)

    def _compare(self, before: dict[str, Any], run: DryRun, found: dict[str, Any], options: dict[str, Any]) -> None:
        if options["receiver"]:
            before["receivers"] = {k: v for k, v in before["receivers"].items() if k in run.report.receivers}
        differences = compare(before, found)
        for line in dry_run.comparison_lines(options["against"], before, run.report, differences):
            self.stdout.write(line)
        if new := sum(each.is_new_error for each in differences):
            raise CommandError(f"{new} error(s) are new or more frequent than in {options['against']}.")


def _check_usage(options: dict[str, Any]) -> None:
    """Raise a CommandError if the options do not fit together."""
    first, last = options["since"] or options["first"], options["until"]
    if not (first or options["against"]):
        raise CommandError("No start was given: say --since or --from, or --against with --dry-run.", returncode=2)
    if last is not None and type(first) is type(last) and last < first:
        raise CommandError("--until lies before the start; nothing would be replayed.", returncode=2)
    if not options["dry_run"] and (wrong := [each for each in ("save", "against", "values") if options[each]]):
        raise CommandError(f"--{wrong[0]} needs --dry-run.", returncode=2)
    if options["against"] and (options["until"] or options["model"]):
        raise CommandError("--against takes the changes of its file: leave out --until and --model.", returncode=2)


def _command(run: ReplayRun, options: dict[str, Any]) -> str:
    first, last = run.rest
    last = options["until"].isoformat() if isinstance(options["until"], datetime) else last
    words = ["hc_replay", "--from", first, "--until", last]
    return continuation(words, options, model=None, receiver=None, yes=False, database="default")
