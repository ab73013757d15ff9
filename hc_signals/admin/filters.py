"""Filters of our lists, whose choices cost nothing: Django's own read the whole table for them."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db import connections
from django.http import HttpRequest
from django.utils.dateparse import parse_datetime

from hc_signals.admin.bounded import COUNTED_ROWS
from hc_signals.admin.read_only import database
from hc_signals.delivery.routing import ROUTES
from hc_signals.postgres import moments
from hc_signals.tables import connected_models, quoted_table, table_label

PERIODS = {
    "15m": ("Last 15 minutes", timedelta(minutes=15)),
    "1h": ("Last hour", timedelta(hours=1)),
    "6h": ("Last 6 hours", timedelta(hours=6)),
    "1d": ("Last 24 hours", timedelta(days=1)),
}


class ModelFilter(admin.SimpleListFilter):
    """Offers the connected models, and the chosen table, which may be gone."""

    title = "model"
    parameter_name = "table_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return tables, under the names of their models."""
        tables = {table_label(model): model._meta.label for model in connected_models()}
        if self.value():
            tables.setdefault(str(self.value()), str(self.value()))
        return sorted(tables.items(), key=lambda pair: pair[1])

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Keep the rows of the chosen table."""
        return queryset.filter(table_name=self.value()) if self.value() else queryset


class OperationFilter(admin.SimpleListFilter):
    """Offers what can happen to a record or a table."""

    title = "operation"
    parameter_name = "operation"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the operations."""
        return [(name, name) for name in ROUTES]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Keep the rows of the chosen operation."""
        return queryset.filter(operation=self.value()) if self.value() else queryset


class SinceFilter(admin.SimpleListFilter):
    """Offers recent periods; the list turns the chosen one into ids."""

    title = "time"
    parameter_name = "since"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the periods."""
        return [(key, title) for key, (title, _) in PERIODS.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the rows as they are: see ``moment``."""
        return queryset

    def moment(self) -> datetime | None:
        """Return where the chosen period begins."""
        if self.value() not in PERIODS:
            return None
        return moments.now() - PERIODS[str(self.value())][1]


class UntilFilter(admin.SimpleListFilter):
    """Asks for a moment: the list begins with the last change before it."""

    title = "captured until"
    parameter_name = "until"
    template = "admin/hc_signals/until_filter.html"

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self.others = [(key, value) for key, value in request.GET.items() if key not in (self.parameter_name, "p", "e")]
        """What the form keeps of the address."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return none: the moment is typed in."""
        return []

    def has_output(self) -> bool:
        """Show the form always."""
        return True

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the rows as they are: see ``moment``."""
        return queryset

    def moment(self) -> datetime | None:
        """Return the moment, in the current time zone.

        Raises:
            IncorrectLookupParameters: it is none.
        """
        if not self.value():
            return None
        try:
            found = parse_datetime(str(self.value()))
        except ValueError:
            found = None
        if found is None:
            raise IncorrectLookupParameters(f"{self.value()!r} is no date and time; expected 2026-01-31T14:00.")
        return moments.written(found)


class FoundFilter(admin.SimpleListFilter):
    """Offers the values that a column has in the newest rows, and the chosen one."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the values."""
        column, table = str(self.parameter_name), quoted_table(model_admin.model)
        with connections[database()].cursor() as cursor:
            cursor.execute(
                f"SELECT DISTINCT {column} FROM (SELECT {column} FROM {table} ORDER BY id DESC LIMIT %s) newest",
                [COUNTED_ROWS],
            )
            newest = {row[0] for row in cursor.fetchall()}
        return [(value, value) for value in sorted((newest | {self.value() or ""}) - {""})]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Keep the rows with the chosen value."""
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class ReceiverFilter(FoundFilter):
    """Which receiver."""

    title = parameter_name = "receiver"


class SenderFilter(FoundFilter):
    """Of which model."""

    title, parameter_name = "model", "sender"


class ConsumerFilter(FoundFilter):
    """Of which consumer."""

    title = parameter_name = "consumer"
