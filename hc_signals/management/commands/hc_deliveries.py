"""``manage.py hc_deliveries``: lists failed deliveries, groups them by error, retries or discards them."""

from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError
from django.db.models import QuerySet

from hc_signals.conf import get_conf
from hc_signals.delivery import interventions
from hc_signals.delivery.project_code import split_error
from hc_signals.delivery.routing import route_of
from hc_signals.delivery.stored import Choice, by_error
from hc_signals.management.arguments import at_least
from hc_signals.management.command import OwnCommand
from hc_signals.models import Delivery
from hc_signals.postgres.moments import shown


class Command(OwnCommand):
    help = "List failed deliveries, one by one or by their errors; show, retry or discard them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("action", choices=["list", "errors", "show", "retry", "discard"])
        parser.add_argument("ids", nargs="*", type=at_least(1), metavar="ID", help="ids of deliveries")
        parser.add_argument("--state", choices=Delivery.State.values, help="only deliveries in this state")
        parser.add_argument("--receiver", help="only deliveries to this receiver: its dotted path")
        parser.add_argument("--model", metavar="app.Model", help="only deliveries of this sender")
        parser.add_argument("--consumer", help="only deliveries of this consumer")
        parser.add_argument(
            "--error", help="only deliveries with this kind of error, as `hc_deliveries errors` prints it"
        )
        parser.add_argument("--all", action="store_true", help="retry or discard all of them")
        text = "with show: print the record's contents and the error's message, which may quote them"
        parser.add_argument("--values", action="store_true", help=text)
        parser.add_argument("--limit", type=at_least(1), default=100, help="with list: most lines (default: 100)")

    def handle(self, *args: Any, **options: Any) -> None:
        choice = Choice(
            options["ids"],
            **{name: options[name] for name in ("state", "receiver", "consumer", "error")},
            sender=options["model"],
        )
        if options["action"] in ("retry", "discard") and choice.is_any and not options["all"]:
            raise CommandError(
                "Choose by id, --receiver, --model, --state, --consumer or --error, or say --all.", returncode=2
            )
        getattr(self, f"_{options['action']}")(_found(choice, options["database"]), options)

    def _list(self, chosen: "QuerySet[Delivery]", options: dict[str, Any]) -> None:
        listed = list(chosen.defer("old", "new")[: options["limit"]])
        for delivery in listed:
            change_type = route_of(delivery.operation).change_type
            self.stdout.write(
                f"{delivery.id:>8} {delivery.state:<7} attempt {delivery.attempt:<3} {change_type:<12} "
                f"{delivery.sender} {delivery.record_id or delivery.record_key or '-'} -> {delivery.receiver} "
                f"({delivery.signal}): {delivery.error.partition(':')[0] or 'waits for an earlier one'}"
            )
        total = chosen.count()
        self.stdout.write(f"{total} deliveries" + (f", {len(listed)} shown" if total > len(listed) else ""))

    def _errors(self, chosen: "QuerySet[Delivery]", options: dict[str, Any]) -> None:
        groups = by_error(chosen)
        for each in groups[: options["limit"]]:
            self.stdout.write(
                f"{each.total:>8} {each.sender} -> {each.receiver}: {each.retry} retry, {each.dead} dead, "
                f"first failed from {shown(each.oldest)} to {shown(each.newest)}\n         {each.error}"
            )
        self.stdout.write(f"{len(groups)} kinds of errors")

    def _show(self, chosen: "QuerySet[Delivery]", options: dict[str, Any]) -> None:
        if not options["ids"]:
            raise CommandError("No id was given; `hc_deliveries list` shows the ids of the deliveries.", returncode=2)
        for delivery in chosen:
            for name, value in _shown(delivery, has_values=options["values"]):
                self.stdout.write(f"{name:>12}: {value}")

    def _retry(self, chosen: "QuerySet[Delivery]", options: dict[str, Any]) -> None:
        done = interventions.in_pieces(interventions.retry, chosen)
        self.stdout.write(f"{done.done} deliveries are due now; parked ones follow theirs.{_rest(done)}")

    def _discard(self, chosen: "QuerySet[Delivery]", options: dict[str, Any]) -> None:
        done = interventions.in_pieces(interventions.discard, chosen)
        self.stdout.write(f"{done.done} deliveries discarded.{_rest(done)}")


def _rest(progress: interventions.Progress) -> str:
    if not progress.left:
        return ""
    return f" {progress.left} are left: a worker holds their shard. Run the command again."


def _found(choice: Choice, using: str) -> "QuerySet[Delivery]":
    found = choice.deliveries(using)
    missing = sorted(set(choice.ids) - set(found.values_list("id", flat=True))) if choice.ids else []
    if missing:
        raise CommandError(f"There is no delivery {', '.join(map(str, missing))}; `hc_deliveries list` shows them.")
    return found


def _shown(delivery: Delivery, *, has_values: bool) -> Iterator[tuple[str, Any]]:
    """Yield what a person wants to know about a delivery; its record's contents only if ``has_values``."""
    attempts = get_conf().MAX_ATTEMPTS
    yield "delivery", f"{delivery.pk}, {delivery.state}"
    yield "receiver", f"{delivery.receiver} ({delivery.signal}), consumer {delivery.consumer}"
    yield "record", f"{delivery.sender} {delivery.record_id or delivery.record_key or '-'}"
    changed = f" of {', '.join(delivery.changed)}" if delivery.changed else ""
    captured_at = shown(delivery.captured_at)
    yield "change", f"{delivery.change_id}: {route_of(delivery.operation).change_type}{changed}, captured {captured_at}"
    yield "stored", shown(delivery.created_at)
    left = max(0, attempts - delivery.attempt) if delivery.state != Delivery.State.DEAD else 0
    yield "attempts", f"{delivery.attempt} of {attempts}, {left} left"
    yield "next attempt", _next_attempt(delivery)
    error, trace = split_error(delivery.error)
    yield "error", (error if has_values else error.partition(":")[0]) or "-"
    if trace:
        yield "traceback", f"\n{trace}"
    for name in ("old", "new", "note") if has_values else ():
        yield name, getattr(delivery, name)
    if not has_values:
        yield "contents", "--values shows them, with the message of the error"


def _next_attempt(delivery: Delivery) -> str:
    if delivery.state == Delivery.State.DEAD:
        return f"none, unless by `manage.py hc_deliveries retry {delivery.pk}`"
    if delivery.next_attempt_at is None:
        return "after an earlier delivery of the record"
    return shown(delivery.next_attempt_at)
