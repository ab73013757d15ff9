"""Builds model instances from stored images, as the ORM would have loaded them."""

from collections.abc import Callable
from typing import Any

from django.db import connections, models


class InstanceBuilder:
    """Turns typed rows of one model's own table into instances, with the converters of its fields."""

    def __init__(self, model: type[models.Model], using: str) -> None:
        self.model, self.using = model, using
        self.fields = list(model._meta.local_concrete_fields)
        self.columns = [str(field.column) for field in self.fields]
        self.names = [field.attname for field in self.fields]
        self.name_of_column = {str(field.column): field.name for field in self.fields}
        connection = connections[using]
        self._converters: list[tuple[int, list[Callable[..., Any]], Any]] = []
        for index, field in enumerate(self.fields):
            expression = field.get_col(model._meta.db_table)
            converters = connection.ops.get_db_converters(expression) + expression.get_db_converters(connection)
            if converters:
                self._converters.append((index, converters, expression))

    def values(self, row: tuple[Any, ...]) -> list[Any]:
        """Return the row's values as Python values."""
        values = list(row)
        for index, converters, expression in self._converters:
            for convert in converters:
                values[index] = convert(values[index], expression, connections[self.using])
        return values

    def instance(self, row: tuple[Any, ...], model: type[models.Model] | None = None) -> models.Model:
        """Return the instance, of ``model`` (a proxy) if given; fields of other tables stay deferred."""
        return (model or self.model).from_db(self.using, self.names, self.values(row))

    def previous(self, row: tuple[Any, ...], changed: list[str]) -> dict[str, Any]:
        """Return the old values of the changed columns by field name."""
        values = dict(zip(self.columns, self.values(row), strict=True))
        return {self.name_of_column[c]: values[c] for c in changed if c in self.name_of_column}


def receiving_models(model: type[models.Model]) -> list[type[models.Model]]:
    """Return the proxies and Django-managed children of a connected model, which hear of its changes too."""
    found = []
    for child in model.__subclasses__():
        if child._meta.abstract:
            continue
        if child._meta.proxy or child._meta.managed:
            found += [child, *receiving_models(child)]
    return found


def children_of(
    child: type[models.Model], parent: type[models.Model], parents: list[models.Model], using: str
) -> dict[Any, models.Model]:
    """Return, by the link's value, instances of a multi-table child for those parents that have a row of it.

    The Salesforce half is the parent's state of the event; the Django half is as it is now.
    """
    link = child._meta.get_ancestor_link(parent)
    assert link is not None  # noqa: S101
    target = link.target_field.attname
    by_value = {getattr(p, target): p for p in parents}
    own_names = [f.attname for f in child._meta.local_concrete_fields]
    rows = child._base_manager.using(using).filter(**{f"{link.attname}__in": list(by_value)}).values_list(*own_names)
    found = {}
    for row in rows:
        own = dict(zip(own_names, row, strict=True))
        parent_row = by_value[own[link.attname]]
        state = {f.attname: parent_row.__dict__.get(f.attname) for f in parent._meta.concrete_fields}
        state.update(own)
        names = [f.attname for f in child._meta.concrete_fields]
        found[own[link.attname]] = child.from_db(using, names, [state[name] for name in names])
    return found
