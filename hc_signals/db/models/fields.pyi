import datetime
import decimal
import uuid
from typing import Any, Literal, Self, Unpack, overload

from django.db import models

from hc_signals.db.models.value_types import (
    UUID_G,
    UUID_S,
    Date_G,
    Date_S,
    DateTime_G,
    DateTime_S,
    Decimal_G,
    Decimal_S,
    FieldOptions,
    Integer_G,
    Integer_S,
    SetBool,
    SetDate,
    SetDecimal,
    SetFloat,
    SetInteger,
    SetText,
    SetTime,
    SetUUID,
    Text_G,
    Text_S,
    Time_G,
    Time_S,
)

__all__ = (
    "ID",
    "URL",
    "AnyType",
    "Checkbox",
    "Currency",
    "Date",
    "DateTime",
    "Email",
    "EncryptedString",
    "ExternalID",
    "FormulaText",
    "Geolocation",
    "HerokuConnectFieldMixin",
    "Integer",
    "Number",
    "Percent",
    "Phone",
    "Picklist",
    "Text",
    "TextArea",
    "TextAreaLong",
    "Time",
)

def is_expression(value: Any) -> bool: ...

class HerokuConnectFieldMixin:
    sf_field_name: str
    upsert: bool
    _unique: bool
    model: Any
    attname: str
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def deconstruct(self) -> Any: ...
    def formfield(self, **kwargs: Any) -> Any: ...
    def clean(self, value: Any, model_instance: Any) -> Any: ...
    def stored_values(self, instance: Any) -> list[Any]: ...

class AnyType(HerokuConnectFieldMixin, models.TextField[Text_S, Text_G]):
    @overload
    def __init__(
        self: AnyType[SetText, str], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class ID(HerokuConnectFieldMixin, models.CharField[SetText | None, str | None]):
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class ExternalID(HerokuConnectFieldMixin, models.UUIDField[UUID_S, UUID_G]):
    @overload
    def __init__(
        self: ExternalID[SetUUID, uuid.UUID], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class Checkbox(HerokuConnectFieldMixin, models.BooleanField[SetBool | None, bool | None]):
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class Number(HerokuConnectFieldMixin, models.DecimalField[Decimal_S, Decimal_G]):
    @overload
    def __init__(
        self: Number[SetDecimal, decimal.Decimal], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class Currency(Number[Decimal_S, Decimal_G]):
    @overload
    def __init__(
        self: Currency[SetDecimal, decimal.Decimal], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class Percent(Number[Decimal_S, Decimal_G]):
    @overload
    def __init__(
        self: Percent[SetDecimal, decimal.Decimal], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class Date(HerokuConnectFieldMixin, models.DateField[Date_S, Date_G]):
    @overload
    def __init__(
        self: Date[SetDate, datetime.date], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class DateTime(HerokuConnectFieldMixin, models.DateTimeField[DateTime_S, DateTime_G]):
    @overload
    def __init__(
        self: DateTime[SetDate, datetime.datetime], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class Time(HerokuConnectFieldMixin, models.TimeField[Time_S, Time_G]):
    @overload
    def __init__(
        self: Time[SetTime, datetime.time], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class Email(HerokuConnectFieldMixin, models.EmailField[Text_S, Text_G]):
    @overload
    def __init__(
        self: Email[SetText, str], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class EncryptedString(HerokuConnectFieldMixin, models.CharField[Text_S, Text_G]):
    @overload
    def __init__(
        self: EncryptedString[SetText, str], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class Phone(HerokuConnectFieldMixin, models.CharField[Text_S, Text_G]):
    @overload
    def __init__(
        self: Phone[SetText, str], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class Picklist(HerokuConnectFieldMixin, models.CharField[Text_S, Text_G]):
    @overload
    def __init__(
        self: Picklist[SetText, str], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class Text(HerokuConnectFieldMixin, models.CharField[Text_S, Text_G]):
    @overload
    def __init__(
        self: Text[SetText, str], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class TextArea(HerokuConnectFieldMixin, models.CharField[Text_S, Text_G]):
    @overload
    def __init__(
        self: TextArea[SetText, str], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class TextAreaLong(HerokuConnectFieldMixin, models.TextField[Text_S, Text_G]):
    @overload
    def __init__(
        self: TextAreaLong[SetText, str], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class URL(HerokuConnectFieldMixin, models.URLField[Text_S, Text_G]):
    @overload
    def __init__(
        self: URL[SetText, str], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class Integer(HerokuConnectFieldMixin, models.IntegerField[Integer_S, Integer_G]):
    @overload
    def __init__(
        self: Integer[SetInteger, int], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class FormulaText(HerokuConnectFieldMixin, models.CharField[Text_S, Text_G]):
    @overload
    def __init__(
        self: FormulaText[SetText, str], *args: Any, null: Literal[False], **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(self, *args: Any, null: bool = True, **options: Unpack[FieldOptions]) -> None: ...

class _Coordinate(HerokuConnectFieldMixin, models.FloatField[SetFloat | None, float | None]): ...

class Geolocation:
    def __init__(self, *, sf_field_name: str) -> None: ...
    @overload
    def __get__(self, instance: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, instance: models.Model, owner: Any) -> tuple[float, float] | None: ...
    def __set__(self, instance: Any, value: tuple[float, float] | None) -> None: ...
