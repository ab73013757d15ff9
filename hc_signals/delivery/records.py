"""The records of a page as its receivers are told of them, read at once for each table: images with the types of the
database, what is inherited, children; and why one cannot be had.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError, models

from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.listeners import Listeners, Model
from hc_signals.delivery.project_code import ends_program
from hc_signals.delivery.relatives import child_instances, children_of
from hc_signals.delivery.routing import OF_RECORDS
from hc_signals.events import Change
from hc_signals.log.images import logged_images

Made = TypeVar("Made")


class Images(NamedTuple):
    """The images of the changes of one table in one page."""

    old_columns: list[str]
    """Those that any of the updates has changed."""
    fetch: Callable[[], list[tuple[Any, ...]]]
    """Makes Python values of what has arrived: see :func:`~hc_signals.log.images.images_sql`."""


class Records:
    """The records of one page, by the id of the change.

    Args:
        using: database alias.
        listeners: who is called; what nobody hears of is not read.
    """

    def __init__(self, using: str, listeners: Listeners) -> None:
        self.using, self.listeners = using, listeners
        self.unreadable: dict[int, BaseException] = {}
        self.children: dict[int, list[models.Model]] = defaultdict(list)
        """Instances of multi-table children, of models with receivers of their own."""
        self._rows: dict[int, tuple[Any, ...]] = {}
        """The id of the change, the columns of the latest image, then ``_old_columns`` of the old one."""
        self._old_columns: dict[str, list[str]] = {}
        """By table: those that any of the page's updates has changed."""
        self._inherited: dict[int, dict[str, Any]] = {}

    def __contains__(self, change: int) -> bool:
        return change in self._rows

    def load(self, builder: InstanceBuilder, changes: list[Change], images: Images | None) -> None:
        """Read the records of the changes of one table, unless nobody wants them.

        Args:
            images: what was read already.
        """
        if not self.listeners.wanted(builder.model):
            return
        old_columns = images.old_columns if images else changed_columns(builder, changes)
        found = _fetched(images) if images else None
        if found is None:
            found = self._read(builder, old_columns, [change.id for change in changes])
        self._old_columns[changes[0].table_name] = old_columns
        self._rows |= found
        has_parents = any(link is not None for link in builder.model._meta.parents.values())
        has_children = any(self.listeners.wanted(child, exclusive=True) for child in children_of(builder.model))
        if has_parents:
            converted = self._made(found, lambda key: builder.values(self._latest(builder, key)))
            self._inherited |= builder.inherited({key: self._latest(builder, key) for key in converted})
        if has_children:
            readable = [key for key in found if key not in self.unreadable]
            parents = self._made(readable, lambda key: self.instance(builder, key, builder.model))
            self._load_children(builder.model, parents)

    def instance(self, builder: InstanceBuilder, key: int, model: Model) -> models.Model:
        """Return the instance after the change of that id: of the builder's model, or of a proxy."""
        return builder.instance(self._latest(builder, key), model, self._inherited.get(key))

    def old(self, change: Change, builder: InstanceBuilder) -> dict[str, Any]:
        """Return the old image of an update, as far as it was read: nothing of other changes."""
        if change.operation != "UPDATE":
            return {}
        values = self._rows[change.id][1 + len(builder.columns) :]
        return dict(zip(self._old_columns[change.table_name], values, strict=True))

    def _latest(self, builder: InstanceBuilder, key: int) -> tuple[Any, ...]:
        return self._rows[key][1 : 1 + len(builder.columns)]

    def _read(self, builder: InstanceBuilder, old_columns: list[str], ids: list[int]) -> dict[int, tuple[Any, ...]]:
        """Read all at once; if one cannot be typed any more, by halves, so that only it fails."""
        if not ids:
            return {}
        try:
            return logged_images(self.using, builder.model, builder.columns, old_columns, ids)
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError as error:
            if len(ids) == 1:
                self.unreadable[ids[0]] = error
                return {}
            middle = len(ids) // 2
            first, second = ids[:middle], ids[middle:]
            return self._read(builder, old_columns, first) | self._read(builder, old_columns, second)

    def _made(self, keys: Iterable[int], make: Callable[[int], Made]) -> dict[int, Made]:
        """Return what the project's code (converters, a model's ``__init__``) makes of the records, where it does."""
        found = {}
        for key in keys:
            try:
                found[key] = make(key)
            except BaseException as error:
                if ends_program(error):
                    raise
                self.unreadable[key] = error
        return found

    def _load_children(self, parent: Model, parents: Mapping[int, models.Model]) -> None:
        for child in children_of(parent):
            if parents and self.listeners.wanted(child, exclusive=True):
                instances = self._child_instances(child, parent, parents)
                if self.listeners.heard(child, exclusive=True):
                    for key, instance in instances.items():
                        self.children[key].append(instance)
                self._load_children(child, instances)

    def _child_instances(
        self, child: Model, parent: Model, parents: Mapping[int, models.Model]
    ) -> dict[int, models.Model]:
        """Read all at once; if the project's code fails on one, by halves, so that only it fails."""
        try:
            return child_instances(child, parent, parents, self.using)
        except DatabaseError:
            raise
        except BaseException as error:
            if ends_program(error):
                raise
            keys = list(parents)
            if len(keys) == 1:
                self.unreadable[keys[0]] = error
                return {}
            halves = keys[: len(keys) // 2], keys[len(keys) // 2 :]
            first, second = (self._child_instances(child, parent, {k: parents[k] for k in half}) for half in halves)
            return first | second


def by_table(
    changes: Iterable[Change], builders: Mapping[str, InstanceBuilder], consumer: str
) -> dict[str, list[Change]]:
    """Return the changes of single records, as far as they concern the consumer, by the table, which has a model."""
    found: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        if change.table_name in builders and change.operation in OF_RECORDS and change.is_for(consumer):
            found[change.table_name].append(change)
    return found


def changed_columns(builder: InstanceBuilder, changes: Iterable[Change]) -> list[str]:
    """Return the columns that any of the updates has changed."""
    changed = {column for change in changes if change.operation == "UPDATE" for column in change.changed or ()}
    return [column for column in builder.columns if column in changed]


def _fetched(images: Images) -> dict[int, tuple[Any, ...]] | None:
    """Return what was read already; None where Python cannot hold a value of it: an infinite date, say."""
    try:
        return {row[0]: row for row in images.fetch()}
    except DatabaseError:
        return None
