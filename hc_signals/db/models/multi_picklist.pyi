from typing import Any, Literal, Unpack, overload

from django.db import models

from hc_signals.db.models.fields import HerokuConnectFieldMixin
from hc_signals.db.models.value_types import FieldOptions, Multi_G, Multi_S, SetMulti
from hc_signals.db.values import MultiPicklistValue

__all__ = ("MultiPicklist",)

class MultiPicklist(HerokuConnectFieldMixin, models.CharField[Multi_S, Multi_G]):
    _pyi_private_set_type: SetMulti  # type: ignore[assignment]
    _pyi_private_get_type: MultiPicklistValue  # type: ignore[assignment]
    @overload
    def __init__(
        self: MultiPicklist[SetMulti, MultiPicklistValue],
        *args: Any,
        null: Literal[False],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...
