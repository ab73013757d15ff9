"""Relations between connected models."""

from typing import Any

from django.db import models

from hc_signals.db.models.fields import HerokuConnectFieldMixin

__all__ = ("ConstraintlessForeignObjectMixin", "Lookup", "MasterDetail")


class ConstraintlessForeignObjectMixin:
    """A relation without a database constraint: Heroku Connect fills tables in any order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["db_constraint"] = False
        super().__init__(*args, **kwargs)


class Lookup(HerokuConnectFieldMixin, ConstraintlessForeignObjectMixin, models.ForeignKey):  # type: ignore[type-arg]
    """Salesforce ``Lookup Relationship``; point ``to_field`` at ``sf_id`` or an external id."""


class MasterDetail(HerokuConnectFieldMixin, ConstraintlessForeignObjectMixin, models.ForeignKey):  # type: ignore[type-arg]
    """Salesforce ``Master-Detail Relationship``; point ``to_field`` at ``sf_id`` or an external id."""
