"""Resources of django-import-export for connected models; needs ``django-import-export``."""

from typing import Any

from import_export import fields, resources


class KeepingField(fields.Field):
    """A column that keeps a record's value if the file has the text that an export of it would have.

    A file cannot spell every value: it has no NULL, no fractions of a second, and its own line ends.
    """

    def save(self, instance: Any, row: Any, is_m2m: bool = False, **kwargs: Any) -> None:
        """Set the value, if the text in the file differs from an export."""
        if instance._state.adding or self.export(instance) != row.get(self.column_name):
            super().save(instance, row, is_m2m, **kwargs)


class HerokuConnectModelResource(resources.ModelResource):
    """A ModelResource; importing its unedited export changes nothing."""

    DEFAULT_RESOURCE_FIELD = KeepingField
