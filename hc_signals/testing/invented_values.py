"""Invented values: random ones that fit a field, and distinct ones for a unique field."""

import datetime
import decimal
import ipaddress
import random
import string
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from django.db import models
from django.utils.choices import flatten_choices

from hc_signals.testing.salesforce_ids import in_digits, salesforce_id

_BASE36 = string.digits + string.ascii_uppercase

# fmt: off
_WORDS = [
    "Acme", "Zoë", "Ōsaka", "Straße", "Дом", "Edge", "Burlington", "Grand", "United", "Pyramid", "株式会社", "Express",
    "O'Brien", '"quoted"', "back\\slash", "😀",
]
# fmt: on


def invent(field: Any, chance: random.Random, *, is_required: bool = False) -> Any:
    """Return a random Python value for a field of a connected model.

    Args:
        field: not a relation.
        chance: the source of randomness.
        is_required: False: one value in twenty is None.
    """
    if isinstance(field, models.UUIDField):
        return uuid.UUID(int=chance.getrandbits(128), version=4)
    if not is_required and chance.random() < 0.05:
        return None
    return _value(field, chance)


def _value(field: Any, chance: random.Random) -> Any:
    if field.choices:
        known = _choices(field)
        if _is(field, "MultiPicklist"):
            return chance.sample(known, chance.randint(1, min(2, len(known)))) if known else None
        return chance.choice(known) if known else None
    if _is(field, "ID"):
        return salesforce_id("User", chance.randrange(1, 1000))
    for kind, make in _MAKERS:
        if isinstance(field, kind):
            return make(field, chance)
    return _cut(field, " ".join(chance.choices(_WORDS, k=chance.randint(1, 4))))


def _is(field: Any, name: str) -> bool:
    """Return whether the field is of the class with this name in hc_models, which needs Django to be set up."""
    from hc_signals.db import models as hc_models

    return isinstance(field, getattr(hc_models, name))


def _choices(field: Any) -> list[Any]:
    """Return the choices that fit into the column, without the blank one."""
    values = [value for value, _ in flatten_choices(field.choices) if value not in (None, "")]
    longest = field.max_length or 0
    return [value for value in values if not longest or len(str(value)) <= longest] or values


NEVER_ALIKE = (models.JSONField, models.BinaryField, models.GenericIPAddressField)
"""Fields with so many possible values that a random one is not compared with the table."""


def distinct(field: Any) -> tuple[int, Callable[[int], Any]]:
    """Return the number of distinct values for a unique field, and a function that returns the n-th one, from 0.

    Args:
        field: neither a relation nor one of NEVER_ALIKE.
    """
    if field.choices:
        known = _choices(field)
        return len(known), lambda n: [known[n]] if _is(field, "MultiPicklist") else known[n]
    if _is(field, "ID"):
        return 62**6, partial(salesforce_id, "User")
    for kind, size, make in _DISTINCT:
        if isinstance(field, kind):
            return size(field), partial(make, field)
    prefix, suffix = next((fix for kind, *fix in _AROUND if isinstance(field, kind)), ("", ""))
    width = min(12, (field.max_length or 255) - len(prefix + suffix))
    if width < 1:
        prefix, suffix, width = "", "", field.max_length
    return 36**width, lambda n: f"{prefix}{in_digits(n, _BASE36).rjust(width, '0')}{suffix}"


def _digits(field: Any) -> int:
    """Return the number of digits of an invented number; with few decimal places, no more than a float can hold."""
    places = field.decimal_places or 0
    return min((field.max_digits or 12) - places, 9) + places


def _scaled(field: Any, number: int) -> decimal.Decimal:
    return decimal.Decimal(number).scaleb(-(field.decimal_places or 0))


def _decimal(field: Any, chance: random.Random) -> decimal.Decimal:
    return _scaled(field, chance.randrange(10 ** _digits(field)))


def _moment(chance: random.Random) -> datetime.datetime:
    return _START + datetime.timedelta(seconds=chance.randrange(10**8))


def _cut(field: Any, text: str) -> str:
    return text[: field.max_length] if field.max_length else text


_START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)

# The first match counts: Django's DateTimeField is a DateField, its EmailField a CharField.
_MAKERS: list[tuple[type[Any], Callable[[Any, random.Random], Any]]] = [
    (models.BooleanField, lambda field, chance: chance.random() < 0.5),
    (models.DecimalField, _decimal),
    (models.FloatField, lambda field, chance: chance.randrange(10**6) / 100),
    (models.SmallIntegerField, lambda field, chance: chance.randrange(2**15)),
    (models.IntegerField, lambda field, chance: chance.randrange(10**6)),
    (models.DateTimeField, lambda field, chance: _moment(chance)),
    (models.DateField, lambda field, chance: _moment(chance).date()),
    (models.TimeField, lambda field, chance: _moment(chance).time()),
    (models.DurationField, lambda field, chance: datetime.timedelta(seconds=chance.randrange(10**6))),
    (models.JSONField, lambda field, chance: {"words": chance.choices(_WORDS, k=2), "number": chance.getrandbits(32)}),
    (models.BinaryField, lambda field, chance: chance.randbytes(8)),
    (models.GenericIPAddressField, lambda field, chance: str(ipaddress.IPv4Address(chance.getrandbits(32)))),
    (models.EmailField, lambda field, chance: _cut(field, f"user{chance.randrange(10**6)}@example.com")),
    (models.URLField, lambda field, chance: _cut(field, f"https://example.com/{chance.randrange(10**6)}")),
]

_DISTINCT: list[tuple[type[Any], Callable[[Any], int], Callable[[Any, int], Any]]] = [
    (models.BooleanField, lambda field: 2, lambda field, n: bool(n)),
    (models.DecimalField, lambda field: 10 ** min(15, _digits(field)), _scaled),
    (models.FloatField, lambda field: 10**9, lambda field, n: float(n)),
    (models.SmallIntegerField, lambda field: 2**15, lambda field, n: n),
    (models.IntegerField, lambda field: 2**31, lambda field, n: n),
    (models.DateTimeField, lambda field: 10**9, lambda field, n: _START + datetime.timedelta(seconds=n)),
    (models.DateField, lambda field: 10**6, lambda field, n: datetime.date(1970, 1, 1) + datetime.timedelta(n)),
    (models.DurationField, lambda field: 10**9, lambda field, n: datetime.timedelta(seconds=n)),
    (models.TimeField, lambda field: 86400, lambda field, n: (_START + datetime.timedelta(seconds=n)).time()),
    (models.UUIDField, lambda field: 2**128, lambda field, n: uuid.UUID(int=n, version=4)),
]
_AROUND: list[tuple[type[Any], str, str]] = [
    (models.EmailField, "", "@example.com"),
    (models.URLField, "https://example.com/", ""),
]
