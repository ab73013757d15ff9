"""Relations between connected models."""

from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from django.db import models
from django.db.models.expressions import Combinable

from hc_signals.db.models.fields import HerokuConnectFieldMixin
from hc_signals.db.models.generic import OnDelete, Record_G, Record_S, RelationOptions, typed

__all__ = ("ConstraintlessForeignObjectMixin", "Lookup", "MasterDetail")

M = TypeVar("M", bound=models.Model)


class ConstraintlessForeignObjectMixin:
    """A relation without a database constraint, because Heroku Connect fills tables in any order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["db_constraint"] = False
        super().__init__(*args, **kwargs)

    def save_form_data(self, instance: Any, data: Any) -> None:
        """Set a record, or the key of a missing record, which a form has kept."""
        name = self.name if data is None or isinstance(data, models.Model) else self.attname  # type: ignore[attr-defined]
        setattr(instance, name, data)


class Lookup(HerokuConnectFieldMixin, ConstraintlessForeignObjectMixin, typed.ForeignKey[Record_S, Record_G]):
    """Salesforce ``Lookup Relationship``; point ``to_field`` at ``sf_id`` or an external id."""

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: "Lookup[Any, Any]",
            to: str,
            on_delete: OnDelete,
            *,
            null: Literal[False],
            **options: Unpack[RelationOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: "Lookup[Any | None, Any | None]",
            to: str,
            on_delete: OnDelete,
            *,
            null: bool = True,
            **options: Unpack[RelationOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: "Lookup[M | Combinable, M]",
            to: type[M],
            on_delete: OnDelete,
            *,
            null: Literal[False],
            **options: Unpack[RelationOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: "Lookup[M | Combinable | None, M | None]",
            to: type[M],
            on_delete: OnDelete,
            *,
            null: bool = True,
            **options: Unpack[RelationOptions],
        ) -> None: ...
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...


class MasterDetail(HerokuConnectFieldMixin, ConstraintlessForeignObjectMixin, typed.ForeignKey[Record_S, Record_G]):
    """Salesforce ``Master-Detail Relationship``; point ``to_field`` at ``sf_id`` or an external id."""

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: "MasterDetail[Any, Any]",
            to: str,
            on_delete: OnDelete,
            *,
            null: Literal[False],
            **options: Unpack[RelationOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: "MasterDetail[Any | None, Any | None]",
            to: str,
            on_delete: OnDelete,
            *,
            null: bool = True,
            **options: Unpack[RelationOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: "MasterDetail[M | Combinable, M]",
            to: type[M],
            on_delete: OnDelete,
            *,
            null: Literal[False],
            **options: Unpack[RelationOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: "MasterDetail[M | Combinable | None, M | None]",
            to: type[M],
            on_delete: OnDelete,
            *,
            null: bool = True,
            **options: Unpack[RelationOptions],
        ) -> None: ...
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
