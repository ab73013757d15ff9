"""Form fields of connected models: a value that a form did not touch survives it.

Salesforce holds values that a form of Django's would change or refuse although nobody has edited them: a picklist value
that is no longer among the choices, a URL without ``https://``, a time with fractions of a second, a lookup whose
record is not synced.
"""

import functools
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models

from hc_signals.db.values import MultiPicklistValue

_MISSING = object()


class KeepingField(forms.Field):
    """A form field that returns the instance's own value where the submitted data are what the form had shown.

    Only in the form of a record that exists; new records are validated as ever.
    """

    attname: str = ""
    """The attribute of the instance that has the value; the model field sets it."""
    _bound: Any = None

    def get_bound_field(self, form: forms.BaseForm, field_name: str) -> Any:
        """Remember the form: each form has copies of its fields."""
        self._bound = super().get_bound_field(form, field_name)
        return self._bound

    def own_value(self) -> Any:
        """Return the value of the instance that the form edits; a marker if it edits none or shows another value."""
        form = getattr(self._bound, "form", None)
        instance = getattr(form, "instance", None)
        if form is None or not isinstance(instance, models.Model) or instance._state.adding:
            return _MISSING
        value = getattr(instance, self.attname, _MISSING)
        shown = form.initial.get(self._bound.name, _MISSING)
        return value if value is shown or value == shown else _MISSING

    def clean(self, value: Any) -> Any:
        """Return the instance's own value if the data are those of the form as it was shown."""
        own = self.own_value()
        if own is _MISSING or self.has_changed(self._bound.initial, value):
            return super().clean(value)
        if own in self.empty_values or isinstance(self, forms.ModelChoiceField):
            # A required field stays required. Of a relation, a form has the record; where there is none, the key.
            try:
                found = super().clean(value)
            except ValidationError:
                if own in self.empty_values:
                    raise
                return own
            return own if own in self.empty_values else found
        return own

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare with the text that the form had shown, too: Django compares with the value that it makes of it."""
        if not super().has_changed(initial, data):
            return False
        shown = self.widget.format_value(self.prepare_value(initial))
        return not (isinstance(shown, str) and isinstance(data, str) and self._lines(shown) == self._lines(data))

    def _lines(self, text: str) -> str:
        """Return a text as browsers change it: they submit CRLF from a textarea and drop line ends elsewhere."""
        lines = text.replace("\r\n", "\n").replace("\r", "\n")
        return lines if isinstance(self.widget, forms.Textarea) else lines.replace("\n", "")


class _KeepingOptions(forms.widgets.ChoiceWidget):
    """Shows a selected value that is not among the choices as an option of its own, or a browser would drop it."""

    def optgroups(self, name: str, value: list[str], attrs: Any = None) -> Any:
        groups = list(super().optgroups(name, value, attrs))
        known = {str(option["value"]) for _, options, _ in groups for option in options}
        for each in [value] if isinstance(value, str) else dict.fromkeys(value):
            if each not in known and (each or self.allow_multiple_selected):
                index = len(groups)
                groups.append((None, [self.create_option(name, each, each, True, index, attrs=attrs)], index))
        return groups


class MultiPicklistChoiceField(KeepingField, forms.MultipleChoiceField):
    """A multiple choice; values that the record has stay selectable, and the selected ones keep their order."""

    def __init__(self, *, coerce: Any = None, empty_value: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # the two are for a choice of one value

    def _own(self) -> list[str]:
        own = self.own_value()
        return list(own) if isinstance(own, list) else []

    def valid_value(self, value: Any) -> bool:
        """Accept what the record has already."""
        return super().valid_value(value) or value in self._own()

    def clean(self, value: Any) -> Any:
        """Return the values, those that were selected before first; None if there are none."""
        chosen = super().clean(value) or []
        kept = [item for item in self._own() if item in chosen]
        return MultiPicklistValue.of([*kept, *(item for item in chosen if item not in kept)] or None)


class MultiPicklistTextField(KeepingField, forms.CharField):
    """A text of values, joined by semicolons, for a multi-select picklist without choices."""

    def clean(self, value: Any) -> Any:
        """Return the values; blanks around them and empty ones are dropped, if the text was edited."""
        cleaned = super().clean(value)
        if isinstance(cleaned, str):
            cleaned = [item.strip() for item in cleaned.split(";") if item.strip()]
        return MultiPicklistValue.of(cleaned or None)


@functools.cache
def _mixed(mixin: Any, kind: Any) -> type[Any]:
    return type(kind.__name__, (mixin, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def keeping(field: forms.Field, attname: str) -> forms.Field:
    """Make any form field keep what was not touched; its class stays a subclass of what it was.

    Args:
        attname: the attribute of the model's instances that has the value.
    """
    # The class is changed and not the way to it: Django's own model fields choose it, and the admin overrides it.
    if not isinstance(field, KeepingField):
        kind: Any = type(field)
        field.__class__ = _mixed(KeepingField, kind)
    if isinstance(field.widget, forms.widgets.ChoiceWidget) and not isinstance(field.widget, _KeepingOptions):
        field.widget.__class__ = _mixed(_KeepingOptions, type(field.widget))
    field.attname = attname  # type: ignore[attr-defined]
    return field
