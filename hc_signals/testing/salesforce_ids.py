"""Ids as Salesforce makes them: a prefix for the object, a number, a checksum of the case."""

import string
import zlib

_PREFIXES = {"Account": "001", "Contact": "003", "User": "005", "Opportunity": "006", "RecordType": "012"}
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_CASE_CODES = string.ascii_uppercase + "012345"


def salesforce_id(object_name: str, number: int) -> str:
    """Return the 18-character id of the ``number``-th record of an object, with Salesforce's case checksum."""
    return with_checksum(_prefix(object_name) + in_digits(number, _BASE62).rjust(12, "0"))


def in_digits(number: int, digits: str) -> str:
    """Return a number in the base that has these digits; an empty text for 0."""
    text = ""
    while number:
        number, digit = divmod(number, len(digits))
        text = digits[digit] + text
    return text


def _prefix(object_name: str) -> str:
    return _PREFIXES.get(object_name) or f"a{zlib.crc32(object_name.encode()) % 1000:03d}"[:3]


def with_checksum(short: str) -> str:
    """Return the 18-character form of a 15-character id.

    The suffix has one letter per five characters; bit n says that the n-th is upper case. So two ids differ even
    where case is ignored.
    """
    suffix = ""
    for start in (0, 5, 10):
        five = short[start : start + 5]
        suffix += _CASE_CODES[sum(1 << n for n, letter in enumerate(five) if letter in string.ascii_uppercase)]
    return short + suffix


def id_range(object_name: str) -> tuple[str, str]:
    """Return the lowest id that :func:`salesforce_id` makes for an object, and the first id above all of them."""
    prefix = _prefix(object_name)
    return f"{prefix}000000", f"{prefix}000001"


def number_of(sfid: str) -> int:
    """Return the number of the record with this id: the reverse of :func:`salesforce_id`."""
    number = 0
    for digit in sfid[3:15]:
        number = number * 62 + _BASE62.index(digit)
    return number
