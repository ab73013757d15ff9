"""Applies ``on_delete`` for records deleted in Salesforce: Heroku Connect's DELETE does not pass through Django."""

import logging
from typing import Any

from django.db import models
from django.db.models import CASCADE, DO_NOTHING, SET_NULL, ProtectedError, RestrictedError
from django.db.models.deletion import Collector, get_candidate_relations_to_delete

from hc_signals.delivery.relatives import child_instances

logger = logging.getLogger("hc_signals")


def _set_db_default(collector: Collector, field: Any, sub_objs: Any, using: str) -> None:
    collector.add_field_update(field, field.db_default, sub_objs)


# Django 6.1 leaves these to constraints, which no relation to a table of Heroku Connect may have.
_RULES_OF_DATABASES = {
    getattr(models, name): rule
    for name, rule in (("DB_CASCADE", CASCADE), ("DB_SET_NULL", SET_NULL), ("DB_SET_DEFAULT", _set_db_default))
    if hasattr(models, name)
}


def _rule(relation: Any) -> Any:
    """Return the function that handles the rows of a relation: one of Django's, or the project's."""
    return _RULES_OF_DATABASES.get(relation.on_delete, relation.on_delete)


def apply_on_delete(sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any) -> None:
    """Apply ``on_delete`` to the Django-managed rows that point at a deleted record.

    CASCADE, SET_NULL, SET_DEFAULT and SET are applied; so are Django 6.1's DB_CASCADE, DB_SET_NULL and DB_SET_DEFAULT.
    PROTECT and RESTRICT are logged: the record is gone already. Heroku Connect's tables are not changed: Salesforce has
    rules of its own for their records.
    """
    collector = Collector(using=using, origin=instance)
    relations: list[Any] = list(get_candidate_relations_to_delete(sender._meta))
    for relation in relations:
        if relation.related_model._meta.managed and relation.on_delete is not DO_NOTHING:
            _collect(collector, relation, instance, using)
    for model, objects in collector.restricted_objects.items():
        _report(model, sum(map(len, objects.values())), "RESTRICT", sender)
    collector.delete()


def _collect(collector: Collector, relation: Any, instance: models.Model, using: str) -> None:
    if relation.field.remote_field.parent_link:
        # The Django half of a compound model. The ORM cannot load it: its other half is the deleted record.
        halves = child_instances(relation.related_model, type(instance), {0: instance}, using)
        if _rule(relation) is CASCADE and halves:
            collector.collect(list(halves.values()), keep_parents=True)
        return
    pointing: Any = collector.related_objects(relation.related_model, [relation.field], [instance])
    if not pointing.exists():
        return
    try:
        _rule(relation)(collector, relation.field, pointing, using)
    except (ProtectedError, RestrictedError):
        _report(relation.related_model, pointing.count(), "PROTECT", type(instance))


def _report(model: Any, count: int, rule: str, sender: type[models.Model]) -> None:
    logger.warning(
        "%s row(s) of %s point at a deleted record of %s with on_delete=%s, but Salesforce has deleted it already.",
        count,
        model._meta.label,
        sender._meta.label,
        rule,
    )
