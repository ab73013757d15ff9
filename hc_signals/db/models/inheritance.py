"""Multi-table children of connected models, whose parent link points to an external id instead of the key.

A reload of the table gives a record another ``id``, so the docs ask for ``to_field="external_id"``. Django assumes in
two places that a parent link has the parent's key: when it saves, and when it updates a query set.
"""

import copy
from collections.abc import Iterator
from typing import Any

from django.db import NotSupportedError, models
from django.db.models.query_utils import DeferredAttribute


class LinkedByValue(models.Model):
    """Saves a multi-table child with the value of the field to which its parent link points."""

    class Meta:
        abstract = True

    def _save_parents(self, cls: Any, using: Any, update_fields: Any, *args: Any, **kwargs: Any) -> bool:
        """Save the parents as Django does, and set the links that do not point to a key."""
        links = [link for link in cls._meta.parents.values() if link and not link.target_field.primary_key]
        before = {link: getattr(self, link.attname) for link in _own_links(cls) if _leads_to_value(link)}
        for link in links:
            self._adopt(link, using)
            if getattr(self, link.remote_field.model._meta.pk.attname) is None:
                setattr(self, link.attname, None)  # else Django uses it as the parent's key
        try:
            inserted: bool = super()._save_parents(cls, using, update_fields, *args, **kwargs)  # type: ignore[misc]
        finally:
            for link in links:
                is_kept = update_fields is not None and link.target_field.name not in update_fields
                value = before.get(link) if is_kept else None
                setattr(self, link.attname, value or getattr(self, link.target_field.attname))
        for link, old in before.items():
            new = getattr(self, link.attname)
            if not self._state.adding and old is not None and new != old:
                # The external id has changed: update it in the child's row.
                cls._base_manager.using(using).filter(**{link.attname: old}).update(**{link.attname: new})
        return inserted

    def _prepare_related_fields_for_save(self, operation_name: str, fields: Any = None) -> None:
        """Refuse a ``bulk_update()`` that would write NULL, because it searches a parent's table for the child's key.

        Raises:
            NotSupportedError: a field is in a parent's table.
        """
        if operation_name == "bulk_update" and any(map(_leads_to_value, _own_links(type(self)))):
            theirs = [field for field in fields or () if field not in self._meta.local_fields]
            if theirs:
                raise NotSupportedError(
                    f"bulk_update() of {self._meta.label} cannot write {theirs[0].name!r}, a field of "
                    f"{theirs[0].model._meta.label}. Use save() or update(), or bulk_update() of that model."
                )
        super()._prepare_related_fields_for_save(operation_name, fields)  # type: ignore[misc]

    def _adopt(self, link: Any, using: str) -> None:
        """Make a new instance the child of the existing parent that its link names."""
        value, parent = getattr(self, link.attname), link.remote_field.model
        if value is None or not self._state.adding:
            return
        setattr(self, link.target_field.attname, value)
        if getattr(self, parent._meta.pk.attname) is None:
            found = parent._base_manager.using(using).filter(**{link.target_field.attname: value})
            setattr(self, parent._meta.pk.attname, found.values_list("pk", flat=True).first())


def _own_links(model: Any) -> Iterator[Any]:
    """Yield the parent links in the model's own table."""
    concrete = model._meta.concrete_model
    return (link for link in concrete._meta.parents.values() if link and link.model is concrete)


def _leads_to_value(link: Any) -> bool:
    target = link.target_field
    is_link = bool(target.remote_field and target.remote_field.parent_link)
    return not target.primary_key or (is_link and _leads_to_value(target))


class _LoadedKey(DeferredAttribute):
    """Loads a deferred key of a parent; Django would use the value of the link instead."""

    def _check_parent_chain(self, instance: Any) -> None:
        return None


def link_by_value(model: Any) -> None:
    """Make a new child model find the rows of its parents by their own key.

    Django would use the child's key for its parents in ``QuerySet.update()``, which checks whether the links are keys,
    and instead of loading a deferred key.
    """
    for link in filter(_leads_to_value, _own_links(model)):
        if not link.target_field.primary_key:
            key = link.remote_field.model._meta.pk
            setattr(model, key.attname, _LoadedKey(key))
    find = model._meta.get_path_to_parent

    def get_path_to_parent(parent: Any) -> Any:
        return [_without_key(step) for step in find(parent)]

    model._meta.get_path_to_parent = get_path_to_parent


def _without_key(step: Any) -> Any:
    link = step.join_field
    if not link.primary_key or not _leads_to_value(link):
        return step
    link = copy.copy(link)
    link.primary_key = False
    return step._replace(join_field=link)
