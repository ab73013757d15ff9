from typing import Any, Literal, TypeVar, Unpack, overload

from django.db import models
from django.db.models.expressions import Combinable

from hc_signals.db.models.fields import HerokuConnectFieldMixin
from hc_signals.db.models.value_types import OnDelete, Record_G, Record_S, RelationOptions

__all__ = ("ConstraintlessForeignObjectMixin", "Lookup", "MasterDetail")
M = TypeVar("M", bound=models.Model)

class ConstraintlessForeignObjectMixin:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def save_form_data(self, instance: Any, data: Any) -> None: ...

class Lookup(HerokuConnectFieldMixin, ConstraintlessForeignObjectMixin, models.ForeignKey[Record_S, Record_G]):
    @overload
    def __init__(
        self: Lookup[Any, Any],
        to: str,
        on_delete: OnDelete,
        *,
        null: Literal[False],
        **options: Unpack[RelationOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Lookup[Any | None, Any | None],
        to: str,
        on_delete: OnDelete,
        *,
        null: bool = True,
        **options: Unpack[RelationOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Lookup[M | Combinable, M],
        to: type[M],
        on_delete: OnDelete,
        *,
        null: Literal[False],
        **options: Unpack[RelationOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Lookup[M | Combinable | None, M | None],
        to: type[M],
        on_delete: OnDelete,
        *,
        null: bool = True,
        **options: Unpack[RelationOptions],
    ) -> None: ...

class MasterDetail(HerokuConnectFieldMixin, ConstraintlessForeignObjectMixin, models.ForeignKey[Record_S, Record_G]):
    @overload
    def __init__(
        self: MasterDetail[Any, Any],
        to: str,
        on_delete: OnDelete,
        *,
        null: Literal[False],
        **options: Unpack[RelationOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: MasterDetail[Any | None, Any | None],
        to: str,
        on_delete: OnDelete,
        *,
        null: bool = True,
        **options: Unpack[RelationOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: MasterDetail[M | Combinable, M],
        to: type[M],
        on_delete: OnDelete,
        *,
        null: Literal[False],
        **options: Unpack[RelationOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: MasterDetail[M | Combinable | None, M | None],
        to: type[M],
        on_delete: OnDelete,
        *,
        null: bool = True,
        **options: Unpack[RelationOptions],
    ) -> None: ...
