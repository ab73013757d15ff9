"""Salesforce's multi-select picklist: several texts in one column."""

from functools import partialmethod
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.query_utils import DeferredAttribute
from django.utils.choices import flatten_choices, normalize_choices

from hc_signals.db.forms import MultiPicklistChoiceField, MultiPicklistTextField
from hc_signals.db.models.fields import HerokuConnectFieldMixin, is_expression
from hc_signals.db.values import MultiPicklistValue

__all__ = ("MultiPicklist",)


class _Labels(list[tuple[str, Any]]):
    """Pairs of values and labels that are false, so that Django's admin does not search them for a whole selection."""

    def __bool__(self) -> bool:
        return False


class _Selection(DeferredAttribute):
    """Converts an assigned list or text into a MultiPicklistValue."""

    field: Any

    def __set__(self, instance: Any, value: Any) -> None:
        is_selection = isinstance(value, (str, list, tuple, set, frozenset))
        instance.__dict__[self.field.attname] = MultiPicklistValue.of(value) if is_selection else value


def _display(instance: models.Model, field: "MultiPicklist") -> str:
    """Return the labels of an instance's selection, with commas between them."""
    labels = dict(field.flatchoices)
    return ", ".join(str(labels.get(item, item)) for item in getattr(instance, field.attname) or ())


class MultiPicklist(HerokuConnectFieldMixin, models.CharField):
    """Salesforce ``Picklist (Multi-Select)``: a list of texts in Python, joined by semicolons in the table.

    NULL is None. An empty list is stored as NULL too, because Salesforce has no other empty selection. The list's
    ``str()`` is the text in the table, ``x;y``. Forms show a multiple choice; without ``choices``, a text.
    ``filter(services__includes=["x", "y"])`` finds the records in which all of these are selected.
    """

    descriptor_class = _Selection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 4099)
        super().__init__(*args, **kwargs)

    def contribute_to_class(self, cls: Any, name: str, private_only: bool = False) -> None:
        """Add ``get_FIELD_display()``, as Django does for choices of one value."""
        display = f"get_{name}_display"
        is_own = display in cls.__dict__
        super().contribute_to_class(cls, name, private_only)
        if self.choices is not None and not is_own:
            setattr(cls, display, partialmethod(_display, field=self))

    @property
    def flatchoices(self) -> Any:
        """Return the pairs of values and labels, without groups."""
        return _Labels(super().flatchoices)

    def to_python(self, value: Any) -> Any:
        """Return a list, from the text or from any iterable."""
        return MultiPicklistValue.of(value)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return a list."""
        return self.to_python(value)

    def get_prep_value(self, value: Any) -> Any:
        """Return the text for the table.

        Raises:
            ValueError: a choice contains a semicolon, which separates choices.
        """
        if value is None or is_expression(value) or isinstance(value, str):
            return value or None
        items = [str(item) for item in value]
        for item in items:
            if ";" in item:
                raise ValueError(f"{self.name}: the choice {item!r} contains a semicolon, which separates choices.")
        return ";".join(items) or None

    def value_to_string(self, obj: Any) -> str:
        """Return the text, for serialisation."""
        return self.get_prep_value(self.value_from_object(obj)) or ""

    def formfield(self, **kwargs: Any) -> Any:
        """Return a multiple choice; without choices, a text with semicolons."""
        if self.choices is None:
            return super().formfield(**{"form_class": MultiPicklistTextField, **kwargs})
        choices = self.get_choices(include_blank=False)
        return super().formfield(**{"choices_form_class": MultiPicklistChoiceField, "choices": choices, **kwargs})

    def validate(self, value: Any, model_instance: Any) -> None:
        """Check that every item is among the choices, if there are any, or stored already."""
        if not self.choices:
            return
        pairs: Any = flatten_choices(normalize_choices(self.choices))
        known = {choice for choice, _ in pairs}
        unknown = [item for item in value or () if item not in known]
        for item in unknown:
            if not any(item in (stored or ()) for stored in self.stored_values(model_instance)):
                message = self.error_messages["invalid_choice"]
                raise ValidationError(message, code="invalid_choice", params={"value": item})

    def run_validators(self, value: Any) -> None:
        """Check the length of the text that will be stored."""
        super().run_validators(self.get_prep_value(value) or "")


@MultiPicklist.register_lookup
class Includes(models.Lookup):
    """``includes``: all of the given values are selected; SOQL's ``INCLUDES ('x;y')``."""

    lookup_name = "includes"

    def get_prep_lookup(self) -> Any:
        """Return the wanted values as a list."""
        return list(MultiPicklistValue.of(self.rhs) or ())

    def get_db_prep_lookup(self, value: Any, connection: Any) -> Any:
        """Return the list as one parameter."""
        return "%s::text[]", [value]

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Return the comparison."""
        column, column_params = self.process_lhs(compiler, connection)
        wanted, params = self.process_rhs(compiler, connection)
        return f"string_to_array({column}, ';') @> {wanted}", [*column_params, *params]
