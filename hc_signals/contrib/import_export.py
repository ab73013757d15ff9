"""Resources of django-import-export for connected models; needs ``django-import-export``."""

from typing import Any

from import_export import fields, resources


class KeepingField(fields.Field):
    """A column that leaves a record's value where the file says of it what an export would say.

    A file has no NULL beside the empty text, no fractions of a second and no line ends but its own.
    """

    def save(self, instance: Any, row: Any, is_m2m: bool = False, **kwargs: Any) -> None:
        """Set the value, if the file has another one."""
        if instance._state.adding or self.export(instance) != row.get(self.column_name):
            super().save(instance, row, is_m2m, **kwargs)


class HerokuConnectModelResource(resources.ModelResource):
    """A ModelResource whose export, imported, changes nothing."""

    DEFAULT_RESOURCE_FIELD = KeepingField
