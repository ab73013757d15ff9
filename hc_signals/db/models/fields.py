"""One field class per Salesforce field type, with the column that Heroku Connect makes for it."""

import datetime
import decimal
import uuid
from typing import Any, Self

from django import forms
from django.core.exceptions import ValidationError
from django.db import models, router
from django.utils import timezone
from django.utils.choices import flatten_choices, normalize_choices

from hc_signals.db.exceptions import MissingArgumentError
from hc_signals.db.forms import keeping
from hc_signals.db.values import HandMadeID, SpelledUUID

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


def is_expression(value: Any) -> bool:
    """Return whether SQL computes the value, as in ``update(n=F("n") + 1)``."""
    return hasattr(value, "as_sql")


class HerokuConnectFieldMixin:
    """Base of all connected fields.

    Args:
        sf_field_name: API name of the field in Salesforce; in lower case, the default of ``db_column``.
        upsert: this field identifies the record when Heroku Connect writes; makes it ``unique`` and ``db_index``.
    """

    sf_field_name: str
    upsert: bool
    _unique: bool
    model: Any
    attname: str

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
            # A default, because a history model has the same field, but many rows of one record.
            kwargs.setdefault("unique", True)
        if kwargs.get("unique"):
            kwargs["db_index"] = True
        super().__init__(*args, **kwargs)

    def __class_getitem__(cls, types: Any) -> type[Self]:
        """Return the class, so that code which names the types of a field runs: ``Text[str, str]``."""
        return cls

    def deconstruct(self) -> Any:
        """Add our arguments, and Django's whose default differs here: Django leaves out values equal to its own."""
        name, path, args, kwargs = super().deconstruct()  # type: ignore[misc]
        kwargs["unique"] = self._unique
        for argument in ("sf_field_name", "upsert", "null", "blank", "db_index", "editable"):
            kwargs[argument] = getattr(self, argument)
        if isinstance(self, models.CharField):
            kwargs["max_length"] = self.max_length
        return name, path, args, kwargs

    def formfield(self, **kwargs: Any) -> Any:
        """Return Django's form field, changed so that it keeps a value that the user did not edit."""
        field = super().formfield(**kwargs)  # type: ignore[misc]
        return None if field is None else keeping(field, getattr(self, "attname", ""))

    def clean(self, value: Any, model_instance: Any) -> Any:
        """Validate a new value. A stored value is valid, because Salesforce accepted it.

        Raises:
            ValidationError: the value is invalid and differs from the stored one. It costs one query then.
        """
        try:
            return super().clean(value, model_instance)  # type: ignore[misc]
        except ValidationError:
            for stored in self.stored_values(model_instance):
                if stored == value or repr(stored) == repr(value):  # NaN is not equal to itself
                    return stored
            raise

    def stored_values(self, instance: Any) -> list[Any]:
        """Query the stored value of the instance; return it as a list of one, or an empty list for a new instance."""
        key = getattr(instance, self.model._meta.pk.attname, None)
        if key is None or instance._state.adding:
            return []
        rows = self.model._base_manager.using(router.db_for_read(self.model, instance=instance)).filter(pk=key)
        return list(rows.values_list(self.attname, flat=True)[:1])


class AnyType(HerokuConnectFieldMixin, models.TextField):
    """Salesforce ``AnyType``: text."""


class ID(HerokuConnectFieldMixin, models.CharField):
    """Salesforce ``ID``: 18 characters; nullable, because Salesforce assigns it; not editable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.update(max_length=18, null=True, editable=False)
        kwargs.setdefault("unique", True)
        super().__init__(*args, **kwargs)


class ExternalID(HerokuConnectFieldMixin, models.UUIDField):
    """Salesforce ``External ID``: a UUID in Python, its 32 hex digits in the table; the upsert field by default."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("upsert", True)
        kwargs.setdefault("default", uuid.uuid4)
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        """Add the default, even None."""
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, kwargs | {"default": self.default}

    def get_internal_type(self) -> str:
        """Return CharField: Salesforce has no UUID type."""
        return "CharField"

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return the hex digits, or the text as the table spells it."""
        if value is None or is_expression(value):
            return value
        key = self.to_python(value)
        if isinstance(key, HandMadeID):
            return str(key)
        return key.stored if isinstance(key, SpelledUUID) else key.hex

    def to_python(self, value: Any) -> Any:
        """Return the UUID; a HandMadeID passes unchanged."""
        return value if isinstance(value, HandMadeID) else super().to_python(value)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return the UUID, or the text of a user who typed something else in Salesforce."""
        if value is None:
            return None
        try:
            key = uuid.UUID(value)
        except ValueError:
            return HandMadeID(value)
        return key if key.hex == value else SpelledUUID(value)


class Checkbox(HerokuConnectFieldMixin, models.BooleanField):
    """Salesforce ``Checkbox``: always nullable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["null"] = True
        super().__init__(*args, **kwargs)


class Number(HerokuConnectFieldMixin, models.DecimalField):
    """Salesforce ``Number``: Decimal in Python, double precision in the table."""

    def db_type(self, connection: Any) -> str:
        """Return Heroku Connect's column type."""
        return "double precision"

    def get_prep_value(self, value: Any) -> Any:
        """Pass expressions through: ``update(n=F("n") + 1)``."""
        return value if is_expression(value) else super().get_prep_value(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return a float."""
        if value is None or is_expression(value):
            return value
        # No to_python() for a Decimal: it refuses NaN and infinity, which the table may contain.
        number = value if isinstance(value, decimal.Decimal) else self.to_python(value)
        return None if number is None else float(number)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return the Decimal of the float's shortest text, without rounding: 7 for 7.0, all 17 digits for 1e16."""
        if value is None:
            return None
        if value and -1e15 < value < 1e15 and value == (whole := int(value)):
            return decimal.Decimal(whole)  # most numbers; quicker than by the text
        text = repr(float(value)).removesuffix(".0")
        number = decimal.Decimal(text)
        return decimal.Decimal(format(number, "f")) if "e+" in text else number


class Currency(Number):
    """Salesforce ``Currency``: as Number."""


class Percent(Number):
    """Salesforce ``Percent``: as Number."""


class Date(HerokuConnectFieldMixin, models.DateField):
    """Salesforce ``Date``."""


class DateTime(HerokuConnectFieldMixin, models.DateTimeField):
    """Salesforce ``Date/Time``: naive UTC in the table, aware UTC in Python, whatever the session's time zone.

    With ``USE_TZ = False`` it is aware in the project's ``TIME_ZONE``, because Django's forms, lists and templates then
    show and take the hour without converting it.
    """

    def db_type(self, connection: Any) -> str:
        """Return Heroku Connect's column type."""
        return "timestamp without time zone"

    def get_prep_value(self, value: Any) -> Any:
        """Pass expressions through."""
        return value if is_expression(value) else super().get_prep_value(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return naive UTC, because PostgreSQL would shift an aware one by the session's time zone."""
        if not prepared:
            value = self.get_prep_value(value)
        if not isinstance(value, datetime.datetime):
            return value
        if timezone.is_naive(value):
            value = timezone.make_aware(value, timezone.get_default_timezone())
        return connection.ops.adapt_datetimefield_value(value.astimezone(datetime.UTC).replace(tzinfo=None))

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return an aware time. Other values (infinity, with a lenient adapter) pass unchanged."""
        if not isinstance(value, datetime.datetime):
            return value
        value = value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)
        return _in_project_zone(value) if connection.timezone is None else value


def _in_project_zone(value: datetime.datetime) -> datetime.datetime:
    try:
        return value.astimezone(timezone.get_default_timezone())
    except OverflowError:  # the ends of the calendar
        return value


class Time(HerokuConnectFieldMixin, models.TimeField):
    """Salesforce ``Time``."""


class Email(HerokuConnectFieldMixin, models.EmailField):
    """Salesforce ``Email``: 80 characters, or a larger ``max_length``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = max(kwargs.get("max_length") or 0, 80)
        super().__init__(*args, **kwargs)


class EncryptedString(HerokuConnectFieldMixin, models.CharField):
    """Salesforce ``Encrypted String``; give it a ``max_length``."""


class Phone(HerokuConnectFieldMixin, models.CharField):
    """Salesforce ``Phone``: 40 characters, or a larger ``max_length``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = max(kwargs.get("max_length") or 0, 40)
        super().__init__(*args, **kwargs)


class Picklist(HerokuConnectFieldMixin, models.CharField):
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


class Text(HerokuConnectFieldMixin, models.CharField):
    """Salesforce ``Text``; give it a ``max_length``."""


class TextArea(HerokuConnectFieldMixin, models.CharField):
    """Salesforce ``Text Area``: up to 255 characters, a textarea in forms."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 255)
        super().__init__(*args, **kwargs)

    def formfield(self, **kwargs: Any) -> Any:
        """Return a textarea, or a select if there are choices."""
        if self.choices is None:
            kwargs.setdefault("widget", forms.Textarea)
        return super().formfield(**kwargs)


class TextAreaLong(HerokuConnectFieldMixin, models.TextField):
    """Salesforce ``Text Area (Long)`` and ``(Rich)``."""


class URL(HerokuConnectFieldMixin, models.URLField):
    """Salesforce ``URL``: 255 characters by default."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 255)
        super().__init__(*args, **kwargs)

    def formfield(self, **kwargs: Any) -> Any:
        """Return a form field that assumes https for a new URL without a scheme, in every version of Django."""
        return super().formfield(**{"assume_scheme": "https", **kwargs})


class Integer(HerokuConnectFieldMixin, models.IntegerField):
    """Salesforce's standard integers (``NumberOfEmployees`` and the like), which Heroku Connect maps to ``integer``."""


class FormulaText(HerokuConnectFieldMixin, models.CharField):
    """Salesforce ``Formula (Text)``: 1300 characters; not editable, because Salesforce computes it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 1300)
        kwargs.setdefault("editable", False)
        super().__init__(*args, **kwargs)


class _Coordinate(HerokuConnectFieldMixin, models.FloatField):
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
        """Add the two fields, and the pair as a property, which Django also accepts as an argument of the model."""
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
