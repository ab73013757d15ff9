"""Chooses stored deliveries, and groups them by their errors: one rule for ``hc_deliveries`` and the admin."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Count, F, Func, Max, Min, Q, QuerySet, TextField, Value
from django.db.models.functions import Left, Replace

from hc_signals.models import Delivery
from hc_signals.postgres.moments import aware_row

GROUPED = 100_000
"""Most deliveries that are grouped by error, the newest first."""
_FIRST_LINE = 300
"""Characters of an error in which its first line is sought; a traceback follows it."""


@dataclass(frozen=True)
class Choice:
    """Which deliveries: those that meet every condition that is given."""

    ids: Sequence[int] = ()
    state: str | None = None
    receiver: str | None = None
    sender: str | None = None
    """Label of the model: ``crm.Account``."""
    consumer: str | None = None
    error: str | None = None
    """Kind of error: see :func:`error_kind`. Parked deliveries have none."""

    @property
    def is_any(self) -> bool:
        """Whether no condition is given, so that every delivery is chosen."""
        return not self.ids and all(value is None for value in self._conditions().values())

    def deliveries(self, using: str) -> "QuerySet[Delivery]":
        """Return the deliveries, by id."""
        found = Delivery.objects.using(using).order_by("id")
        given = {name: value for name, value in self._conditions().items() if value is not None}
        kind = given.pop("error", None)
        found = found.filter(**given, **({"id__in": self.ids} if self.ids else {}))
        return found if kind is None else failed(found).alias(kind=error_kind()).filter(kind=kind)

    def command(self, action: str) -> str:
        """Return the command line that takes an action on these deliveries."""
        words = ["manage.py", "hc_deliveries", action, *map(str, self.ids)]
        for name, value in self._conditions().items():
            words += [] if value is None else [f"--{'model' if name == 'sender' else name}", value]
        return shlex.join([*words, "--all"] if self.is_any else words)

    def _conditions(self) -> dict[str, str | None]:
        names = ("state", "receiver", "sender", "consumer", "error")
        return {name: getattr(self, name) for name in names}


class ErrorGroup(NamedTuple):
    """Deliveries to one receiver that failed in the same way."""

    receiver: str
    sender: str
    error: str
    """Kind of error: see :func:`error_kind`."""
    retry: int
    """How many are retried."""
    dead: int
    """How many are dead."""
    oldest: datetime
    """When the first one failed first."""
    newest: datetime
    """When the last one failed first."""

    @property
    def total(self) -> int:
        """How many deliveries it has."""
        return self.retry + self.dead


def error_kind() -> Any:
    """Return an expression for the first line of an error, with ``#`` for each word with a digit.

    So errors of one cause are equal, although each names another id, time or amount.
    """
    start = Replace(Left("error", _FIRST_LINE), Value("\r"), Value("\n"))
    line = Func(start, Value("\n"), Value(1), function="split_part", output_field=TextField())
    return Func(line, Value(r"\m\w*\d\w*"), Value("#"), Value("g"), function="regexp_replace", output_field=TextField())


def failed(chosen: "QuerySet[Delivery]") -> "QuerySet[Delivery]":
    """Return those that have failed: neither parked behind another one, nor waiting for a settled value."""
    return chosen.exclude(state=Delivery.State.PARKED).exclude(state=Delivery.State.RETRY, attempt=0)


def by_error(chosen: "QuerySet[Delivery]") -> list[ErrorGroup]:
    """Return the failed ones of these deliveries by receiver, model and error; the largest group first.

    At most the newest GROUPED deliveries are read.
    """
    newest = failed(chosen).order_by("-id").values("pk")[:GROUPED]
    groups = (
        Delivery.objects.using(chosen.db)
        .filter(pk__in=newest)
        .order_by()
        .values("receiver", "sender", kind=error_kind())
        .annotate(
            retried=Count("id", filter=Q(state=Delivery.State.RETRY)),
            dead=Count("id", filter=Q(state=Delivery.State.DEAD)),
            oldest=Min("created_at"),
            newest=Max("created_at"),
        )
        .order_by(-(F("retried") + F("dead")), "receiver", "kind")
    )
    names = ("receiver", "sender", "kind", "retried", "dead", "oldest", "newest")
    return [ErrorGroup._make(aware_row(row)) for row in groups.values_list(*names)]
