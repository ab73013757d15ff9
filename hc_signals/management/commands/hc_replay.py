"""``manage.py hc_replay``: sends past changes of the log again."""

import sys
from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from hc_signals.conf import get_conf
from hc_signals.delivery.replay import Replay, ReplayRun
from hc_signals.management.arguments import moment, moment_or_replay_id, replay_id
from hc_signals.management.choice import check_receivers, connected_model
from hc_signals.management.command import OwnCommand, answered, continuation
from hc_signals.management.interruption import interruptible
from hc_signals.management.progress import COUNT_LIMIT, Progress
from hc_signals.tables import connected_models


class Command(OwnCommand):
    help = (
        "Send past changes of the log again, in order, without moving any position. Ctrl-C or SIGTERM ends it after "
        "the current change (exit code 130 or 143) and prints the command that continues."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        first = parser.add_mutually_exclusive_group(required=True)
        first.add_argument("--since", type=moment, metavar="TIME", help="90m, 2h, 3d, or ISO 8601")
        first.add_argument("--from", dest="first", type=replay_id, metavar="REPLAY_ID", help="the first change")
        parser.add_argument("--until", type=moment_or_replay_id, metavar="TIME|REPLAY_ID", help="default: now")
        parser.add_argument("--model", nargs="+", action="extend", metavar="app.Model", help="default: all connected")
        parser.add_argument("--receiver", nargs="+", action="extend", metavar="dotted.path", help="default: all")
        parser.add_argument("--yes", action="store_true", help="do not ask before all receivers are called")

    def handle(self, *args: Any, **options: Any) -> None:
        using, first, last = options["database"], options["since"] or options["first"], options["until"]
        if last is not None and type(first) is type(last) and last < first:
            raise CommandError("--until lies before the start; nothing would be replayed.", returncode=2)
        self.require_log(using)
        models = [connected_model(label) for label in options["model"] or ()] or connected_models()
        replay = Replay(using, get_conf(), models, options["receiver"])
        check_receivers(options["receiver"] or (), replay.known_receivers())
        run = replay.start(first, last)
        count = run.count(COUNT_LIMIT + 1)
        self._confirm(replay, count, options)
        self._run(run, count, options)

    def _confirm(self, replay: Replay, count: int, options: dict[str, Any]) -> None:
        if options["receiver"] or options["yes"] or not count:
            return
        many = f"more than {COUNT_LIMIT}" if count > COUNT_LIMIT else str(count)
        names = "\n  ".join(sorted(replay.receivers)) or "(none)"
        self.stderr.write(f"{many} changes are sent again to every receiver:\n  {names}")
        if not sys.stdin.isatty():
            raise CommandError("Choose with --receiver, or say --yes.", returncode=2)
        if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was replayed.")

    def _run(self, run: ReplayRun, count: int, options: dict[str, Any]) -> None:
        progress = Progress(self.stderr, "hc_replay", count)
        with interruptible() as interruption:
            try:
                while not run.finished and not interruption:
                    progress.advance(run.page(lambda: bool(interruption)))
            except DatabaseError as error:
                progress.close()
                sentence = answered(options["database"], error)
                raise CommandError(f"{sentence}; go on with: {_command(run, options)}") from error
            progress.close()
        if not run.finished:
            self.stderr.write(f"hc_replay: interrupted; go on with: {_command(run, options)}")
            sys.exit(interruption.exit_code)


def _command(run: ReplayRun, options: dict[str, Any]) -> str:
    first, last = run.rest
    last = options["until"].isoformat() if isinstance(options["until"], datetime) else last
    words = ["hc_replay", "--from", first, "--until", last]
    return continuation(words, options, model=None, receiver=None, yes=False, database="default")
