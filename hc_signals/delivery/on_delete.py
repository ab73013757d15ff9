"""Applies ``on_delete`` for records deleted in Salesforce: the hard DELETE in PostgreSQL never comes through Django."""

import logging
from typing import Any

from django.db import models
from django.db.models.deletion import (
    CASCADE,
    Collector,
    ProtectedError,
    RestrictedError,
    get_candidate_relations_to_delete,
)

from hc_signals.delivery.instances import child_instances

logger = logging.getLogger("hc_signals")


def apply_on_delete(sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any) -> None:
    """Do to the Django-managed rows that point at the record what their relation says.

    CASCADE, SET_NULL, SET_DEFAULT and SET are applied. PROTECT and RESTRICT come too late, the record is gone: they are
    reported in the log. Tables of Heroku Connect are left alone, their records come and go by Salesforce's own rules.
    """
    collector = Collector(using=using, origin=instance)
    relations: list[Any] = list(get_candidate_relations_to_delete(sender._meta))
    for relation in relations:
        if relation.related_model._meta.managed and relation.on_delete is not models.DO_NOTHING:
            _collect(collector, relation, instance, using)
    for model, objects in collector.restricted_objects.items():
        _report(model, sum(map(len, objects.values())), "RESTRICT", sender)
    collector.delete()


def _collect(collector: Collector, relation: Any, instance: models.Model, using: str) -> None:
    if relation.field.remote_field.parent_link:
        # The Django half of a compound model; the ORM cannot load it, its other half is the record that is gone.
        halves = child_instances(relation.related_model, type(instance), {0: instance}, using)
        if relation.on_delete is CASCADE and halves:
            collector.collect(list(halves.values()), keep_parents=True)
        return
    pointing: Any = collector.related_objects(relation.related_model, [relation.field], [instance])
    if not pointing.exists():
        return
    try:
        relation.on_delete(collector, relation.field, pointing, using)
    except (ProtectedError, RestrictedError):
        _report(relation.related_model, pointing.count(), "PROTECT", type(instance))


def _report(model: Any, count: int, rule: str, sender: type[models.Model]) -> None:
    logger.warning(
        "%s row(s) of %s point at a deleted record of %s and say %s: that cannot be kept, Salesforce has deleted it.",
        count,
        model._meta.label,
        sender._meta.label,
        rule,
    )
