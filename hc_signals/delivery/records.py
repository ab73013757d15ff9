"""Reads the records of a page, one query per table: images, typed by the database; parents' fields; children."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from django.db import DatabaseError, OperationalError, models

from hc_signals.delivery.app_writes import pending_columns
from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.listeners import Listeners, Model
from hc_signals.delivery.project_code import ends_program
from hc_signals.delivery.relatives import child_instances, children_of
from hc_signals.delivery.routing import OF_RECORDS
from hc_signals.log.change import Change
from hc_signals.log.images import logged_images, logged_values

Made = TypeVar("Made")


class Images(NamedTuple):
    """The images of one table's changes in one page."""

    old_columns: list[str]
    """The columns that any of the updates has changed."""
    fetch: Callable[[], list[tuple[Any, ...]]]
    """Converts the rows of :func:`~hc_signals.log.images.images_sql`, which have arrived, to Python values."""


class Records:
    """The records of one page, by the id of the change. Records without a receiver are not read."""

    def __init__(self, using: str, listeners: Listeners) -> None:
        self.using, self.listeners = using, listeners
        self.unreadable: dict[int, BaseException] = {}
        """Errors of records that cannot be read or built."""
        self.children: dict[int, list[models.Model]] = defaultdict(list)
        """Instances of those multi-table children that have receivers."""
        self._rows: dict[int, tuple[Any, ...]] = {}
        """The id of the change, the columns of the latest image, then those of ``_old_columns`` from the old one."""
        self._old_columns: dict[str, list[str]] = {}
        """By table: the columns that any of the page's updates has changed."""
        self._inherited: dict[int, dict[str, Any]] = {}
        self._changes: dict[str, list[Change]] = {}
        """By table."""
        self._pending: dict[str, dict[int, tuple[str, ...]]] = {}
        """By table, once a receiver has asked; see :meth:`pending`."""

    def __contains__(self, change: int) -> bool:
        return change in self._rows

    def load(self, builder: InstanceBuilder, changes: list[Change], images: Images | None) -> None:
        """Read the records of one table's changes, except for ``images`` that were read in advance."""
        if not self.listeners.wanted(builder.model):
            return
        old_columns = images.old_columns if images else changed_columns(builder, changes)
        found = _fetched(images) if images else None
        if found is None:
            found = self._read(builder, old_columns, [change.id for change in changes])
        label = changes[0].table_name
        self._old_columns[label], self._changes[label] = old_columns, changes
        self._rows |= found
        if any(link is not None for link in builder.model._meta.parents.values()):
            converted = self._build(found, lambda key: builder.values(self._latest(builder, key)))
            self._inherited |= builder.inherited({key: self._latest(builder, key) for key in converted})
        if any(self.listeners.wanted(child, exclusive=True) for child in children_of(builder.model)):
            readable = [key for key in found if key not in self.unreadable]
            parents = self._build(readable, lambda key: self.instance(builder, key, builder.model))
            self._load_children(builder.model, parents)

    def instance(self, builder: InstanceBuilder, key: int, model: Model) -> models.Model:
        """Return the instance as it was after a change: of the builder's model, or of a proxy."""
        row = self._rows[key][1 : 1 + len(builder.columns)]
        return builder.instance(row, model, self._inherited.get(key) if self._inherited else None)

    def old(self, change: Change, builder: InstanceBuilder) -> dict[str, Any]:
        """Return those old values of an update that were read, by column; empty for other changes."""
        if change.operation != "UPDATE":
            return {}
        values = self._rows[change.id][1 + len(builder.columns) :]
        return dict(zip(self._old_columns[change.table_name], values, strict=True))

    def pending(self, change: Change, builder: InstanceBuilder) -> tuple[str, ...]:
        """Return the changed columns that the app's own writes replace. The trigger log is read once for the page."""
        label = change.table_name
        if label not in self._pending:
            read = partial(logged_values, self.using, builder.model)
            self._pending[label] = pending_columns(
                self.using, builder.model, self._changes[label], builder.columns, read
            )
        return self._pending[label].get(change.id, ())

    def _latest(self, builder: InstanceBuilder, key: int) -> tuple[Any, ...]:
        return self._rows[key][1 : 1 + len(builder.columns)]

    def _read(self, builder: InstanceBuilder, old_columns: list[str], ids: list[int]) -> dict[int, tuple[Any, ...]]:
        def read(chosen: list[int]) -> dict[int, tuple[Any, ...]]:
            return logged_images(self.using, builder.model, builder.columns, old_columns, chosen)

        return self._by_halves(read, ids, _is_untypable)

    def _by_halves(
        self, read: Callable[[list[int]], dict[int, Made]], keys: list[int], fails_one: Callable[[BaseException], bool]
    ) -> dict[int, Made]:
        """Read all keys at once; on an error that ``fails_one``, by halves, so that one key alone is unreadable."""
        if not keys:
            return {}
        try:
            return read(keys)
        except BaseException as error:
            if not fails_one(error):
                raise
            if len(keys) == 1:
                self.unreadable[keys[0]] = error
                return {}
        middle = len(keys) // 2
        return self._by_halves(read, keys[:middle], fails_one) | self._by_halves(read, keys[middle:], fails_one)

    def _build(self, keys: Iterable[int], build: Callable[[int], Made]) -> dict[int, Made]:
        """Build records with the project's code (converters, ``__init__``); one that raises is unreadable."""
        found = {}
        for key in keys:
            try:
                found[key] = build(key)
            except BaseException as error:
                if ends_program(error):
                    raise
                self.unreadable[key] = error
        return found

    def _load_children(self, parent: Model, parents: Mapping[int, models.Model]) -> None:
        for child in children_of(parent):
            if parents and self.listeners.wanted(child, exclusive=True):
                instances = self._read_children(child, parent, parents)
                if self.listeners.heard(child, exclusive=True):
                    for key, instance in instances.items():
                        self.children[key].append(instance)
                self._load_children(child, instances)

    def _read_children(
        self, child: Model, parent: Model, parents: Mapping[int, models.Model]
    ) -> dict[int, models.Model]:
        def read(keys: list[int]) -> dict[int, models.Model]:
            return child_instances(child, parent, {key: parents[key] for key in keys}, self.using)

        return self._by_halves(read, list(parents), _is_of_project)


def by_table(
    changes: Iterable[Change], builders: Mapping[str, InstanceBuilder], consumer: str
) -> dict[str, list[Change]]:
    """Return the changes of records that concern the consumer, by table, for tables that have a model."""
    found: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        if change.note and not change.is_for(consumer):
            continue
        if (table := change.table_name) in builders and change.operation in OF_RECORDS:
            found[table].append(change)
    return found


def changed_columns(builder: InstanceBuilder, changes: Iterable[Change]) -> list[str]:
    """Return the model's columns that any of the updates has changed."""
    changed: set[str] = set()
    for change in changes:
        if change.operation == "UPDATE" and change.changed:
            changed.update(change.changed)
    return [column for column in builder.columns if column in changed]


def _fetched(images: Images) -> dict[int, tuple[Any, ...]] | None:
    """Return the rows that were read in advance; None if Python cannot hold a value of them, as an infinite date."""
    try:
        return {row[0]: row for row in images.fetch()}
    except DatabaseError:
        return None


def _is_untypable(error: BaseException) -> bool:
    return isinstance(error, DatabaseError) and not isinstance(error, OperationalError)


def _is_of_project(error: BaseException) -> bool:
    return not (isinstance(error, DatabaseError) or ends_program(error))
