"""The value that describes one receiver call, and the errors of a call that is put off, or has broken its page."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

StoreFailure = Callable[[str, BaseException], None]
"""Stores a failed delivery; its arguments are the receiver's name and the error."""

UNWANTED = object()
"""What a receiver of ``@on_change`` returns if its filters do not match: the project's function was not called."""


class NotSettled(Exception):
    """A receiver is not called yet: it wants no value that a write of the app replaces. This is no failure.

    ``fields`` has the names of the fields. The text is stored with the delivery.
    """

    TEXT = "waits until Salesforce has the app's write of "

    def __init__(self, fields: Sequence[str]) -> None:
        super().__init__(self.TEXT + ", ".join(fields))
        self.fields = fields


CallKey = tuple[str, int, int]
"""Receiver, change and attempt: the same when a page is delivered again."""


class Call(NamedTuple):
    """One call of one receiver: isolation, careful delivery and marks identify it by this value."""

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


class IsolationLost(Exception):
    """A call has broken the transaction beyond its savepoint, or ended it: everything that the page wrote is lost.

    ``call`` is None if any call of the page may have done it; if ``is_certain``, nothing else can have done it.
    """

    def __init__(self, call: Call | None = None, *, is_certain: bool = False) -> None:
        super().__init__()
        self.call, self.is_certain = call, is_certain


class ConnectionLost(IsolationLost):
    """A call has closed the connection, or the connection was lost during the call."""
