"""Builds model instances from rows of the log, as the ORM would have loaded them."""

from collections.abc import Callable, Mapping
from typing import Any

from django.db import connections, models


class InstanceBuilder:
    """Turns typed rows of one model's own table into instances, with the converters of the model's fields."""

    def __init__(self, model: type[models.Model], using: str) -> None:
        self.model, self.using = model, using
        self.fields = list(model._meta.local_concrete_fields)
        self.columns = [str(field.column) for field in self.fields]
        self.names = [field.attname for field in self.fields]
        self.name_of_column = {str(field.column): field.name for field in self.fields}
        # Converters need it. connections[using] for every row would take time.
        connection = self._connection = connections[using]
        self._converters: list[tuple[int, Callable[..., Any], Any]] = []
        self._converters_of: dict[str, tuple[list[Callable[..., Any]], Any]] = {}
        for index, field in enumerate(self.fields):
            expression = field.get_col(model._meta.db_table)
            converters = connection.ops.get_db_converters(expression) + expression.get_db_converters(connection)
            if converters:
                self._converters += [(index, convert, expression) for convert in converters]
                self._converters_of[str(field.column)] = (converters, expression)

    def values(self, row: tuple[Any, ...]) -> list[Any]:
        """Return the row's values as Python values."""
        values, connection = list(row), self._connection
        for index, convert, expression in self._converters:
            values[index] = convert(values[index], expression, connection)
        return values

    def instance(
        self, row: tuple[Any, ...], model: type[models.Model] | None = None, inherited: Mapping[str, Any] | None = None
    ) -> models.Model:
        """Return the instance, of the proxy ``model`` if given; fields of parents without a value are deferred."""
        names, values = self.names, self.values(row)
        if inherited:
            names, values = [*names, *inherited], [*values, *inherited.values()]
            order = {field.attname: index for index, field in enumerate(self.model._meta.concrete_fields)}
            pairs = sorted(zip(names, values, strict=True), key=lambda pair: order[pair[0]])
            names, values = [name for name, _ in pairs], [value for _, value in pairs]
        return (model or self.model).from_db(self.using, names, values)

    def previous(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Convert old values, by column, to Python values by field name."""
        connection, found = self._connection, {}
        for column, stored in values.items():
            converters, expression = self._converters_of.get(column, ((), None))
            value = stored
            for convert in converters:
                value = convert(value, expression, connection)
            found[self.name_of_column[column]] = value
        return found

    def inherited(self, rows: Mapping[int, tuple[Any, ...]]) -> dict[int, dict[str, Any]]:
        """Return the present values in parents' tables, by attname, for the key of each row."""
        found: dict[int, dict[str, Any]] = {}
        links: dict[type[models.Model], Any] = dict(self.model._meta.parents)
        for parent, link in links.items():
            if link is None or link not in self.fields:
                continue
            position, target = self.fields.index(link), link.target_field.attname
            wanted = {key: self.values(row)[position] for key, row in rows.items()}
            instances = parent._base_manager.using(self.using).filter(**{f"{target}__in": set(wanted.values())})
            states = {getattr(i, target): loaded_fields(i) for i in instances}
            for key, value in wanted.items():
                found.setdefault(key, {}).update(states.get(value, {}))
        return found


def as_saved(instance: models.Model, previous: Mapping[str, Any], *, is_new: bool) -> models.Model:
    """Return the record as ``save()`` leaves it for receivers of ``post_save``: made with old values, then changed.

    So code that copies the values of a new instance, such as django-model-utils' FieldTracker, has the old ones. One
    that ``is_new`` is made without a primary key, which is then assigned.
    """
    after = loaded_fields(instance)
    by_attname = {
        field.attname: previous[field.name] for field in instance._meta.concrete_fields if field.name in previous
    }
    old = {instance._meta.pk.attname: None} if is_new else by_attname
    changed = [name for name in after if name in old]
    if not changed:
        return instance
    before = after | {name: old[name] for name in changed}
    saved = type(instance).from_db(instance._state.db, list(before), list(before.values()))
    for name in changed:
        setattr(saved, name, after[name])
    return saved


def loaded_fields(instance: models.Model) -> dict[str, Any]:
    """Return the loaded fields of an instance by attname."""
    loaded = instance.__dict__
    return {f.attname: loaded[f.attname] for f in instance._meta.concrete_fields if f.attname in loaded}
