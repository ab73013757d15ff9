"""Invented Salesforce records: ids as Salesforce makes them, values that fit a field."""

import datetime
import decimal
import random
import string
import uuid
import zlib
from collections.abc import Callable
from typing import Any

from django.db import models
from django.utils.choices import flatten_choices

_PREFIXES = {"Account": "001", "Contact": "003", "User": "005", "Opportunity": "006", "RecordType": "012"}
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_CASE_CODES = string.ascii_uppercase + "012345"

# fmt: off
_WORDS = [
    "Acme", "Zoë", "Ōsaka", "Straße", "Дом", "Edge", "Burlington", "Grand", "United", "Pyramid", "株式会社", "Express",
    "O'Brien", '"quoted"', "back\\slash", "😀",
]
# fmt: on


def salesforce_id(object_name: str, number: int) -> str:
    """Return the 18-character id of the ``number``-th record of an object, with Salesforce's case checksum."""
    prefix = _PREFIXES.get(object_name)
    if prefix is None:
        prefix = f"a{zlib.crc32(object_name.encode()) % 1000:03d}"[:3]
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return with_checksum(prefix + digits.rjust(12, "0"))


def with_checksum(short: str) -> str:
    """Return the 18-character form of a 15-character id.

    One letter per five characters: bit n says that the n-th is upper case, so that ids differ without their case.
    """
    suffix = ""
    for start in (0, 5, 10):
        five = short[start : start + 5]
        suffix += _CASE_CODES[sum(1 << n for n, letter in enumerate(five) if letter in string.ascii_uppercase)]
    return short + suffix


def invent(field: Any, chance: random.Random) -> Any:
    """Return a value for a field of a connected model, as Python has it; sometimes None."""
    if isinstance(field, models.UUIDField):
        return uuid.UUID(int=chance.getrandbits(128), version=4)
    if chance.random() < 0.05:
        return None
    return _value(field, chance)


def _value(field: Any, chance: random.Random) -> Any:
    if field.choices:
        return chance.choice([value for value, _ in flatten_choices(field.choices)])
    for kind, make in _MAKERS:
        if isinstance(field, kind):
            return make(field, chance)
    return _cut(field, " ".join(chance.choices(_WORDS, k=chance.randint(1, 4))))


def _decimal(field: Any, chance: random.Random) -> decimal.Decimal:
    places = field.decimal_places or 0
    whole = min((field.max_digits or 12) - places, 9)
    return decimal.Decimal(chance.randrange(10 ** (whole + places))).scaleb(-places)


def _moment(chance: random.Random) -> datetime.datetime:
    return datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=chance.randrange(10**8))


def _cut(field: Any, text: str) -> str:
    return text[: field.max_length] if field.max_length else text


# The first that fits: Django's DateTimeField is a DateField, its EmailField a CharField.
_MAKERS: list[tuple[type[Any], Callable[[Any, random.Random], Any]]] = [
    (models.BooleanField, lambda field, chance: chance.random() < 0.5),
    (models.DecimalField, _decimal),
    (models.FloatField, lambda field, chance: chance.randrange(10**6) / 100),
    (models.IntegerField, lambda field, chance: chance.randrange(10**6)),
    (models.DateTimeField, lambda field, chance: _moment(chance)),
    (models.DateField, lambda field, chance: _moment(chance).date()),
    (models.TimeField, lambda field, chance: _moment(chance).time()),
    (models.EmailField, lambda field, chance: _cut(field, f"user{chance.randrange(10**6)}@example.com")),
    (models.URLField, lambda field, chance: _cut(field, f"https://example.com/{chance.randrange(10**6)}")),
]
