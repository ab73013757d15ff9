"""The admin's filter for multi-select picklists: it keeps records that have a value among others or alone."""

from typing import Any

from django.contrib.admin import ChoicesFieldListFilter, FieldListFilter

from hc_signals.db.models import MultiPicklist


class MultiPicklistListFilter(ChoicesFieldListFilter):
    """Django's filter by choices, with ``includes`` instead of ``exact``; Django takes it for each MultiPicklist."""

    def __init__(self, field: Any, request: Any, params: Any, *args: Any, **kwargs: Any) -> None:
        path = kwargs["field_path"]
        self.lookup_kwarg, self.lookup_kwarg_isnull = f"{path}__includes", f"{path}__isnull"
        self.lookup_val, self.lookup_val_isnull = params.get(self.lookup_kwarg), params.get(self.lookup_kwarg_isnull)
        # Not the parent's __init__, which would overwrite these four attributes.
        FieldListFilter.__init__(self, field, request, params, *args, **kwargs)


FieldListFilter.register(
    lambda field: isinstance(field, MultiPicklist) and field.choices is not None,
    MultiPicklistListFilter,
    take_priority=True,
)
