"""The types of connected fields, for type checkers: nothing here has an effect at run time.

django-stubs makes Django's field classes generic: ``CharField[str | Combinable | None, str | None]`` is assigned the
first type, and has the second one on an instance. Django itself does not, so at run time a subscript gives the class.

The defaults are the types of a nullable field. Each class has an overload of ``__init__`` for ``null=False``: mypy
ignores the annotation of an inherited ``self``.
"""

import datetime
import decimal
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Required, TypedDict

from django.db.models.expressions import Combinable
from typing_extensions import TypeVar

from hc_signals.db.values import MultiPicklistValue

SetText = str | Combinable
SetBool = bool | Combinable
SetInteger = int | str | Combinable
SetDecimal = decimal.Decimal | float | str | Combinable
SetFloat = float | str | Combinable
SetDate = datetime.date | str | Combinable
SetTime = datetime.time | str | Combinable
SetUUID = uuid.UUID | str | Combinable
SetMulti = str | list[str] | tuple[str, ...] | set[str] | frozenset[str] | Combinable

Text_S = TypeVar("Text_S", contravariant=True, default=SetText | None)
Text_G = TypeVar("Text_G", covariant=True, default=str | None)
Integer_S = TypeVar("Integer_S", contravariant=True, default=SetInteger | None)
Integer_G = TypeVar("Integer_G", covariant=True, default=int | None)
Decimal_S = TypeVar("Decimal_S", contravariant=True, default=SetDecimal | None)
Decimal_G = TypeVar("Decimal_G", covariant=True, default=decimal.Decimal | None)
Date_S = TypeVar("Date_S", contravariant=True, default=SetDate | None)
Date_G = TypeVar("Date_G", covariant=True, default=datetime.date | None)
DateTime_S = TypeVar("DateTime_S", contravariant=True, default=SetDate | None)
DateTime_G = TypeVar("DateTime_G", covariant=True, default=datetime.datetime | None)
Time_S = TypeVar("Time_S", contravariant=True, default=SetTime | None)
Time_G = TypeVar("Time_G", covariant=True, default=datetime.time | None)
UUID_S = TypeVar("UUID_S", contravariant=True, default=SetUUID | None)
UUID_G = TypeVar("UUID_G", covariant=True, default=uuid.UUID | None)
Multi_S = TypeVar("Multi_S", contravariant=True, default=SetMulti | None)
Multi_G = TypeVar("Multi_G", covariant=True, default=MultiPicklistValue | None)
Record_S = TypeVar("Record_S", contravariant=True, default=Any)
Record_G = TypeVar("Record_G", covariant=True, default=Any)

OnDelete = Callable[..., None]

class _DjangoOptions(TypedDict, total=False):
    """Arguments of Django's fields, without ``null``."""

    verbose_name: Any
    name: str | None
    primary_key: bool
    max_length: int | None
    max_digits: int | None
    decimal_places: int | None
    unique: bool
    blank: bool
    db_index: bool
    default: Any
    db_default: Any
    editable: bool
    serialize: bool
    unique_for_date: str | None
    unique_for_month: str | None
    unique_for_year: str | None
    choices: Any
    help_text: Any
    db_column: str | None
    db_comment: str | None
    db_collation: str | None
    db_tablespace: str | None
    auto_created: bool
    auto_now: bool
    auto_now_add: bool
    validators: Iterable[Callable[[Any], None]]
    error_messages: Mapping[str, Any]

class FieldOptions(_DjangoOptions, total=False):
    """Arguments of a connected field, without ``null``."""

    sf_field_name: Required[str]
    upsert: bool

class RelationOptions(FieldOptions, total=False):
    """Arguments of a relation, without ``to``, ``on_delete`` and ``null``."""

    related_name: str | None
    related_query_name: str | None
    limit_choices_to: Any
    parent_link: bool
    to_field: str | None
    db_constraint: bool
