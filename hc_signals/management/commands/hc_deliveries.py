"""``manage.py hc_deliveries``: the deliveries that failed; retried or discarded by hand."""

from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError, transaction
from django.db.models import QuerySet
from django.utils.connection import ConnectionDoesNotExist

from hc_signals.delivery import interventions
from hc_signals.management.arguments import at_least
from hc_signals.management.command import OwnCommand
from hc_signals.models import Delivery
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import shown


class Command(OwnCommand):
    help = "List, show, retry or discard deliveries that receivers failed on."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["list", "show", "retry", "discard"])
        parser.add_argument("ids", nargs="*", type=at_least(1), metavar="ID", help="deliveries by their number")
        parser.add_argument("--database", default="default", help="database alias (default: default)")
        parser.add_argument("--state", choices=Delivery.State.values, help="only those in this state")
        parser.add_argument("--receiver", help="only those of this receiver: its dotted path")
        parser.add_argument("--model", metavar="app.Model", help="only those of this sender")
        parser.add_argument("--all", action="store_true", help="retry or discard all of them")
        parser.add_argument("--limit", type=at_least(1), default=100, help="with list: at most so many (default: 100)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            chosen = _chosen(options)
            if options["action"] in ("retry", "discard") and not (_is_narrowed(options) or options["all"]):
                raise CommandError("Name them by number, --receiver, --model or --state, or say --all.", returncode=2)
            with transaction.atomic(using=options["database"]):
                getattr(self, f"_{options['action']}")(chosen, options)
        except ConnectionDoesNotExist as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"The database answered: {one_line(error)}") from error

    def _list(self, chosen: "QuerySet[Delivery]", options: dict[str, Any]) -> None:
        shown = list(chosen.defer("old", "new")[: options["limit"]])
        for delivery in shown:
            self.stdout.write(
                f"{delivery.id:>8} {delivery.state:<7} attempt {delivery.attempt:<3} {delivery.operation:<8} "
                f"{delivery.sender} {delivery.record_id or delivery.record_key or '-'} -> {delivery.receiver} "
                f"({delivery.signal}): {delivery.error.partition(':')[0] or 'waits for an earlier one'}"
            )
        total = chosen.count()
        self.stdout.write(f"{total} deliveries" + (f", {len(shown)} shown" if total > len(shown) else ""))

    def _show(self, chosen: "QuerySet[Delivery]", options: dict[str, Any]) -> None:
        if not options["ids"]:
            raise CommandError("Which? Give the number of a delivery; `hc_deliveries list` shows them.", returncode=2)
        for delivery in chosen:
            for field in Delivery._meta.fields:
                value = getattr(delivery, field.attname)
                self.stdout.write(f"{field.name:>16}: {shown(value) if isinstance(value, datetime) else value}")

    def _retry(self, chosen: "QuerySet[Delivery]", options: dict[str, Any]) -> None:
        self.stdout.write(f"{interventions.retry(chosen)} deliveries are due now; parked ones follow theirs.")

    def _discard(self, chosen: "QuerySet[Delivery]", options: dict[str, Any]) -> None:
        self.stdout.write(f"{interventions.discard(chosen)} deliveries discarded.")


def _chosen(options: dict[str, Any]) -> "QuerySet[Delivery]":
    chosen = Delivery.objects.using(options["database"]).order_by("id")
    by_option = {"state": options["state"], "receiver": options["receiver"], "sender": options["model"]}
    chosen = chosen.filter(**{name: value for name, value in by_option.items() if value is not None})
    if options["ids"]:
        chosen = chosen.filter(id__in=options["ids"])
        missing = sorted(set(options["ids"]) - set(chosen.values_list("id", flat=True)))
        if missing:
            raise CommandError(f"There is no delivery {', '.join(map(str, missing))}; `hc_deliveries list` shows them.")
    return chosen


def _is_narrowed(options: dict[str, Any]) -> bool:
    return bool(options["ids"] or options["state"] or options["receiver"] or options["model"])
