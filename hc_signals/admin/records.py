"""The records that changes, deliveries and the trigger log are about: their names, who may see them, their own page."""

from collections import defaultdict
from typing import Any

from django.contrib.admin import AdminSite
from django.db import router
from django.db.models import BooleanField, Case, F, Func, Model, TextField, Value, When
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Coalesce
from django.urls import reverse
from django.utils.html import format_html

from hc_signals.admin.text import cut, visible
from hc_signals.postgres.query import relation_exists
from hc_signals.tables import connected_models, model_of_table, name_column, quoted_table, table_label

HIDDEN = "Hidden: you may not view {}."
"""Replaces the values of a record whose model the user may not view."""
LONGEST_NAME = 80
"""Most characters of a record's name that are shown."""


def may_see(user: Any, table: str) -> bool:
    """Return whether a user may see values of the records of a table, named as in the log.

    That takes the view or change permission of its model. A table without a model is for superusers.
    """
    model = model_of_table(table)
    return may_view(user, model) if model else bool(user.is_active and user.is_superuser)


def may_view(user: Any, model: type[Model]) -> bool:
    """Return whether a user has the view or the change permission of a model, as Django's admin asks for it."""
    options = model._meta
    return any(user.has_perm(f"{options.app_label}.{verb}_{options.model_name}") for verb in ("view", "change"))


def visible_tables(user: Any) -> list[str]:
    """Return the tables of the connected models that a user may view, named as in the log."""
    return [table_label(model) for model in connected_models() if may_view(user, model)]


def seen_by(user: Any, *, has_image: bool) -> dict[str, Any]:
    """Return annotations for Change and Delivery: ``record_name``, and ``is_hidden``: the user may not see values.

    ``record_name`` is None if the record has no name, or is hidden. ``has_image``: the rows are a Change's.
    """
    tables = visible_tables(user)
    return {"record_name": _record_name(tables, has_image), "is_hidden": hidden_but(user, tables)}


def hidden_but(user: Any, tables: list[str]) -> Any:
    """Return an expression: true for rows whose ``table_name`` is not among the tables. A superuser sees all rows."""
    # Not ExpressionWrapper(~Q(...)): Django's filter of that by False keeps every row if the list is empty.
    return Case(When(table_name__in=tables, then=False), default=not user.is_superuser, output_field=BooleanField())


def _record_name(tables: list[str], has_image: bool) -> Any:
    by_column: dict[str, list[str]] = defaultdict(list)
    for model in connected_models():
        column, table = name_column(model), table_label(model)
        if column and table in tables:
            by_column[column].append(table)
    whens = [When(table_name__in=found, then=_value(column, has_image)) for column, found in by_column.items()]
    nothing = Value(None, output_field=TextField(null=True))
    return Case(*whens, default=nothing, output_field=TextField(null=True)) if whens else nothing


def _value(column: str, has_image: bool) -> Any:
    text = TextField(null=True)
    new, old = (KeyTextTransform(column, F(image)) for image in ("new", "old"))
    if not has_image:
        return Coalesce(new, old, output_field=text)
    # The JSON of an image would be made for each row.
    value = Func(F("layout"), F("image"), Value(column), function="public.hc_signals_value", output_field=text)
    return Case(When(layout__isnull=False, then=value), default=Coalesce(new, old), output_field=text)


def record_url(site: AdminSite, user: Any, row: Any) -> str | None:
    """Return the address of the record's page in the model's own admin.

    It is None if the model has no admin, the user may not view it, or the record is gone.

    Args:
        row: a Change, a Delivery, or another object with ``table_name``, ``record_id`` and ``record_key`` like theirs.
    """
    model: Any = model_of_table(row.table_name)
    if model is None or not site.is_registered(model) or not may_view(user, model):
        return None
    key = _key_of(model, row)
    options = model._meta
    name = f"admin:{options.app_label}_{options.model_name}_change"
    return reverse(name, args=[key], current_app=site.name) if key is not None else None


def _key_of(model: Any, row: Any) -> Any:
    """Return the primary key of the record, by its sfid, or by its id in the table while it has none."""
    fields = {field.column: field.name for field in model._meta.local_concrete_fields}
    column, value = ("sfid", row.record_id) if row.record_id else ("id", row.record_key)
    using = router.db_for_read(model)
    if column not in fields or value is None or not relation_exists(using, quoted_table(model)):
        return None
    return model._base_manager.using(using).filter(**{fields[column]: value}).values_list("pk", flat=True).first()


def name_of(row: Any) -> str:
    """Return the name of a row's record as HTML; empty if it has none or is not to be seen."""
    name = getattr(row, "record_name", None)
    return format_html('<span class="hc-name">{}</span><br>', visible(cut(name, LONGEST_NAME))) if name else ""


def link_to_page(row: Any) -> str:
    """Return the link to the record's page, if the page of the row has found it; else nothing."""
    url = getattr(row, "page_url", None)
    return format_html(' (<a href="{}">the record now</a>)', url) if url else ""
