"""``manage.py hc_consumers``: lists the consumers of the log with their backlog; starts and removes consumers."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from hc_signals.conf import get_conf
from hc_signals.log import consumers
from hc_signals.log.layout import start
from hc_signals.log.position import LogShard
from hc_signals.log.restoring import WORDS, moved
from hc_signals.management.arguments import start_at
from hc_signals.management.command import OwnCommand
from hc_signals.observability.survey import Consumer, Survey
from hc_signals.postgres.moments import age


class Command(OwnCommand):
    help = "List the consumers of the change log, start a new one, or remove one that is not used any more."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="list | start | remove")
        shown = actions.add_parser("list", help="backlog and workers of each consumer, and which one holds up the log")
        started = actions.add_parser("start", help="give a new consumer its position before its first worker runs")
        started.add_argument("--at", type=start_at, required=True, metavar="WHERE", help="latest, earliest, 2h, a time")
        removed = actions.add_parser("remove", help="remove a consumer that is gone: the log no longer waits for it")
        removed.add_argument("--with-deliveries", action="store_true", help="remove its failed deliveries as well")
        removed.add_argument("--force", action="store_true", help="remove it even while a worker is running")
        for each in (started, removed):
            each.add_argument("name", metavar="NAME", help="the consumer, as in HC_SIGNALS['CONSUMER']")
        for each in (shown, started, removed):
            super().add_arguments(each)

    def handle(self, *args: Any, **options: Any) -> None:
        self._check(options["database"], options.get("name"))
        getattr(self, f"_{options['action']}")(options)

    def _check(self, using: str, name: str | None) -> None:
        if name == "":
            raise CommandError("The name is empty; `hc_consumers list` shows the known ones.", returncode=2)
        self.require_log(using)
        if cause := moved(using):
            found = f"{WORDS[cause]} and no worker has run since, so positions are not right yet"
            raise CommandError(f"{found}; run `manage.py hc_listen --once` first.")

    def _list(self, options: dict[str, Any]) -> None:
        found = Survey(options["database"], get_conf()).consumers
        for consumer in found:
            self.stdout.write(_line(consumer))
        if not found:
            self.stdout.write("No consumer yet: `manage.py hc_listen` or `manage.py hc_consumers start` makes one.")

    def _start(self, options: dict[str, Any]) -> None:
        using, name, shards = options["database"], options["name"], get_conf().SHARDS
        if not start(LogShard.all_of(using, name, shards), options["at"]):
            raise CommandError(f"Consumer {name!r} has a position already; nothing was changed.")
        self.stdout.write(f"Consumer {name!r} starts at {options['at']}.")

    def _remove(self, options: dict[str, Any]) -> None:
        using, name = options["database"], options["name"]
        with transaction.atomic(using=using):
            count = consumers.remove(using, name, options["force"], options["with_deliveries"])
        self.stdout.write(f"Consumer {name!r} was removed" + (f", with {count} deliveries." if count else "."))


def _line(consumer: Consumer) -> str:
    shards = len(consumer.by_shard)
    parts = [f"{shards} shard(s), {consumer.workers} worker(s)" if shards else "no position"]
    parts.append(f"{consumer.backlog} change(s) to deliver")
    if consumer.backlog.since is not None:
        parts[-1] += f", the oldest {age(consumer.backlog.since)} old"
    if consumer.moved_at is not None:
        parts.append(f"moved {age(consumer.moved_at)} ago")
    if consumer.deliveries:
        states = ", ".join(f"{count} {state}" for state, count in sorted(consumer.deliveries.items()))
        parts.append(f"failed deliveries: {states}")
    if consumer.holds_up_rotation:
        parts.append("HOLDS UP THE ROTATION OF THE LOG")
    return f"{consumer.name}: {'; '.join(parts)}"
