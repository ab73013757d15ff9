"""Python names for Salesforce's names: unique, and distinct from the attributes of a connected model."""

import keyword
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import count

from hc_signals.db.models import HerokuConnectModel

_OBJECT_SUFFIX = re.compile(r"__(?:c|kav|ka|x|mdt|e|b|xo|dlm|dmo)$", re.IGNORECASE)
_FIELD_SUFFIX = re.compile(r"__[a-z]$", re.IGNORECASE)

RESERVED = frozenset({*dir(HerokuConnectModel), "id", "pk", "objects", "models", "hc_models", "self"})
"""Names that a field must not have.

They would hide an attribute of the model, or a module that the class body uses; ``self`` cannot be a keyword argument.
"""


def class_name(object_name: str) -> str:
    """Return a class name: ``My_Object__c`` becomes ``MyObject``."""
    return _camel(_OBJECT_SUFFIX.sub("", object_name))


def class_names(object_names: Iterable[str]) -> dict[str, str]:
    """Return a class name for each object, by its name in lower case.

    No two names differ in case alone, because Django identifies models by their names in lower case. If two objects
    claim one name, a standard object gets it, and the other one keeps its suffix: ``Order`` and ``OrderC``.
    """
    claims: dict[str, list[str]] = defaultdict(list)
    for name in sorted(object_names, key=lambda name: (bool(_OBJECT_SUFFIX.search(name)), "__" in name, name.lower())):
        claims[class_name(name).lower()].append(name)
    found: dict[str, str] = {}
    # Objects without a rival first, so that no second choice of another object takes their name.
    for rivals in sorted(claims.values(), key=len):
        for name in rivals:
            taken = {each.lower() for each in found.values()}
            found[name.lower()] = next(each for each in _class_choices(name) if each.lower() not in taken)
    return found


def _class_choices(object_name: str) -> Iterator[str]:
    yield class_name(object_name)
    full = _camel(object_name)
    yield full
    yield from (f"{full}{number}" for number in count(2))


def _camel(text: str) -> str:
    name = "".join(part[:1].upper() + part[1:] for part in re.split(r"[\W_]+", text))
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"Object{name}"


class Attributes:
    """Chooses the attribute names of one model."""

    def __init__(self) -> None:
        self._used = set(RESERVED)

    def claim(self, api_name: str, also: Iterable[str] = ()) -> str:
        """Return a free name. The first choice for ``Annual_Revenue__c`` and ``AnnualRevenue`` is ``annual_revenue``.

        Args:
            api_name: name of the field, or of its column.
            also: suffixes of the other attributes that the field makes: ``_id`` for a relation.
        """
        for name in _attribute_choices(api_name):
            names = {name, *(name + suffix for suffix in also)}
            if not names & self._used:
                self._used |= names
                return name
        raise AssertionError("The choices never end.")


def _attribute_choices(api_name: str) -> Iterator[str]:
    stem, full = _snake(_FIELD_SUFFIX.sub("", api_name)), _snake(api_name)
    for name in (stem, full, f"sf_{stem}", f"sf_{full}"):
        if name.isidentifier() and not keyword.iskeyword(name):
            yield name
    yield from (f"sf_{full}_{number}" for number in count(2))


def _snake(name: str) -> str:
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return re.sub(r"[\W_]+", "_", split).strip("_") or "field"
