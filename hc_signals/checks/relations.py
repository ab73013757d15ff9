"""System checks of relations to connected models; ids, messages and hints are those of django-heroku-connect."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core import checks
from django.db import models

from hc_signals.tables import connected_models, is_connected


def check_relations(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Hold every relation to a connected model against what Heroku Connect can bear: E005, E008, W001."""
    found: list[checks.CheckMessage] = []
    for field in _relations_to_connected_models():
        if field.target_field.name == "id":
            found.append(
                checks.Error(
                    f"{field} should point to an External ID or the 'sf_id', not 'id'.",
                    hint="Specify the 'to_field' argument.",
                    id="heroku_connect.E005",
                )
            )
        if _has_constraint(field):
            # W001 is the older name, kept for those who silence it.
            hint = "Set 'db_constraint' to False."
            message = "have database constraints to a Heroku Connect model."
            found.append(checks.Warning(f"{field} should not {message}", hint=hint, id="heroku_connect.W001"))
            if not field.many_to_many:
                found.append(checks.Error(f"{field} may not {message}", hint=hint, id="heroku_connect.E008"))
    return found


def check_unique_object_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Two models of one Salesforce object would both claim its table: E006, one per model."""
    by_table: dict[str, list[Any]] = defaultdict(list)
    for model in connected_models():
        by_table[f"{model._meta.db_table} {getattr(model, 'sf_object_name', '').lower()}"].append(model)
    return [
        checks.Error(
            f"{model._meta.label}.sf_object_name {model.sf_object_name!r} clashes with another model.",
            hint="Make sure your 'sf_object_name' is correct.",
            obj=model,
            id="heroku_connect.E006",
        )
        for models_of_table in by_table.values()
        if len(models_of_table) > 1
        for model in models_of_table
    ]


def _relations_to_connected_models() -> Iterator[Any]:
    # all_models has the hidden tables of many-to-many relations too
    for model in [model for by_name in apps.all_models.values() for model in by_name.values()]:
        for field in (*model._meta.local_fields, *model._meta.local_many_to_many):
            target = getattr(field.remote_field, "model", None) if field.is_relation else None
            if isinstance(target, type) and issubclass(target, models.Model) and is_connected(target):
                yield field


def _has_constraint(field: Any) -> bool:
    return bool(field.remote_field.db_constraint if field.many_to_many else field.db_constraint)
