"""One field class per Salesforce field type, with the column that Heroku Connect makes for it."""

import datetime
import decimal
import uuid
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.expressions import Col
from django.utils import timezone
from django.utils.choices import flatten_choices, normalize_choices

from hc_signals.db.exceptions import MissingArgumentError

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
    "HerokuConnectFieldMixin",
    "Number",
    "Percent",
    "Phone",
    "Picklist",
    "Text",
    "TextArea",
    "TextAreaLong",
    "Time",
)


def _is_expression(value: Any) -> bool:
    return hasattr(value, "as_sql")


class HerokuConnectFieldMixin:
    """What all connected fields share.

    Args:
        sf_field_name: API name of the field in Salesforce; lower-cased it is the default ``db_column``.
        upsert: this field identifies the record when Heroku Connect writes; forces ``unique`` and ``db_index``.
    """

    sf_field_name: str
    upsert: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        sf_field_name = kwargs.pop("sf_field_name", None)
        if not sf_field_name:
            raise MissingArgumentError(
                f"{type(self).__name__}() needs the argument 'sf_field_name', the API name of the field in Salesforce."
            )
        self.sf_field_name = sf_field_name
        self.upsert = kwargs.pop("upsert", False)
        kwargs["db_column"] = kwargs.get("db_column") or sf_field_name.lower()
        kwargs.setdefault("null", True)
        if kwargs["null"]:
            kwargs.setdefault("blank", True)
        if self.upsert:
            kwargs["unique"] = True
        if kwargs.get("unique"):
            kwargs["db_index"] = True
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        """Add the two own arguments to Django's."""
        name, path, args, kwargs = super().deconstruct()  # type: ignore[misc]
        kwargs["sf_field_name"] = self.sf_field_name
        kwargs["upsert"] = self.upsert
        return name, path, args, kwargs


class AnyType(HerokuConnectFieldMixin, models.TextField):  # type: ignore[type-arg]
    """Salesforce ``AnyType``: text."""


class ID(HerokuConnectFieldMixin, models.CharField):  # type: ignore[type-arg]
    """Salesforce ``ID``: 18 characters, nullable because Salesforce hands it out, never editable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.update(max_length=18, null=True, editable=False)
        kwargs.setdefault("unique", True)
        super().__init__(*args, **kwargs)


class ExternalID(HerokuConnectFieldMixin, models.UUIDField):  # type: ignore[type-arg]
    """Salesforce ``External ID``: a UUID in Python, its 32 hex digits in the table; the upsert field by default."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("upsert", True)
        kwargs.setdefault("default", uuid.uuid4)
        super().__init__(*args, **kwargs)

    def get_internal_type(self) -> str:
        """Return CharField: Salesforce knows no UUID type."""
        return "CharField"

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return the hex digits."""
        if value is None or _is_expression(value):
            return value
        return self.to_python(value).hex

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return the UUID; a text that is none (set by hand in Salesforce) must not make the table unreadable."""
        try:
            return self.to_python(value)
        except ValidationError:
            return value


class Checkbox(HerokuConnectFieldMixin, models.BooleanField):  # type: ignore[type-arg]
    """Salesforce ``Checkbox``: always nullable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["null"] = True
        super().__init__(*args, **kwargs)


class Number(HerokuConnectFieldMixin, models.DecimalField):  # type: ignore[type-arg]
    """Salesforce ``Number``: Decimal in Python, double precision in the table."""

    def db_type(self, connection: Any) -> str:
        """Return Heroku Connect's column type."""
        return "double precision"

    def get_prep_value(self, value: Any) -> Any:
        """Let expressions through: ``update(n=F("n") + 1)``."""
        return value if _is_expression(value) else super().get_prep_value(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return a float."""
        if value is None or _is_expression(value):
            return value
        number = self.to_python(value)
        return None if number is None else float(number)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return a Decimal; a column is rounded to ``max_digits``, a computed value (a sum, say) is not."""
        if value is None:
            return None
        number = decimal.Decimal(repr(float(value)))
        if self.max_digits is None or not number.is_finite() or not isinstance(expression, Col):
            return number
        return self.context.plus(number)


class Currency(Number):
    """Salesforce ``Currency``: as Number."""


class Percent(Number):
    """Salesforce ``Percent``: as Number."""


class Date(HerokuConnectFieldMixin, models.DateField):  # type: ignore[type-arg]
    """Salesforce ``Date``."""


class DateTime(HerokuConnectFieldMixin, models.DateTimeField):  # type: ignore[type-arg]
    """Salesforce ``Date/Time``: naive UTC in the table, aware UTC in Python, whatever the session's time zone."""

    def db_type(self, connection: Any) -> str:
        """Return Heroku Connect's column type."""
        return "timestamp without time zone"

    def get_prep_value(self, value: Any) -> Any:
        """Let expressions through."""
        return value if _is_expression(value) else super().get_prep_value(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return naive UTC: an aware parameter would be shifted by the session's time zone."""
        if not prepared:
            value = self.get_prep_value(value)
        if not isinstance(value, datetime.datetime):
            return value
        if timezone.is_naive(value):
            value = timezone.make_aware(value, timezone.get_default_timezone())
        return connection.ops.adapt_datetimefield_value(value.astimezone(datetime.UTC).replace(tzinfo=None))

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return aware UTC; what is no datetime (infinity, with a lenient adapter) passes as it is."""
        if not isinstance(value, datetime.datetime):
            return value
        if timezone.is_naive(value):
            return value.replace(tzinfo=datetime.UTC)
        return value.astimezone(datetime.UTC)


class Time(HerokuConnectFieldMixin, models.TimeField):  # type: ignore[type-arg]
    """Salesforce ``Time``."""


class Email(HerokuConnectFieldMixin, models.EmailField):  # type: ignore[type-arg]
    """Salesforce ``Email``: always 80 characters."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = 80
        super().__init__(*args, **kwargs)


class EncryptedString(HerokuConnectFieldMixin, models.CharField):  # type: ignore[type-arg]
    """Salesforce ``Encrypted String``; give it a ``max_length``."""


class Phone(HerokuConnectFieldMixin, models.CharField):  # type: ignore[type-arg]
    """Salesforce ``Phone``: always 40 characters."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = 40
        super().__init__(*args, **kwargs)


class Picklist(HerokuConnectFieldMixin, models.CharField):  # type: ignore[type-arg]
    """Salesforce ``Picklist``: ``choices`` (a list, groups, an enum or a callable) are required."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("choices") is None:
            raise MissingArgumentError(f"{type(self).__name__}() needs the argument 'choices'.")
        pairs: Any = flatten_choices(normalize_choices(kwargs["choices"]))
        values = [value for value, _label in pairs]
        if not values:
            raise ValueError(f"{type(self).__name__}(): 'choices' is empty; give it at least one choice.")
        for value in values:
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{type(self).__name__}(): the choice {value!r} is no text; Salesforce stores texts.")
        kwargs.setdefault("max_length", max(255, *(len(value or "") for value in values)))
        super().__init__(*args, **kwargs)


class Text(HerokuConnectFieldMixin, models.CharField):  # type: ignore[type-arg]
    """Salesforce ``Text``; give it a ``max_length``."""


class TextArea(HerokuConnectFieldMixin, models.CharField):  # type: ignore[type-arg]
    """Salesforce ``Text Area``: up to 255 characters, a textarea in forms."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 255)
        super().__init__(*args, **kwargs)

    def formfield(self, **kwargs: Any) -> Any:
        """Return a textarea, or a select if there are choices."""
        if self.choices is None:
            kwargs.setdefault("widget", forms.Textarea)
        return super().formfield(**kwargs)


class TextAreaLong(HerokuConnectFieldMixin, models.TextField):  # type: ignore[type-arg]
    """Salesforce ``Text Area (Long)`` and ``(Rich)``."""


class URL(HerokuConnectFieldMixin, models.URLField):  # type: ignore[type-arg]
    """Salesforce ``URL``: 255 characters unless told otherwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 255)
        super().__init__(*args, **kwargs)
