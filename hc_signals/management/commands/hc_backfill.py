"""``manage.py hc_backfill``: writes current rows to the log as SNAPSHOT changes; hc_listen delivers them."""

import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError
from django.db.models import Model

from hc_signals.capture.snapshots import check_captured, count_rows, has_room, log_table
from hc_signals.conf import Conf, get_conf
from hc_signals.delivery.listeners import Extras, Listeners
from hc_signals.delivery.routing import signals_of
from hc_signals.log.figures import stored_at
from hc_signals.management.arguments import at_least, moment
from hc_signals.management.choice import check_receivers, connected_model
from hc_signals.management.command import OwnCommand, answered, continuation
from hc_signals.management.interruption import Interruption, interruptible
from hc_signals.management.progress import COUNT_LIMIT, Progress
from hc_signals.tables import connected_models


class Command(OwnCommand):
    help = (
        "Write the current rows of tables to the log as SNAPSHOT changes; hc_listen delivers them in order with the "
        "others. Ctrl-C or SIGTERM ends it after the current page (exit code 130 or 143) and prints the command that "
        "continues."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("models", nargs="+", metavar="app.Model")
        text = "deliver the rows to these receivers (default: to all)"
        parser.add_argument("--receiver", nargs="+", action="extend", metavar="dotted.path", help=text)
        parser.add_argument("--consumer", metavar="NAME", help="deliver them to it (default: HC_SIGNALS['CONSUMER'])")
        parser.add_argument("--since", type=moment, metavar="TIME", help="only rows changed since: 2h, or ISO 8601")
        parser.add_argument("--page-size", type=at_least(1), default=500, help="rows per transaction (default: 500)")
        parser.add_argument("--after", type=int, metavar="KEY", help="only rows of the first model with larger ids")
        parser.add_argument("--rate", type=at_least(0.1), help="most rows per second (default: no limit)")

    def handle(self, *args: Any, **options: Any) -> None:
        self.options, self.using, self.after, self.done = options, options["database"], options["after"], 0
        self.require_log(self.using)
        conf = get_conf()
        self.models = list(dict.fromkeys(connected_model(label) for label in options["models"]))
        for model in self.models:
            check_captured(model, self.using)
        if options["consumer"] in (None, conf.CONSUMER):
            _check_listeners(self.models, conf, options["receiver"] or [])
        elif options["consumer"] not in (known := sorted(stored_at(self.using))):
            found = f"There is no consumer {options['consumer']!r}"
            raise CommandError(f"{found}; known: {', '.join(known) or 'none'}.")
        self.note: dict[str, Any] = {"consumer": options["consumer"] or conf.CONSUMER}
        self.note |= {"receivers": options["receiver"]} if options["receiver"] else {}
        self._run()

    def _run(self) -> None:
        self.progress = Progress(self.stderr, "hc_backfill", self._count())
        self.began = time.monotonic()
        with interruptible() as interruption:
            try:
                while self.models and not interruption:
                    self._log_first_model(interruption)
            except DatabaseError as error:
                raise CommandError(f"{answered(self.using, error)}; go on with: {self._command()}") from error
        self.progress.close()
        if self.models:
            self.stderr.write(f"hc_backfill: interrupted; go on with: {self._command()}")
            sys.exit(interruption.exit_code)
        consumer = self.note["consumer"]
        self.stderr.write(f"hc_backfill: {self.done} rows are in the log for {consumer!r}; hc_listen delivers them.")

    def _count(self) -> int:
        since, total, after = self.options["since"], 0, self.after
        for model in self.models:
            total += count_rows(model, self.using, COUNT_LIMIT + 1, after, since)
            after = None
        return total

    def _log_first_model(self, interruption: Interruption) -> None:
        model, since, size = self.models[0], self.options["since"], self.options["page_size"]
        pages = log_table(model, self.using, "SNAPSHOT", page_size=size, after=self.after, since=since, note=self.note)
        last = (-1, self.after)
        for count, after in pages:
            if not count and (count, after) != last:
                self.progress.say(f"hc_backfill: {model._meta.label}: {self._obstacle(after)}")
            self.done, self.after = self.done + count, after
            last = (count, after)
            self.progress.advance(count)
            if self.options["rate"]:
                interruption.sleep(self.began + self.done / self.options["rate"] - time.monotonic())
            if interruption:
                return
        self.models, self.after = self.models[1:], None

    def _obstacle(self, after: int | None) -> str:
        if not has_room(self.using):
            return "the change log is nearly full; waiting for hc_listen to catch up, or for the log's next bucket."
        where = "the first row" if after is None else f"the row after {after}"
        return f"{where} is locked elsewhere; waiting for it."

    def _command(self) -> str:
        words = ["hc_backfill", *(model._meta.label for model in self.models)]
        words += [] if self.after is None else ["--after", str(self.after)]
        words += ["--since", self.options["since"].isoformat()] if self.options["since"] else []
        defaults = {"receiver": None, "consumer": None, "page_size": 500, "rate": None, "database": "default"}
        return continuation(words, self.options, **defaults)


def _check_listeners(chosen_models: Iterable[type[Model]], conf: Conf, receivers: list[str]) -> None:
    """Refuse a backfill that no receiver of this service would get."""
    listeners = Listeners(Extras.of(conf, connected_models()))
    signals = signals_of("SNAPSHOT", is_for_named=bool(receivers))
    known = {model: listeners.names(model, signals) for model in chosen_models}
    check_receivers(receivers, set().union(*known.values()))
    for model, names in known.items():
        if not names.intersection(receivers or names):
            which = "none of these receivers" if receivers else "no receiver"
            found = f"{model._meta.label}: {which} is connected to {' or '.join(signals)}"
            raise CommandError(f"{found}; name the receivers that are to get the rows with --receiver.")
