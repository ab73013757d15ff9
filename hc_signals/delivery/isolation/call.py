"""The context managers of one receiver call: in the page's transaction, and outside of any."""

import time
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.db.transaction import TransactionManagementError

from hc_signals.delivery.calls import Call, ConnectionLost, IsolationLost
from hc_signals.delivery.isolation.message import Message, State, received_status, status
from hc_signals.delivery.isolation.session import CHECK_AGAINST, RESTORE, left_settings_error
from hc_signals.delivery.isolation.transaction import Isolation
from hc_signals.postgres import wrappers
from hc_signals.postgres.errors import is_transaction_limit, left_settings

_WENT_ON = (
    "The receiver went on after an error of the database, which had ended its transaction: "
    "whatever it wrote is gone. Put a query that may fail into a block of transaction.atomic()."
)
_LEFT_OPEN = (
    "The receiver left a transaction, a block of transaction.atomic() or a COPY open: whatever it wrote in it is gone. "
    "End each of them before the receiver returns."
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
    return CallOutside(isolation)


class CallInTransaction:
    """One call in the page's transaction. Its savepoint is made at its first query."""

    __slots__ = ("_began", "_call", "_depth", "_in_advance", "_isolation", "_lost", "_sid", "_wrappers")

    def __init__(self, isolation: Isolation, call: Call, in_advance: bool) -> None:
        self._isolation, self._call, self._in_advance = isolation, call, in_advance
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
        self._began = time.monotonic() if self._isolation.idle_seconds is not None else 0.0

    def _statement(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Execute wrapper of the receiver's statements."""
        if not self._isolation.has_savepoint:
            try:
                return self._isolation.send_with_savepoint(Message(execute, sql, params, many, context))
            except IsolationLost as lost:
                self._lost = lost
                raise
        if self._ends_block(sql):
            sql = f"{sql}; {RESTORE}"
        return execute(sql, params, many, context)

    def _ends_block(self, sql: Any) -> bool:
        """Return whether the statement ends an outermost block of ``transaction.atomic()`` of the receiver."""
        # A wrapper of the project's may have put something in front of it.
        is_release = isinstance(sql, str) and "RELEASE SAVEPOINT" in sql and sql.endswith('"')
        return bool(is_release and self._isolation.connection.savepoint_ids[-1:] == [self._sid])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        connection = self._isolation.connection
        connection.execute_wrappers = self._wrappers
        ids, blocks = connection.savepoint_ids, connection.atomic_blocks
        try:
            if self._lost:
                raise self._lost
            state = received_status(connection) if self._may_have_ended() else status(connection)
            is_open = (len(ids), len(blocks)) != self._depth
            if error is None and state == State.IN_TRANSACTION and not is_open and not connection.needs_rollback:
                self._isolation.end_call(self._call, self._sid)
                return
            self._take_back(state, error)
            if error is None:
                raise TransactionManagementError(_LEFT_OPEN if is_open else _WENT_ON)
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


class CallOutside:
    """One call outside a transaction (``ATOMIC = False``): what the receiver writes is committed at once.

    After the call the connection is as it was before; if that cannot be, it is closed.
    """

    __slots__ = ("_has_queried", "_isolation", "_wrappers")

    def __init__(self, isolation: Isolation) -> None:
        self._isolation, self._has_queried = isolation, False

    def __enter__(self) -> None:
        connection = self._isolation.connection
        self._wrappers = connection.execute_wrappers
        connection.execute_wrappers = [*wrappers.of_project(connection), self._statement]

    def _statement(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Execute wrapper of the receiver's statements."""
        _ = self._isolation.settings  # read before the first statement changes one
        self._has_queried = True
        return execute(sql, params, many, context)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        connection = self._isolation.connection
        connection.execute_wrappers = self._wrappers
        if connection.connection is None:
            return
        if status(connection) != State.IDLE or connection.in_atomic_block:
            self._discard()
            if error is None:
                raise TransactionManagementError(_LEFT_OPEN)
        elif self._has_queried:
            self._check(error)

    def _check(self, error: BaseException | None) -> None:
        try:
            with wrappers.set_aside(self._isolation.using), self._isolation.connection.cursor() as cursor:
                cursor.execute(CHECK_AGAINST, [self._isolation.settings])
        except (DatabaseError, InterfaceError) as found:
            self._discard()
            if error is None:
                raise left_settings_error(found) if left_settings(found) else found from None

    def _discard(self) -> None:
        connection = self._isolation.connection
        connection.in_atomic_block = connection.closed_in_transaction = False
        connection.close()
        connection.connection = None
