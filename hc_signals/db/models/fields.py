"""One field class per Salesforce field type, with the column that Heroku Connect makes for it."""

import datetime
import decimal
import uuid
from typing import Any

from django import forms
from django.conf import settings
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
    "FormulaText",
    "Geolocation",
    "HerokuConnectFieldMixin",
    "Integer",
    "MultiPicklist",
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
    """Salesforce ``Date/Time``: naive UTC in the table, aware UTC in Python, whatever the session's time zone.

    With ``USE_TZ = False`` it is aware in the project's ``TIME_ZONE``: Django's forms, lists and templates do not
    convert then, they show and take the hour as it is.
    """

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
        """Return an aware time; what is no datetime (infinity, with a lenient adapter) passes as it is."""
        if not isinstance(value, datetime.datetime):
            return value
        value = value.replace(tzinfo=datetime.UTC) if timezone.is_naive(value) else value.astimezone(datetime.UTC)
        return value if settings.USE_TZ else _in_project_zone(value)


def _in_project_zone(value: datetime.datetime) -> datetime.datetime:
    try:
        return value.astimezone(timezone.get_default_timezone())
    except OverflowError:  # the ends of the calendar
        return value


class Time(HerokuConnectFieldMixin, models.TimeField):  # type: ignore[type-arg]
    """Salesforce ``Time``."""


class Email(HerokuConnectFieldMixin, models.EmailField):  # type: ignore[type-arg]
    """Salesforce ``Email``: 80 characters, or a larger ``max_length``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = max(kwargs.get("max_length") or 0, 80)
        super().__init__(*args, **kwargs)


class EncryptedString(HerokuConnectFieldMixin, models.CharField):  # type: ignore[type-arg]
    """Salesforce ``Encrypted String``; give it a ``max_length``."""


class Phone(HerokuConnectFieldMixin, models.CharField):  # type: ignore[type-arg]
    """Salesforce ``Phone``: 40 characters, or a larger ``max_length``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = max(kwargs.get("max_length") or 0, 40)
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


class Integer(HerokuConnectFieldMixin, models.IntegerField):  # type: ignore[type-arg]
    """Salesforce's standard integers (``NumberOfEmployees`` and the like), which Heroku Connect maps to ``integer``."""


class FormulaText(HerokuConnectFieldMixin, models.CharField):  # type: ignore[type-arg]
    """Salesforce formula that gives text: 1300 characters, computed there and so not editable here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 1300)
        kwargs.setdefault("editable", False)
        super().__init__(*args, **kwargs)


class MultiPicklist(HerokuConnectFieldMixin, models.CharField):  # type: ignore[type-arg]
    """Salesforce ``Picklist (Multi-Select)``: a list of texts in Python, joined by semicolons in the table.

    NULL is None; Salesforce knows no empty selection beside it, so an empty list is stored as NULL.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 4099)
        super().__init__(*args, **kwargs)

    def to_python(self, value: Any) -> Any:
        """Return a list, from the text or from any sequence."""
        if value is None or value == "":
            return None
        return value.split(";") if isinstance(value, str) else [str(item) for item in value]

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return a list."""
        return self.to_python(value)

    def get_prep_value(self, value: Any) -> Any:
        """Return the text; one with a semicolon in a choice cannot be told apart later and is refused.

        Raises:
            ValueError: a choice contains a semicolon.
        """
        if value is None or _is_expression(value) or isinstance(value, str):
            return value or None
        items = [str(item) for item in value]
        for item in items:
            if ";" in item:
                raise ValueError(f"{self.name}: the choice {item!r} contains a semicolon, which separates choices.")
        return ";".join(items) or None

    def value_to_string(self, obj: Any) -> str:
        """Return the text, for serialisation."""
        return self.get_prep_value(self.value_from_object(obj)) or ""

    def validate(self, value: Any, model_instance: Any) -> None:
        """Hold every item against the choices, if there are any."""
        if not self.choices:
            return
        pairs: Any = flatten_choices(normalize_choices(self.choices))
        known = {choice for choice, _ in pairs}
        for item in value or ():
            if item not in known:
                message = self.error_messages["invalid_choice"]
                raise ValidationError(message, code="invalid_choice", params={"value": item})

    def run_validators(self, value: Any) -> None:
        """Check the length of the text that will be stored."""
        super().run_validators(self.get_prep_value(value) or "")


class _Coordinate(HerokuConnectFieldMixin, models.FloatField):  # type: ignore[type-arg]
    """One half of a geolocation."""


class Geolocation:
    """Salesforce ``Geolocation``: two columns, one pair in Python.

    ``location = Geolocation(sf_field_name="Location__c")`` makes the fields ``location_latitude`` and
    ``location_longitude`` (columns ``location__latitude__s`` and ``location__longitude__s``) and the attribute
    ``location``, a ``(latitude, longitude)`` pair or None. Queries name the two fields.

    Args:
        sf_field_name: API name of the compound field, ending in ``__c``.
    """

    def __init__(self, *, sf_field_name: str) -> None:
        self.sf_field_name = sf_field_name

    def contribute_to_class(self, cls: Any, name: str) -> None:
        """Add the two fields and the pair; a property, so that Django takes it as an argument of the model as well."""
        names = (f"{name}_latitude", f"{name}_longitude")
        stem = self.sf_field_name.removesuffix("__c")
        for field_name, half in zip(names, ("Latitude", "Longitude"), strict=True):
            cls.add_to_class(field_name, _Coordinate(sf_field_name=f"{stem}__{half}__s"))

        def get_pair(instance: Any) -> tuple[float, float] | None:
            latitude, longitude = (getattr(instance, field_name) for field_name in names)
            return None if latitude is None or longitude is None else (latitude, longitude)

        def set_pair(instance: Any, pair: tuple[float, float] | None) -> None:
            for field_name, number in zip(names, pair or (None, None), strict=True):
                setattr(instance, field_name, number)

        setattr(cls, name, property(get_pair, set_pair))
