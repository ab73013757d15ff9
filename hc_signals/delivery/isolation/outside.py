"""The context manager of one call outside a transaction: of a receiver, or of an ``on_commit`` hook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.db.transaction import TransactionManagementError

from hc_signals.delivery.isolation.driver import Driver, changed_driver_error
from hc_signals.delivery.isolation.message import State, status
from hc_signals.delivery.isolation.session import CHECK_AGAINST, left_settings_error
from hc_signals.postgres import wrappers
from hc_signals.postgres.errors import left_settings

LEFT_OPEN = (
    "The receiver left a transaction, a block of transaction.atomic() or a COPY open: whatever it wrote in it is gone. "
    "End each of them before the receiver returns."
)


class CallOutside:
    """One call outside a transaction: with ``ATOMIC = False``, or of a hook after the commit.

    What it writes is committed at once. After the call the connection is as it was before; if that cannot be, it is
    closed.

    Args:
        connection: Django's connection.
        settings: reads the settings that the call has to leave; it is called before the call's first statement.
    """

    __slots__ = ("_connection", "_driver", "_has_queried", "_settings", "_wrappers")

    def __init__(self, connection: Any, settings: Callable[[], str]) -> None:
        self._connection, self._settings, self._has_queried = connection, settings, False

    def __enter__(self) -> None:
        connection = self._connection
        self._wrappers = connection.execute_wrappers
        connection.execute_wrappers = [*wrappers.of_project(connection), self._statement]
        raw = connection.connection
        self._driver = None if raw is None else Driver(raw, in_transaction=False)
        if wrappers.prepares_cursors(connection):  # it would change settings before the call's first statement
            self._before_message()
        if self._driver:
            self._driver.before = self._before_message

    def _statement(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Execute wrapper of the receiver's statements."""
        self._before_message()  # the connection may be a new one
        return execute(sql, params, many, context)

    def _before_message(self) -> None:
        """Read the settings before the first statement changes one."""
        if not self._has_queried:
            self._has_queried = True
            self._settings()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """Check what the call has left, and close the connection if it cannot be as before; ``error``: it raised.

        Raises:
            TransactionManagementError, LeftSettingsError: the call has returned and left something.
        """
        connection = self._connection
        connection.execute_wrappers = self._wrappers
        changed: list[str] = []
        if self._driver:
            self._driver.release()
            changed = self._driver.changed()
        if connection.connection is None:
            return
        is_manual = connection.autocommit != connection.settings_dict["AUTOCOMMIT"]
        is_open = status(connection) != State.IDLE or connection.in_atomic_block or is_manual
        if is_open or changed:
            discard(connection)
            if error is None:
                raise changed_driver_error(changed) if changed else TransactionManagementError(LEFT_OPEN)
        elif self._has_queried:
            self._check(error)

    def _check(self, error: BaseException | None) -> None:
        try:
            with wrappers.set_aside(self._connection.alias), self._connection.cursor() as cursor:
                cursor.execute(CHECK_AGAINST, [self._settings()])
        except (DatabaseError, InterfaceError) as found:
            discard(self._connection)
            if error is None:
                raise left_settings_error(found) if left_settings(found) else found from None


def discard(connection: Any) -> None:
    """Close a connection whatever its state is; Django opens a new one for the next statement."""
    if connection.connection is not None and connection.vendor == "postgresql":
        connection.connection.close()  # a pool would lend the session again
    connection.in_atomic_block = connection.closed_in_transaction = False
    connection.close()
    connection.connection = None


@contextmanager
def around_hook(connection: Any, settings: Callable[[], str]) -> Iterator[None]:
    """Run an ``on_commit`` hook in the block: the project's wrappers get its statements, and it leaves no state.

    Raises (on exit):
        TransactionManagementError, LeftSettingsError: the hook has left something; the connection is closed.
    """
    if connection.in_atomic_block:  # in a test of the project
        with wrappers.as_project(connection.alias):
            yield
    else:
        with CallOutside(connection, settings):
            yield
