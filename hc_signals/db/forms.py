"""Form fields of connected models, which keep a value that the user did not edit.

Django's form fields would change or refuse some values of Salesforce even if the user did not edit them. Examples are a
removed picklist value, a URL without ``https://``, fractions of a second, and a lookup to a record that is not synced.
"""

import functools
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models

from hc_signals.db.values import MultiPicklistValue

_MISSING = object()


class KeepingField(forms.Field):
    """A form field that returns the instance's own value if the submitted data are equal to the displayed ones.

    It does so for existing records. A new record is validated as in any form.
    """

    attname: str = ""
    """The instance's attribute with the value; the model field sets it."""
    _bound: Any = None

    def get_bound_field(self, form: forms.BaseForm, field_name: str) -> Any:
        """Remember the form: each form has copies of its fields."""
        self._bound = super().get_bound_field(form, field_name)
        return self._bound

    def own_value(self) -> Any:
        """Return the instance's value; ``_MISSING`` if the form has no saved instance or shows another value."""
        form = getattr(self._bound, "form", None)
        instance = getattr(form, "instance", None)
        if form is None or not isinstance(instance, models.Model) or instance._state.adding:
            return _MISSING
        value = getattr(instance, self.attname, _MISSING)
        shown = form.initial.get(self._bound.name, _MISSING)
        return value if value is shown or value == shown else _MISSING

    def clean(self, value: Any) -> Any:
        """Return the instance's own value if the submitted data are equal to the displayed ones."""
        own = self.own_value()
        if own is _MISSING or self.has_changed(self._bound.initial, value):
            return super().clean(value)
        if own in self.empty_values or isinstance(self, forms.ModelChoiceField):
            # A required field stays required. A form has the record of a relation, or the key of a missing record.
            try:
                found = super().clean(value)
            except ValidationError:
                if own in self.empty_values:
                    raise
                return own
            return own if own in self.empty_values else found
        return own

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare with the displayed text too; Django compares just with the value that it makes of the text."""
        if not super().has_changed(initial, data):
            return False
        shown = self.widget.format_value(self.prepare_value(initial))
        return not (isinstance(shown, str) and isinstance(data, str) and self._lines(shown) == self._lines(data))

    def _lines(self, text: str) -> str:
        """Normalize line ends, because browsers submit CRLF from a textarea and drop line ends in other inputs."""
        lines = text.replace("\r\n", "\n").replace("\r", "\n")
        return lines if isinstance(self.widget, forms.Textarea) else lines.replace("\n", "")


class _KeepingOptions(forms.widgets.ChoiceWidget):
    """Adds an option for a selected value that is not among the choices, so that a browser does not drop it."""

    def optgroups(self, name: str, value: list[str], attrs: Any = None) -> Any:
        groups = list(super().optgroups(name, value, attrs))
        known = {str(option["value"]) for _, options, _ in groups for option in options}
        for each in [value] if isinstance(value, str) else dict.fromkeys(value):
            if each not in known and (each or self.allow_multiple_selected):
                index = len(groups)
                groups.append((None, [self.create_option(name, each, each, True, index, attrs=attrs)], index))
        return groups


class MultiPicklistChoiceField(KeepingField, forms.MultipleChoiceField):
    """A multiple choice. The record's own values stay selectable, and the selected ones keep their order."""

    def __init__(self, *, coerce: Any = None, empty_value: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # Django passes the two for a choice of one value

    def _own(self) -> list[str]:
        own = self.own_value()
        return list(own) if isinstance(own, list) else []

    def valid_value(self, value: Any) -> bool:
        """Accept a choice, or a value that the record has already."""
        return super().valid_value(value) or value in self._own()

    def clean(self, value: Any) -> Any:
        """Return the values, with those of the record first; None if there are none."""
        chosen = super().clean(value) or []
        kept = [item for item in self._own() if item in chosen]
        return MultiPicklistValue.of([*kept, *(item for item in chosen if item not in kept)] or None)


class MultiPicklistTextField(KeepingField, forms.CharField):
    """A text of values, joined by semicolons, for a multi-select picklist without choices."""

    def clean(self, value: Any) -> Any:
        """Return the values. If the user edited the text, blanks around values and empty values are dropped."""
        cleaned = super().clean(value)
        if isinstance(cleaned, str):
            cleaned = [item.strip() for item in cleaned.split(";") if item.strip()]
        return MultiPicklistValue.of(cleaned or None)


@functools.cache
def _mixed(mixin: Any, kind: Any) -> type[Any]:
    return type(kind.__name__, (mixin, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def keeping(field: forms.Field, attname: str) -> forms.Field:
    """Make a form field keep values that the user did not edit. Its new class is a subclass of its old one.

    Args:
        attname: the instance's attribute with the value.
    """
    # The class of the finished field is changed, because model fields and the admin choose a class by themselves.
    if not isinstance(field, KeepingField):
        kind: Any = type(field)
        field.__class__ = _mixed(KeepingField, kind)
    if isinstance(field.widget, forms.widgets.ChoiceWidget) and not isinstance(field.widget, _KeepingOptions):
        field.widget.__class__ = _mixed(_KeepingOptions, type(field.widget))
    field.attname = attname  # type: ignore[attr-defined]
    return field
