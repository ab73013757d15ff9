"""Serializers of Django REST framework for connected models; needs ``djangorestframework``.

Derive a serializer from ``HerokuConnectModelSerializer`` instead of ``ModelSerializer``.
"""

import decimal
import functools
from typing import Any

from django.db import models
from rest_framework import serializers
from rest_framework.fields import SkipField, empty

from hc_signals.db.models import MultiPicklist, Number
from hc_signals.db.models.fields import HerokuConnectFieldMixin


class _Keeping(serializers.Field):
    """A field that accepts its own output, and then keeps the instance's value."""

    def run_validation(self, data: Any = empty) -> Any:
        """Return the instance's value if the data are equal to the field's output for it."""
        instance = getattr(self.parent, "instance", None)
        if not isinstance(instance, models.Model) or data is empty or data != self._shown(instance):
            return super().run_validation(data)
        if not isinstance(self, serializers.RelatedField):
            return self.get_attribute(instance)
        try:
            related = super().run_validation(data)
        except serializers.ValidationError:
            related = None
        if related is None:
            raise SkipField  # the related record is missing; its key stays
        return related

    def _shown(self, instance: models.Model) -> Any:
        stored = self.get_attribute(instance)
        return None if stored is None else self.to_representation(stored)


class MultiPicklistField(_Keeping, serializers.MultipleChoiceField):
    """A list of choices in the given order; it accepts the instance's own values too."""

    def to_internal_value(self, data: Any) -> list[str]:
        """Return the list.

        Raises:
            ValidationError: the data are no list, or an item is not among the choices.
        """
        instance = getattr(self.parent, "instance", None)
        own = self.get_attribute(instance) if isinstance(instance, models.Model) else None
        kept = [item for item in data if item in (own or ())] if isinstance(data, list) else []
        chosen = super().to_internal_value([item for item in data if item not in kept] if kept else data)
        return [item for item in dict.fromkeys(data) if item in kept or item in chosen]

    def to_representation(self, value: Any) -> list[str]:
        """Return the values as a list."""
        return list(value)


class NumberField(_Keeping, serializers.DecimalField):
    """A number, rounded to its decimal places; with too many digits it is output in full."""

    def quantize(self, value: decimal.Decimal) -> decimal.Decimal:
        """Return the rounded number, if it can be rounded."""
        try:
            rounded: decimal.Decimal = super().quantize(value)
        except decimal.InvalidOperation:
            return value
        return rounded


class LookupField(_Keeping, serializers.SlugRelatedField):
    """The key of the related record, even of a missing one; its output needs no query."""

    def get_attribute(self, instance: Any) -> Any:
        """Return the key."""
        for part in self.source_attrs[:-1]:
            instance = getattr(instance, part)
        return instance.serializable_value(self.source_attrs[-1])

    def to_representation(self, value: Any) -> Any:
        """Return the key of a record; a key passes unchanged."""
        return super().to_representation(value) if isinstance(value, models.Model) else value


@functools.cache
def _keeping(kind: Any) -> type[Any]:
    return type(kind.__name__, (_Keeping, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


class HerokuConnectModelSerializer(serializers.ModelSerializer):
    """A ModelSerializer whose output is valid input, for every value of Salesforce.

    A multi-select picklist is a list. A lookup is the key that it stores, an ``sf_id`` or external id.
    """

    serializer_field_mapping = {**serializers.ModelSerializer.serializer_field_mapping, Number: NumberField}

    def build_standard_field(self, field_name: str, model_field: Any) -> tuple[type[Any], dict[str, Any]]:
        """Return the class and the arguments of a field."""
        kind, arguments = super().build_standard_field(field_name, model_field)
        if isinstance(model_field, MultiPicklist):
            common = {key: arguments[key] for key in _COMMON if key in arguments}
            if model_field.choices:
                return MultiPicklistField, common | {"choices": model_field.choices}
            kind, arguments = serializers.ListField, common | {"child": serializers.CharField()}
        if isinstance(model_field, HerokuConnectFieldMixin) and not issubclass(kind, _Keeping):
            kind = _keeping(kind)
        return kind, arguments

    def build_relational_field(self, field_name: str, relation_info: Any) -> tuple[type[Any], dict[str, Any]]:
        """Return the class and the arguments of a relation."""
        kind, arguments = super().build_relational_field(field_name, relation_info)
        is_lookup = isinstance(relation_info.model_field, HerokuConnectFieldMixin)
        return LookupField if is_lookup and kind is serializers.SlugRelatedField else kind, arguments


_COMMON = ("read_only", "required", "default", "label", "help_text", "allow_null", "validators")
