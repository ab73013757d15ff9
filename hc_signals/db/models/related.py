"""Relations between connected models."""

from typing import Any

from django.db import models

from hc_signals.db.models.fields import HerokuConnectFieldMixin

__all__ = ("ConstraintlessForeignObjectMixin", "Lookup", "MasterDetail")


class ConstraintlessForeignObjectMixin:
    """A relation without a database constraint, because Heroku Connect fills tables in any order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["db_constraint"] = False
        super().__init__(*args, **kwargs)

    def save_form_data(self, instance: Any, data: Any) -> None:
        """Set a record, or the key of a missing record, which a form has kept."""
        name = self.name if data is None or isinstance(data, models.Model) else self.attname  # type: ignore[attr-defined]
        setattr(instance, name, data)


class Lookup(HerokuConnectFieldMixin, ConstraintlessForeignObjectMixin, models.ForeignKey):
    """Salesforce ``Lookup Relationship``; point ``to_field`` at ``sf_id`` or an external id."""


class MasterDetail(HerokuConnectFieldMixin, ConstraintlessForeignObjectMixin, models.ForeignKey):
    """Salesforce ``Master-Detail Relationship``; point ``to_field`` at ``sf_id`` or an external id."""
