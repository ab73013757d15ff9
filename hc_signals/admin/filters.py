"""Filters of our lists, whose choices cost little, and one for multi-select picklists in the project's own lists.

Django's own filters would read the whole table for their choices.
"""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin import ChoicesFieldListFilter, FieldListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest
from django.utils.dateparse import parse_datetime

from hc_signals.admin.base import COUNTED_ROWS, database
from hc_signals.db.models import MultiPicklist
from hc_signals.delivery.routing import ROUTES
from hc_signals.models import Delivery
from hc_signals.postgres import moments
from hc_signals.postgres.query import rows
from hc_signals.tables import connected_models, quoted_table, table_label

CHANGE_TYPE = {operation: route.change_type for operation, route in ROUTES.items()}
CHANGE_TYPE["TRUNCATE"] += " (truncate)"
"""The change types as users read them, by the operation that the log has."""

PERIODS = {
    "15m": ("Last 15 minutes", timedelta(minutes=15)),
    "1h": ("Last hour", timedelta(hours=1)),
    "6h": ("Last 6 hours", timedelta(hours=6)),
    "1d": ("Last 24 hours", timedelta(days=1)),
}


class ValueFilter(admin.SimpleListFilter):
    """Keeps the rows in which the column ``parameter_name`` has the chosen value."""

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Keep the rows with the chosen value."""
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class ModelFilter(ValueFilter):
    """Offers the connected models, and the chosen table if no model has it any more."""

    title = "model"
    parameter_name = "table_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the tables under the names of their models."""
        tables = {table_label(model): model._meta.label for model in connected_models()}
        if self.value():
            tables.setdefault(str(self.value()), str(self.value()))
        return sorted(tables.items(), key=lambda pair: pair[1])


class ChangeTypeFilter(ValueFilter):
    """Offers the change types."""

    title = "change type"
    parameter_name = "operation"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the operations under the names of their change types."""
        return list(CHANGE_TYPE.items())


class TimeFilter(admin.SimpleListFilter):
    """A condition on the time of capture."""

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return all rows: the list asks ``moment`` and searches by id."""
        return queryset


class SinceFilter(TimeFilter):
    """Offers recent periods; the list finds the ids of the chosen one."""

    title = "time"
    parameter_name = "since"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the periods."""
        return [(key, title) for key, (title, _) in PERIODS.items()]

    def moment(self) -> datetime | None:
        """Return the beginning of the chosen period."""
        if self.value() not in PERIODS:
            return None
        return moments.now() - PERIODS[str(self.value())][1]


class UntilFilter(TimeFilter):
    """Asks for a time; the list begins with the last change before it."""

    title = "captured until"
    parameter_name = "until"
    template = "admin/hc_signals/until_filter.html"
    zone = property(lambda self: moments.zone_name())

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self.others = [(key, value) for key, value in request.GET.items() if key not in (self.parameter_name, "p", "e")]
        """The other conditions of the address, which the form keeps."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return no choices: the user types the time."""
        return []

    def has_output(self) -> bool:
        """Show the form."""
        return True

    def moment(self) -> datetime | None:
        """Return the time, which is read in the current time zone; None if there is none.

        Raises:
            IncorrectLookupParameters: the value is no date and time.
        """
        if not self.value():
            return None
        with suppress(ValueError):
            if found := parse_datetime(str(self.value())):
                return moments.written(found)
        raise IncorrectLookupParameters(f"{self.value()!r} is no date and time; expected 2026-01-31T14:00.")


class FailureFilter(ValueFilter):
    """Keeps the changes with a stored delivery in the chosen state, among the newest deliveries."""

    title = "stored delivery"
    parameter_name = "failure"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        """Return the states of a delivery."""
        return Delivery.State.choices

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Keep the changes of these deliveries, by their ids: no index of the log could find them otherwise."""
        if not self.value():
            return queryset
        stored = Delivery.objects.using(queryset.db).filter(state=self.value()).order_by("-id")
        return queryset.filter(id__in=set(stored.values_list("change_id", flat=True)[:COUNTED_ROWS]))


class FoundFilter(ValueFilter):
    """Offers the values that a column has in the newest rows, and the chosen value."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the values."""
        column, table = str(self.parameter_name), quoted_table(model_admin.model)
        sql = f"SELECT DISTINCT {column} FROM (SELECT {column} FROM {table} ORDER BY id DESC LIMIT %s) newest"
        newest = {value for (value,) in rows(database(), sql, [COUNTED_ROWS])}
        return [(value, value) for value in sorted((newest | {self.value() or ""}) - {""})]


class ReceiverFilter(FoundFilter):
    """Offers receivers."""

    title = parameter_name = "receiver"


class SenderFilter(FoundFilter):
    """Offers models."""

    title, parameter_name = "model", "sender"


class ConsumerFilter(FoundFilter):
    """Offers consumers."""

    title = parameter_name = "consumer"


class MultiPicklistListFilter(ChoicesFieldListFilter):
    """Django's filter by choices, with ``includes`` instead of ``exact``; Django takes it for each MultiPicklist."""

    def __init__(self, field: Any, request: Any, params: Any, *args: Any, **kwargs: Any) -> None:
        path = kwargs["field_path"]
        self.lookup_kwarg, self.lookup_kwarg_isnull = f"{path}__includes", f"{path}__isnull"
        self.lookup_val, self.lookup_val_isnull = params.get(self.lookup_kwarg), params.get(self.lookup_kwarg_isnull)
        # Not the parent's __init__, which would overwrite these four attributes.
        FieldListFilter.__init__(self, field, request, params, *args, **kwargs)


FieldListFilter.register(
    lambda field: isinstance(field, MultiPicklist) and field.choices is not None,
    MultiPicklistListFilter,
    take_priority=True,
)
