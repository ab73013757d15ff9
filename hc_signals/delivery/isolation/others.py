"""The project's other databases, which receivers may use: no call leaves a transaction or a dead connection behind.

No transaction of ours spans them: what a receiver writes there is committed at once, and is repeated with its page.
Django closes such connections at the end of each request, if they are unusable or older than ``CONN_MAX_AGE``. A worker
has no requests, so it does this after each page.
"""

from collections.abc import Iterable
from typing import Any

from django.db import connections
from django.db.transaction import TransactionManagementError

from hc_signals.delivery.isolation.message import State, status
from hc_signals.delivery.isolation.outside import discard


class OtherDatabases:
    """This thread's connections to other databases than ``using``."""

    def __init__(self, using: str) -> None:
        self._using = using
        self.has_any = len(list(connections)) > 1
        """Whether the project has other databases."""
        self._held: set[str] = set()
        """Aliases with a transaction that was open before the call, as in a test or a dry run."""

    def begin_call(self) -> None:
        """Note the transactions that are open before a call."""
        if self.has_any:
            self._held = {each.alias for each in self._opened() if each.in_atomic_block}

    def end_call(self, error: BaseException | None) -> None:
        """Roll back what the call has left open; ``error`` is what it raised.

        Raises:
            TransactionManagementError: the call has returned and left a transaction open.
        """
        if not self.has_any:
            return
        left = [each.alias for each in self._opened() if each.alias not in self._held and _is_left(each)]
        if left and error is None:
            raise TransactionManagementError(
                f"The receiver left a transaction open in another database ({', '.join(left)}): whatever it wrote in "
                "it is gone. End each transaction before the receiver returns."
            )

    def end_page(self) -> None:
        """Close connections that are unusable or too old, as Django does at the end of a request."""
        for connection in self._opened() if self.has_any else ():
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()

    def _opened(self) -> list[Any]:
        own: Any = connections[self._using]
        found: Iterable[Any] = connections.all(initialized_only=True)
        # A test's mirror has our connection under another alias.
        return [each for each in found if each is not own and each.connection]


def _is_left(connection: Any) -> bool:
    """Return whether the call has left a transaction open, and end it. Close a connection that was lost."""
    is_manual = connection.autocommit != connection.settings_dict["AUTOCOMMIT"]
    is_left = connection.in_atomic_block or is_manual or _is_busy(connection)
    if is_left:
        discard(connection)
    elif connection.errors_occurred:
        connection.close_if_unusable_or_obsolete()
    return bool(is_left)


def _is_busy(connection: Any) -> bool:
    """Return whether a connection has a transaction that Django does not know of."""
    return connection.vendor == "postgresql" and status(connection) not in (State.IDLE, State.UNKNOWN)
