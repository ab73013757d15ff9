"""``manage.py hc_simulate``: plays Heroku Connect on a development database."""

import secrets
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from hc_signals.management.arguments import at_least
from hc_signals.management.command import OwnCommand
from hc_signals.management.interruption import interruptible
from hc_signals.testing.heroku_connect import POLL_SIZE, HerokuConnect

PROGRESS_EVERY = 2.0
"""Seconds between two lines of progress."""


class Command(OwnCommand):
    help = (
        "Play Heroku Connect: create the tables of the connected models and write to them what changes in an invented "
        "Salesforce. For development databases; it refuses the schema of a real Heroku Connect."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        known = ", ".join(HerokuConnect.ACTIONS)
        super().add_arguments(parser)
        parser.add_argument(
            "--seed", type=int, help="the same seed invents the same records on empty tables (default: a random one)"
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
        parser.add_argument("--create-only", action="store_true", help="create the tables and stop")

    def handle(self, *args: Any, **options: Any) -> None:
        actions = [action.strip() for action in options["actions"].split(",")]
        for action in actions:
            if action not in HerokuConnect.ACTIONS:
                known = ", ".join(HerokuConnect.ACTIONS)
                raise CommandError(f"--actions: {action!r} is unknown; expected some of: {known}.", returncode=2)
        # A random default: a second run with the same seed would invent the same External IDs, and they are unique.
        seed = secrets.randbelow(2**32) if options["seed"] is None else options["seed"]
        simulator = HerokuConnect(options["database"], seed=seed)
        if not simulator.models:
            raise CommandError("There are no connected models in INSTALLED_APPS: nothing to simulate.")
        simulator.create_tables()
        for model in simulator.models:
            self.stderr.write(f"hc_simulate: the table of {model._meta.label} exists")
        if not options["create_only"]:
            self._play(simulator, actions, options)

    def _play(self, simulator: HerokuConnect, actions: list[str], options: dict[str, Any]) -> None:
        start = reported = time.monotonic()
        end = float("inf") if options["duration"] is None else start + options["duration"]
        written = 0
        with interruptible() as interruption:
            for step in simulator.play(actions, options["batch"]):
                written += step.records
                interruption.sleep(min(start + written / options["rate"], end) - time.monotonic())
                now = time.monotonic()
                if now - reported >= PROGRESS_EVERY:
                    reported = now
                    self.stderr.write(self._summary(simulator, written, now - start))
                if interruption or now >= end:
                    break
        self.stderr.write(self._summary(simulator, written, time.monotonic() - start) + "; stopped")

    def _summary(self, simulator: HerokuConnect, written: int, seconds: float) -> str:
        return (
            f"hc_simulate: {seconds:.0f} s, {written} records written, {simulator.changes} of them changes "
            f"({written / max(seconds, 0.001):.0f}/s)"
        )
