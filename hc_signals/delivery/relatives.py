"""The models related to a connected model: its proxies, and its multi-table children with their instances."""

from collections.abc import Mapping
from typing import Any

from django.db import models

from hc_signals.delivery.instances import loaded_fields


def proxies_of(model: type[models.Model]) -> list[type[models.Model]]:
    """Return the proxies of a model, and the proxies of these."""
    found = []
    for child in model.__subclasses__():
        if child._meta.proxy:
            found += [child, *proxies_of(child)]
    return found


def children_of(model: type[models.Model]) -> list[type[models.Model]]:
    """Return the multi-table children of a model: each has a table of its own, linked to the model's table."""
    return [
        child
        for base in (model, *proxies_of(model))
        for child in base.__subclasses__()
        if not child._meta.abstract and not child._meta.proxy and child._meta.parents.get(model) is not None
    ]


def child_instances(
    child: type[models.Model], parent: type[models.Model], parents: Mapping[int, models.Model], using: str
) -> dict[int, models.Model]:
    """Return the child's instance by the key of each parent that has a row of the child.

    The Salesforce half is the parent's state after the change. One query reads the child's own half, as it is now.
    """
    link: Any = child._meta.parents[parent]
    target = link.target_field.attname
    values = {key: getattr(instance, target) for key, instance in parents.items()}
    own_names = [field.attname for field in child._meta.local_concrete_fields]
    wanted = {value for value in values.values() if value is not None}
    rows = child._base_manager.using(using).filter(**{f"{link.attname}__in": wanted}).values_list(*own_names)
    own_states = {state[link.attname]: state for state in (dict(zip(own_names, row, strict=True)) for row in rows)}
    found = {}
    for key, value in values.items():
        if value in own_states:
            state = loaded_fields(parents[key]) | own_states[value]
            names = [field.attname for field in child._meta.concrete_fields if field.attname in state]
            found[key] = child.from_db(using, names, [state[name] for name in names])
    return found
