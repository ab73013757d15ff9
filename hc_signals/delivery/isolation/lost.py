"""The errors of a page whose transaction or connection a receiver has broken."""

from hc_signals.delivery.calls import Call


class IsolationLost(Exception):
    """A call has broken the transaction beyond its savepoint, or ended it: everything that the page wrote is lost.

    Args:
        call: the call; None if any call of the page may have done it.
        is_certain: nothing but the call can have done it.
    """

    def __init__(self, call: Call | None = None, *, is_certain: bool = False) -> None:
        super().__init__()
        self.call, self.is_certain = call, is_certain


class ConnectionLost(IsolationLost):
    """A call has closed the connection, or the connection was lost during the call."""
