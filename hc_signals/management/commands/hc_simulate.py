"""``manage.py hc_simulate``: plays Heroku Connect on a development database."""

import secrets
import signal
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError
from django.utils.connection import ConnectionDoesNotExist

from hc_signals.management.arguments import at_least
from hc_signals.management.command import OwnCommand
from hc_signals.postgres.errors import one_line
from hc_signals.testing.heroku_connect import POLL_SIZE, HerokuConnect, RealHerokuConnectError
from hc_signals.testing.inventing import NoValueLeftError

PROGRESS_EVERY = 2.0
"""Seconds between two lines of progress."""


class Command(OwnCommand):
    help = (
        "Play Heroku Connect: make the tables of the connected models and write to them as Salesforce's changes "
        "arrive. For development databases only; a schema of a real Heroku Connect is refused."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        known = ", ".join(HerokuConnect.ACTIONS)
        parser.add_argument("--database", default="default", help="database alias (default: default)")
        parser.add_argument(
            "--seed", type=int, help="the same seed plays the same records on empty tables (default: another each time)"
        )
        parser.add_argument("--duration", type=at_least(0.0), help="seconds to play (default: until Ctrl-C or SIGTERM)")
        parser.add_argument("--rate", type=at_least(0.1), default=50.0, help="records per second (default: 50)")
        parser.add_argument(
            "--batch", type=at_least(1), default=POLL_SIZE, help=f"records of the largest poll (default: {POLL_SIZE})"
        )
        parser.add_argument(
            "--actions",
            default=",".join(HerokuConnect.EVERYDAY),
            help=f"comma-separated, of: {known} (default: {','.join(HerokuConnect.EVERYDAY)})",
        )
        parser.add_argument("--create-only", action="store_true", help="make the tables and stop")

    def handle(self, *args: Any, **options: Any) -> None:
        actions = [action.strip() for action in options["actions"].split(",")]
        for action in actions:
            if action not in HerokuConnect.ACTIONS:
                known = ", ".join(HerokuConnect.ACTIONS)
                raise CommandError(f"--actions: {action!r} is unknown; expected some of: {known}.", returncode=2)
        # Another each time: one that is started again would invent the same External IDs, and they are unique.
        seed = secrets.randbelow(2**32) if options["seed"] is None else options["seed"]
        simulator = HerokuConnect(options["database"], seed=seed)
        if not simulator.models:
            raise CommandError("There are no connected models in INSTALLED_APPS: nothing to simulate.")
        try:
            simulator.create_tables()
            for model in simulator.models:
                self.stderr.write(f"hc_simulate: table of {model._meta.label} is there")
            if not options["create_only"]:
                self._play(simulator, actions, options)
        except (RealHerokuConnectError, NoValueLeftError, ConnectionDoesNotExist) as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"The database answered: {one_line(error)}") from error

    def _play(self, simulator: HerokuConnect, actions: list[str], options: dict[str, Any]) -> None:
        self._stopping = False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        start = told = time.monotonic()
        written = 0
        for step in simulator.play(actions, options["batch"]):
            written += step.records
            due = start + written / options["rate"]
            while not self._stopping and not self._over(start, options) and (now := time.monotonic()) < due:
                time.sleep(min(0.1, due - now))
            now = time.monotonic()
            if now - told >= PROGRESS_EVERY:
                told = now
                self.stderr.write(self._summary(simulator, written, now - start))
            if self._stopping or self._over(start, options):
                break
        self.stderr.write(self._summary(simulator, written, time.monotonic() - start) + "; stopped")

    def _over(self, start: float, options: dict[str, Any]) -> bool:
        return options["duration"] is not None and time.monotonic() - start >= options["duration"]

    def _stop(self, number: int, frame: Any) -> None:
        self._stopping = True

    def _summary(self, simulator: HerokuConnect, written: int, seconds: float) -> str:
        return (
            f"hc_simulate: {seconds:.0f} s, {written} records written, {simulator.changes} of them changes "
            f"({written / max(seconds, 0.001):.0f}/s)"
        )
