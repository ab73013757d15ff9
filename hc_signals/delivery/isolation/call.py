"""The context manager of one receiver call in the page's transaction."""

import time
from collections.abc import Callable
from typing import Any

from django.db.transaction import TransactionManagementError

from hc_signals.delivery.calls import Call, ConnectionLost, IsolationLost
from hc_signals.delivery.isolation.driver import changed_driver_error
from hc_signals.delivery.isolation.message import Message, State, received_status, status
from hc_signals.delivery.isolation.outside import LEFT_OPEN, CallOutside
from hc_signals.delivery.isolation.session import RESTORE
from hc_signals.delivery.isolation.transaction import Isolation
from hc_signals.postgres import wrappers
from hc_signals.postgres.errors import is_transaction_limit

_WENT_ON = (
    "The receiver went on after an error of the database, which had ended its transaction: "
    "whatever it wrote is gone. Put a query that may fail into a block of transaction.atomic()."
)


def isolated(isolation: Isolation, call: Call, *, in_advance: bool) -> "CallInTransaction | CallOutside":
    """Return the context manager of one call; ``in_advance``: its savepoint is made at once, in a message of its own.

    Raises (on exit):
        IsolationLost: the call has broken more than its savepoint.
        TransactionManagementError: the receiver has returned with its writes lost.
        LeftSettingsError: outside a transaction: the receiver has changed settings.
    """
    if isolation.connection.in_atomic_block:
        return CallInTransaction(isolation, call, in_advance)
    return CallOutside(isolation.connection, lambda: isolation.settings)


class CallInTransaction:
    """One call in the page's transaction. Its savepoint is made at its first query."""

    __slots__ = (
        "_began",
        "_call",
        "_depth",
        "_in_advance",
        "_is_sending",
        "_isolation",
        "_lost",
        "_sid",
        "_wrappers",
    )

    def __init__(self, isolation: Isolation, call: Call, in_advance: bool) -> None:
        self._isolation, self._call, self._in_advance = isolation, call, in_advance
        self._is_sending = False
        """The savepoint is being made."""
        self._lost: IsolationLost | None = None
        """Raised during the call; the receiver may have caught it."""

    def __enter__(self) -> None:
        connection = self._isolation.connection
        self._sid = self._isolation.begin_call(in_advance=self._in_advance)
        # Django knows the savepoint from the start, so a failed receiver's on_commit hooks go with its writes.
        connection.savepoint_ids.append(self._sid)
        self._depth = len(connection.savepoint_ids), len(connection.atomic_blocks)
        self._wrappers = connection.execute_wrappers
        # Ours comes last: the statements that the project's wrappers put in front belong to the receiver.
        connection.execute_wrappers = [*wrappers.of_project(connection), self._statement]
        self._isolation.driver.before = self._before_message
        self._began = time.monotonic() if self._isolation.idle_seconds is not None else 0.0

    def _statement(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Execute wrapper of the receiver's statements."""
        if not self._isolation.has_savepoint:
            message = Message(execute, sql, params, many, context)
            return self._make_savepoint(lambda: self._isolation.send_with_savepoint(message))
        if self._ends_block(sql):
            sql = f"{sql}; {RESTORE}"
        return execute(sql, params, many, context)

    def _before_message(self) -> None:
        """Make the savepoint if the call's first statement goes past Django."""
        if not self._is_sending and not self._isolation.has_savepoint:
            self._make_savepoint(self._isolation.make_savepoint)

    def _make_savepoint(self, make: Callable[[], Any]) -> Any:
        self._is_sending = True
        try:
            return make()
        except IsolationLost as lost:
            self._lost = lost
            raise
        finally:
            self._is_sending = False

    def _ends_block(self, sql: Any) -> bool:
        """Return whether the statement ends an outermost block of ``transaction.atomic()`` of the receiver."""
        # A wrapper of the project's may have put something in front of it.
        is_release = isinstance(sql, str) and "RELEASE SAVEPOINT" in sql and sql.endswith('"')
        return bool(is_release and self._isolation.connection.savepoint_ids[-1:] == [self._sid])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        connection = self._isolation.connection
        connection.execute_wrappers = self._wrappers
        self._isolation.driver.before = None
        changed = self._isolation.driver.changed()
        ids, blocks = connection.savepoint_ids, connection.atomic_blocks
        try:
            if self._lost:
                raise self._lost
            state = received_status(connection) if self._may_have_ended() else status(connection)
            is_open = (len(ids), len(blocks)) != self._depth
            is_intact = state == State.IN_TRANSACTION and not is_open and not connection.needs_rollback
            if error is None and is_intact and not changed:
                self._isolation.end_call(self._call, self._sid)
                return
            self._take_back(state, error)
            if error is None and is_intact:
                raise changed_driver_error(changed)
            if error is None:
                raise TransactionManagementError(LEFT_OPEN if is_open else _WENT_ON)
        finally:
            del ids[self._depth[0] - 1 :], blocks[self._depth[1] :]

    def _may_have_ended(self) -> bool:
        """Return whether the call took so long that the server may have ended the session while it was idle."""
        idle = self._isolation.idle_seconds
        return idle is not None and time.monotonic() - self._began >= idle

    def _take_back(self, state: int, error: BaseException | None) -> None:
        """Roll back the call, or raise IsolationLost."""
        connection = self._isolation.connection
        if connection.closed_in_transaction:
            raise ConnectionLost(self._call, is_certain=True)
        if state == State.UNKNOWN:
            raise ConnectionLost(self._call, is_certain=self._may_have_ended() or is_transaction_limit(error))
        if state == State.ACTIVE:  # in the middle of a COPY, or of a statement of another thread
            connection.close()
            raise ConnectionLost(self._call, is_certain=True)
        if state == State.IDLE or self._sid not in connection.savepoint_ids:
            raise IsolationLost(self._call, is_certain=True)
        if state == State.IN_ERROR and not self._isolation.has_savepoint:
            raise IsolationLost(self._call)
        connection.needs_rollback = False
        self._isolation.take_back(self._call, self._sid)
