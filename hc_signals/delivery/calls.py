"""The value that describes one receiver call: isolation, careful delivery and marks identify the call by it."""

from collections.abc import Callable
from typing import Any, NamedTuple

StoreFailure = Callable[[str, BaseException], None]
"""Stores a failed delivery; its arguments are the receiver's name and the error."""

CallKey = tuple[str, int, int]
"""Receiver, change and attempt: the same when a page is delivered again."""


class Call(NamedTuple):
    """One call of one receiver."""

    receiver: str
    """The receiver's name."""
    change: int
    """Id of the change; of the first one, if the call is about several."""
    attempt: int
    record: Any
    """Table and record of the change; None if the call is about several."""
    store_failure: StoreFailure
    """Is called if the receiver turns out to have failed after it has returned."""

    @property
    def key(self) -> CallKey:
        """What identifies the call."""
        return self.receiver, self.change, self.attempt
