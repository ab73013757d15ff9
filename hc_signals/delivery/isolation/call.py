"""The context managers of the receiver calls of one page."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from django.db.transaction import TransactionManagementError

from hc_signals.delivery.calls import Call, ConnectionLost, IsolationLost, StoreFailure
from hc_signals.delivery.isolation import careful
from hc_signals.delivery.isolation.driver import changed_driver_error
from hc_signals.delivery.isolation.message import Message, State, received_status, status
from hc_signals.delivery.isolation.outside import LEFT_OPEN, CallOutside
from hc_signals.delivery.isolation.session import RESTORE, Session
from hc_signals.delivery.isolation.transaction import Isolation
from hc_signals.postgres import wrappers
from hc_signals.postgres.errors import is_transaction_limit

_WENT_ON = (
    "The receiver went on after an error of the database, which had ended its transaction: "
    "whatever it wrote is gone. Put a query that may fail into a block of transaction.atomic()."
)


_IN_TRANSACTION = State.IN_TRANSACTION
_NO_WRITES = ("SELECT", "RELEASE")

About = tuple[int, int, Any, StoreFailure]
"""What a :class:`~hc_signals.delivery.calls.Call` has besides the receiver."""


def calls_of(isolation: Isolation) -> "CallsInTransaction | CallsOutside":
    """Return what isolates the receiver calls of a page, one after the other."""
    return CallsInTransaction(isolation) if isolation.connection.in_atomic_block else CallsOutside(isolation)


def _error_after(
    checks: Iterable[Callable[[BaseException | None], None]], error: BaseException | None
) -> BaseException | None:
    """Run each check with the call's error, or that of the check before it; return the last error."""
    for check in checks:
        try:
            check(error)
        except BaseException as another:
            error = another
    return error


class CallsOutside:
    """The calls of a page outside a transaction, one after the other."""

    is_open = False
    """Each call is begun by :meth:`begin`."""

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation

    def begin(self, receiver: str) -> None:
        """Begin a call."""
        self._call = CallOutside(self._isolation.connection, lambda: self._isolation.settings)
        self._call.__enter__()
        self._isolation.others.begin_call()

    def has_left_nothing(self) -> bool:
        """Return False: :meth:`end` finds out."""
        return False

    def end(self, receiver: str, about: About, error: BaseException | None) -> BaseException | None:
        """End a call that has raised ``error``; return its error, also if it has left something."""
        isolation = self._isolation
        return _error_after((isolation.running.check, isolation.others.end_call, self._call.end), error)

    def pause(self) -> None:
        """Allow statements of our own: there is nothing to do."""


class CallsInTransaction:
    """The calls in the transaction of a page, one after the other.

    The connection is the receivers' from the first call on, until :meth:`pause`. As long as the calls leave nothing,
    nothing is done between them. The savepoint of a call is made at its first query.
    """

    __slots__ = (
        "_before",
        "_began",
        "_connection",
        "_cursor_factory",
        "_driver",
        "_has_written",
        "_hooks",
        "_is_sending",
        "_isolation",
        "_lost",
        "_own_wrappers",
        "_pgconn",
        "_raw",
        "_row_factory",
        "_session",
        "_sid",
        "_sizes",
        "_subtransactions",
        "_wrappers",
        "is_open",
    )

    def __init__(self, isolation: Isolation) -> None:
        self._isolation, self._connection = isolation, isolation.connection
        self._driver, self._raw = isolation.driver, isolation.connection.connection
        self._pgconn, (self._row_factory, self._cursor_factory) = self._raw.pgconn, self._driver.was
        self._before = self._before_message
        # Ours comes last: the statements that the project's wrappers put in front belong to the receiver.
        self._wrappers = [*wrappers.of_project(self._connection), self._statement]
        self._sid: str | None = None
        """The present call's id in ``connection.savepoint_ids``. A call that has left nothing leaves it to the next."""
        self.is_open = False
        """The connection is the receivers'."""
        self._session: Session | None = None
        """As it is until a call sends a message; None: each call is checked, whatever it does."""
        self._is_sending = False
        """The savepoint is being made."""
        self._subtransactions = 0
        """How many had written before the present call."""
        self._has_written = False
        """The present call's own subtransaction has written."""
        self._lost: IsolationLost | None = None
        """Raised during the call; the receiver may have caught it."""

    def begin(self, receiver: str) -> None:
        """Begin a call. It is left out while the connection :attr:`is_open`."""
        in_advance = careful.needs_savepoint(receiver)
        connection, isolation = self._connection, self._isolation
        if in_advance or self._sid is None:  # the last call has left something, or there was none
            isolation.begin_call(in_advance=in_advance)
            self._sid = isolation.new_id()
        # Django knows the savepoint from the start, so a failed receiver's on_commit hooks go with its writes.
        connection.savepoint_ids.append(self._sid)
        self._sizes = len(connection.savepoint_ids), len(connection.atomic_blocks)
        self._hooks = len(connection.run_on_commit)
        self._own_wrappers, connection.execute_wrappers = connection.execute_wrappers, list(self._wrappers)
        self._driver.before = self._before
        if isolation.is_watched_closely:
            isolation.others.begin_call()
            self._began = time.monotonic()
        is_checked = isolation.is_watched_closely or isolation.session.has_savepoint
        self._session = None if is_checked else isolation.session
        self._has_written, self._subtransactions = False, isolation.subtransactions
        self.is_open = True

    def pause(self) -> None:
        """Take the connection back, for statements of our own."""
        if self.is_open:
            self.is_open = False
            connection = self._connection
            connection.execute_wrappers = self._own_wrappers
            self._driver.before = None
            ids, blocks = self._sizes
            del connection.savepoint_ids[ids - 1 :], connection.atomic_blocks[blocks:]

    def has_left_nothing(self) -> bool:
        """Return whether the call has neither run a query nor changed anything. It makes no system call as a rule."""
        connection, raw, isolation = self._connection, self._raw, self._isolation
        return not (
            isolation.session is not self._session
            or connection.connection is not raw
            or self._pgconn.transaction_status != _IN_TRANSACTION
            or connection.needs_rollback
            or len(connection.savepoint_ids) != self._sizes[0]  # a block of atomic() appends to both lists
            or len(connection.run_on_commit) != self._hooks
            or connection.execute_wrappers != self._wrappers
            or raw.row_factory is not self._row_factory
            or raw.cursor_factory is not self._cursor_factory
            or isolation.running.is_likely()
        )

    def end(self, receiver: str, about: About, error: BaseException | None) -> BaseException | None:
        """End a call that has left something, or has raised ``error``; return its error, also if it has none yet.

        The error is IsolationLost if the call has broken more than its savepoint.
        """
        if not self.is_open:
            return error
        isolation = self._isolation

        def end(error: BaseException | None) -> None:
            self._end(Call(receiver, *about), error)

        return _error_after((isolation.check_running, isolation.others.end_call, end), error)

    def _statement(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Execute wrapper of the receiver's statements."""
        self._count_subtransactions(sql)
        if not self._isolation.session.has_savepoint:
            message = Message(execute, sql, params, many, context)
            return self._make_savepoint(lambda: self._isolation.send_with_savepoint(message))
        if self._ends_block(sql):
            sql = f"{sql}; {RESTORE}"
        return execute(sql, params, many, context)

    def _count_subtransactions(self, sql: Any) -> None:
        """Count the call's own subtransaction at its first write, and each that the receiver begins itself."""
        is_text = isinstance(sql, str)
        is_begun = is_text and sql.startswith("SAVEPOINT")
        is_first_write = not (is_begun or self._has_written or (is_text and sql.startswith(_NO_WRITES)))
        if is_begun or is_first_write:
            self._has_written |= is_first_write
            self._isolation.note_subtransactions(self._isolation.subtransactions + 1)

    def _before_message(self) -> None:
        """Make the savepoint if the call's first statement goes past Django."""
        if not self._is_sending and not self._isolation.session.has_savepoint:
            self._count_subtransactions(None)
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
        return bool(is_release and self._connection.savepoint_ids[-1:] == [self._sid])

    def _end(self, call: Call, error: BaseException | None) -> None:
        """Check everything that the call may have left, and take it back if it has failed; ``error``: it raised."""
        connection, sid = self._connection, str(self._sid)
        lost, self._sid, self._lost = self._lost, None, None
        is_open = (len(connection.savepoint_ids), len(connection.atomic_blocks)) != self._sizes
        connection.execute_wrappers = self._own_wrappers
        self._driver.before = None
        changed = self._driver.changed()
        try:
            if lost:
                raise lost
            state = received_status(connection) if self._may_have_ended() else status(connection)
            is_intact = state == State.IN_TRANSACTION and not is_open and not connection.needs_rollback
            if error is None and is_intact and not changed:
                self._isolation.end_call(call, sid)
                return
            self._take_back(call, sid, state, error)
            if error is None and is_intact:
                raise changed_driver_error(changed)
            if error is None:
                raise TransactionManagementError(LEFT_OPEN if is_open else _WENT_ON)
        finally:
            self.pause()

    def _may_have_ended(self) -> bool:
        """Return whether the call took so long that the server may have ended the session while it was idle."""
        idle = self._isolation.idle_seconds
        return idle is not None and time.monotonic() - self._began >= idle

    def _take_back(self, call: Call, sid: str, state: int, error: BaseException | None) -> None:
        """Roll back the call, or raise IsolationLost."""
        connection = self._connection
        if connection.closed_in_transaction:
            raise ConnectionLost(call, is_certain=True)
        if state == State.UNKNOWN:
            raise ConnectionLost(call, is_certain=self._may_have_ended() or is_transaction_limit(error))
        if state == State.ACTIVE:  # in the middle of a COPY, or of a statement of another thread
            connection.close()
            raise ConnectionLost(call, is_certain=True)
        if state == State.IDLE or sid not in connection.savepoint_ids:
            raise IsolationLost(call, is_certain=True)
        if state == State.IN_ERROR and not self._isolation.session.has_savepoint:
            raise IsolationLost(call)
        connection.needs_rollback = False
        self._isolation.take_back(call, sid)
        self._isolation.note_subtransactions(self._subtransactions)
