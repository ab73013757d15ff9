"""Builds model instances from rows of the log, as the ORM would have loaded them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import getattr_static
from typing import Any

from django.db import connections, models
from django.db.models import base
from django.db.models.base import ModelState
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, pre_init

from hc_signals.tables import table_label

_PLAIN_ATTRIBUTES = {
    DeferredAttribute,
    models.ForeignKey.descriptor_class,
}
"""Descriptors of fields that put a value into ``__dict__`` and do nothing else, if the instance is new."""


class Maker:
    """Makes instances of one model, equal to those of ``Model.from_db``.

    ``from_db`` takes half of the time of a change, because ``Model.__init__`` sets each field by ``setattr``. If no
    code of the project has a part in that, an instance is a dict of its values, and all have an equal ``_state``. So
    the first instance is made by ``from_db``; if it is as expected, the others are made without.

    Args:
        names: attnames of the values.
    """

    def __init__(self, model: type[models.Model], using: str, names: Sequence[str]) -> None:
        self._model, self._using, self._names = model, using, names
        self._state: dict[str, Any] | None = None
        """Of each instance; None: it has to be made by ``from_db``."""
        self._connected: tuple[Any, Any] = None, None
        """The receivers of Django's signals of new instances, when it was found out how to make them."""

    def make(self, values: Sequence[Any]) -> models.Model:
        """Return an instance."""
        before, after = self._connected
        if pre_init.receivers != before or post_init.receivers != after:
            return self._first(values)
        if self._state is None:
            return self._model.from_db(self._using, self._names, values)
        instance, state = object.__new__(self._model), ModelState()
        state.__dict__.update(self._state)
        loaded = instance.__dict__
        loaded["_state"] = state
        loaded.update(zip(self._names, values, strict=True))
        return instance

    def _first(self, values: Sequence[Any]) -> models.Model:
        self._state, self._connected = None, (list(pre_init.receivers), list(post_init.receivers))
        instance = self._model.from_db(self._using, self._names, values)
        expected = dict(zip(self._names, values, strict=True))
        if _runs_no_code_of_project(self._model) and _is_plain(instance, expected):
            self._state = dict(vars(instance._state))
        return instance


def _runs_no_code_of_project(model: type[models.Model]) -> bool:
    """Return whether a new instance of the model gets its values from Django's code alone."""
    attributes = (getattr_static(model, field.attname) for field in model._meta.concrete_fields)
    classes = (each for each in model.__mro__ if each not in (models.Model, object))
    return (
        type(model).__call__ is type.__call__
        and model.__new__ is object.__new__
        and not any("__init__" in vars(each) for each in classes)
        and model.__setattr__ is object.__setattr__
        and model.from_db.__func__ is models.Model.from_db.__func__  # type: ignore[attr-defined]
        and _is_djangos(models.Model.__init__)
        and _is_djangos(models.Model.from_db)
        and all(type(each) in _PLAIN_ATTRIBUTES for each in attributes)
        and not (pre_init.has_listeners(model) or post_init.has_listeners(model))
    )


def _is_djangos(function: Any) -> bool:
    """Return whether a function of ``Model`` is Django's own: a library may have put another one into its place."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename == base.__file__


def _is_plain(instance: models.Model, values: Mapping[str, Any]) -> bool:
    """Return whether the instance has these values and an ordinary ``_state``, and nothing else."""
    own = dict(vars(instance))
    return type(own.pop("_state", None)) is ModelState and list(own.items()) == list(values.items())


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
        self._makers: dict[type[models.Model], Maker] = {}
        """By model: this one, and proxies."""
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
        model = model or self.model
        if (maker := self._makers.get(model)) is None:
            maker = self._makers[model] = Maker(model, self.using, names)
        return maker.make(values)

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


class Builders(Mapping[str, InstanceBuilder]):
    """The builders of these models, by table as the log names it. Each is made when it is first used.

    Three hundred take a tenth of a second, and the changes of an hour are of a few tables.
    """

    def __init__(self, of_models: Iterable[type[models.Model]], using: str) -> None:
        self._models = {table_label(model): model for model in of_models}
        self._made: dict[str, InstanceBuilder] = {}
        self._using = using

    def __getitem__(self, table: str) -> InstanceBuilder:
        found = self._made.get(table)
        if found is None:
            found = self._made[table] = InstanceBuilder(self._models[table], self._using)
        return found

    def __contains__(self, table: object) -> bool:
        return table in self._models

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


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
