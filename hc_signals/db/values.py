"""Python values that remember how the table spells them, so that saving a record changes nothing of it."""

import uuid
from collections.abc import Iterable
from typing import Any, Self


class MultiPicklistValue(list[str]):
    """The selected values of a multi-select picklist: a list, whose text is what the table holds, ``x;y``."""

    @classmethod
    def of(cls, value: str | Iterable[Any] | None) -> Self | None:
        """Return the value of a text or of any iterable of values; None of None and of an empty text."""
        if value is None or value == "":
            return None
        if isinstance(value, cls):
            return value
        return cls(value.split(";") if isinstance(value, str) else [str(item) for item in value])

    def __str__(self) -> str:
        return ";".join(self)


class SpelledUUID(uuid.UUID):
    """A UUID that the table does not hold as 32 lower-case hex digits: it is written back as it was read.

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
    """An external id read from the table that is no UUID: somebody has typed it in Salesforce. Not for new values."""
