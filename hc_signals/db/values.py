"""Python values that remember their spelling in the table, so that saving a record does not change it."""

import uuid
from collections.abc import Iterable
from typing import Any, Self


class MultiPicklistValue(list[str]):
    """The selected values of a multi-select picklist: a list. Its ``str()`` is the text in the table, ``x;y``."""

    @classmethod
    def of(cls, value: str | Iterable[Any] | None) -> Self | None:
        """Make a value from a text or an iterable; return None for None and for an empty text."""
        if value is None or value == "":
            return None
        if isinstance(value, cls):
            return value
        return cls(value.split(";") if isinstance(value, str) else [str(item) for item in value])

    def __str__(self) -> str:
        return ";".join(self)


class SpelledUUID(uuid.UUID):
    """A UUID that the table spells in another way than 32 lower-case hex digits, and that is written back so.

    Args:
        stored: the text in the table.
    """

    stored: str

    def __init__(self, stored: str) -> None:
        super().__init__(stored)
        object.__setattr__(self, "stored", stored)  # a UUID refuses to be changed

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.stored,)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class HandMadeID(str):
    """An external id in the table that is no UUID, because a user typed it in Salesforce. Not for new values."""
