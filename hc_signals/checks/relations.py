"""System checks of relations to connected models; ids, messages and hints are those of django-heroku-connect."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Warning
from django.db import models

from hc_signals.tables import connected_models, is_connected

_HAS_CONSTRAINT = "have database constraints to a Heroku Connect model."
_NO_CONSTRAINT = "Set 'db_constraint' to False."


def check_targets(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E005: a relation refers to the ``id`` of a connected model, which Salesforce does not know."""
    return [
        Error(
            f"{field} should point to an External ID or the 'sf_id', not 'id'.",
            hint="Specify the 'to_field' argument.",
            id="heroku_connect.E005",
        )
        for field in _relations_to_connected_models()
        if field.target_field.name == "id"
    ]


def check_constraints(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E008: a constraint of the database would make Heroku Connect's writes fail. W001: its older id, also reported."""
    found: list[CheckMessage] = []
    for field in filter(_has_constraint, _relations_to_connected_models()):
        found.append(Warning(f"{field} should not {_HAS_CONSTRAINT}", hint=_NO_CONSTRAINT, id="heroku_connect.W001"))
        if not field.many_to_many:
            found.append(Error(f"{field} may not {_HAS_CONSTRAINT}", hint=_NO_CONSTRAINT, id="heroku_connect.E008"))
    return found


def check_object_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E006: several models have one Salesforce object and one table; one error per model."""
    by_table: dict[str, list[Any]] = defaultdict(list)
    for model in connected_models():
        by_table[f"{model._meta.db_table} {getattr(model, 'sf_object_name', '').lower()}"].append(model)
    return [
        Error(
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
    # all_models also has the hidden tables of many-to-many relations
    for model in [model for by_name in apps.all_models.values() for model in by_name.values()]:
        for field in (*model._meta.local_fields, *model._meta.local_many_to_many):
            target = getattr(field.remote_field, "model", None) if field.is_relation else None
            if isinstance(target, type) and issubclass(target, models.Model) and is_connected(target):
                yield field


def _has_constraint(field: Any) -> bool:
    return bool(field.remote_field.db_constraint if field.many_to_many else field.db_constraint)
