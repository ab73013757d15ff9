"""What keeps receiver calls of one transaction apart: each takes back what it did itself, and nobody else's."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.postgresql.base import Cursor
from django.db.transaction import TransactionManagementError
from psycopg.pq import TransactionStatus

from hc_signals.delivery.project_code import contained
from hc_signals.exceptions import LeftSettingsError
from hc_signals.postgres import wrappers
from hc_signals.postgres.errors import Kind, is_transaction_limit, kind_of, lacks_savepoint, left_settings, message
from hc_signals.postgres.limits import SET_PAGE_LIMITS, Limits

_numbers = itertools.count()

_IN_TRANSACTION = int(TransactionStatus.INTRANS)
_IN_ERROR = int(TransactionStatus.INERROR)
_UNKNOWN = int(TransactionStatus.UNKNOWN)


_NOTE = "CALL public.hc_signals_note_settings()"
_CHECK = "CALL public.hc_signals_check_settings()"
_RESTORE = "CALL public.hc_signals_restore_settings()"
# A cursor WITH HOLD is read to its end by COMMIT, and PREPARE TRANSACTION refuses one: either fails while it is open.
_REFUSE_COMMIT = "DECLARE hc_signals_commit NO SCROLL CURSOR WITH HOLD FOR SELECT public.hc_signals_refuse_commit()"


Keep = Callable[[str, BaseException], None]


class Owed(NamedTuple):
    """One receiver call, and what becomes of it if it fails after it has returned."""

    receiver: str
    """Its name."""
    change: int
    attempt: int
    record: Any
    """Table and record that it is about; None where it is about several."""
    keep: Keep
    """Is given the receiver's name and the error."""


class _Message(NamedTuple):
    """A statement on its way through the wrappers, with what they are given."""

    execute: Any
    sql: Any
    params: Any
    many: bool
    context: Any

    def send(self, sql: Any) -> Any:
        """Send it, or what it was joined to."""
        return self.execute(sql, self.params, self.many, self.context)


class IsolationLost(Exception):
    """A call has broken the transaction beyond its savepoint, or ended it: all that the page has written is lost.

    Args:
        owed: the call; None where it cannot be told which of the page's it was.
        is_certain: nothing but the call can have done it.
    """

    def __init__(self, owed: Owed | None = None, *, is_certain: bool = False) -> None:
        super().__init__()
        self.owed, self.is_certain = owed, is_certain


class ConnectionLost(IsolationLost):
    """A call has closed the connection, or it was lost under it."""


class Isolation:
    """A savepoint for each receiver call of one transaction, made at the call's first query: one that never touches
    the database costs nothing.

    It travels in the message of that query, and so does everything else that is to happen between two calls: the
    release of the last savepoint; a check that the last call has left the session's settings as they were; the limits
    that the project has set, for its receivers only. So a writing receiver costs no round trip of ours. What the check
    finds is laid at the last call, whoever's message finds it: that call is rolled back and has failed.

    Outside a transaction (``ATOMIC = False``) what a receiver wrote is committed. Its settings are checked by a message
    of its own, and a connection that it has left in any other state than it was is closed.

    The server parses a message as a whole before it makes the savepoint in it. So a first query with a syntax error
    breaks the transaction and not the call; and so does an error of a query that passes Django by, or a connection that
    is closed. See :func:`hc_signals.delivery.dispatch.until_isolated`.

    Args:
        using: database alias.
        atomic: the page is one transaction.
        is_careful: each call has a message before and after it, so that whatever is found is found at once.
    """

    def __init__(self, using: str, *, atomic: bool = True, is_careful: bool = False) -> None:
        self.using, self.atomic, self.is_careful = using, atomic, is_careful
        self._connection: Any = connections[using]
        # Two by turns: the name of one that was not made must not be that of the last call's. No name for each call:
        # psycopg keeps what it has parsed of a query by its text, which a new name would make another one.
        number = next(_numbers)
        self._names = (f"hc_signals_{number}_even", f"hc_signals_{number}_odd")
        self.in_advance = False
        """Set before a call: make its savepoint at once, in a message of its own."""
        self.late: list[tuple[Owed, BaseException]] = []
        """Calls that were found to have failed after they had returned, until :meth:`keep_late`."""
        self._owed: Owed | None = None
        """The present call."""
        self._sid = ""
        """The present call, as Django knows it; empty outside a transaction."""
        self._lost: IsolationLost | None = None
        """Raised in the present call, which may have swallowed it."""
        self._depth = (0, 0)
        self._began = 0.0
        self._has_queried = False
        self._settings: str | None = None
        """What a receiver outside a transaction has to leave."""
        self._is_finishing = False
        # What the server has done for us, or will have done when it has read the message that is being sent:
        self._is_made = False
        """The present call has its savepoint."""
        self._open = ""
        """The last savepoint that was made in this transaction."""
        self._pending: tuple[Owed, str] | None = None
        """The call whose settings are to be checked."""
        self._limits: Limits | None = None
        self._is_projects = False
        """The project's limits are set, and not ours."""
        self._is_noted = False
        """So is what receivers have to leave; and the commit is refused."""

    # The transaction

    @contextmanager
    def opened(self) -> Iterator["Isolation"]:
        """For the length of the block, which has the transaction in it, statements are ours and not the project's."""
        with wrappers.set_aside(self.using, self._own_statement):
            yield self

    @property
    def pending(self) -> Owed | None:
        """The call that may still turn out to have failed."""
        return self._pending[0] if self._pending else None

    def settle(self) -> None:
        """Find out now, by a message of its own, whether the last call has failed."""
        if self._pending:
            # Deferred constraints are checked at the commit, where nobody could tell whose they are.
            every = (_CHECK, "SET CONSTRAINTS ALL IMMEDIATE", "SET CONSTRAINTS ALL DEFERRED")
            try:
                self._plain("; ".join(every if self.is_careful else every[:1]))
            except DatabaseError as error:
                self._blame_pending(error)
            self._pending = None
        self.keep_late()

    def keep_late(self) -> None:
        """Keep the deliveries of calls that have failed after they had returned."""
        while self.late:
            owed, error = self.late.pop(0)
            owed.keep(owed.receiver, error)

    def finish(self, last: Callable[[], None]) -> None:
        """End the isolation of the transaction, before it is committed.

        Args:
            last: the last statement of the transaction, which takes along what is still to be checked; or nothing.

        Raises:
            IsolationLost: a receiver has left what cannot be committed.
        """
        self._is_finishing = self._is_noted
        try:
            last()
            if self._is_finishing:
                with self._connection.cursor() as cursor:
                    cursor.execute("SELECT")
        except DatabaseError as error:
            if self.is_careful or not self._is_noted or kind_of(error) is not Kind.FAULT:
                raise
            raise IsolationLost from error
        self.keep_late()
        hooks: list[Any] = list(self._connection.run_on_commit)
        # No receiver's on_commit hook takes the others' with it.
        self._connection.run_on_commit = [(sids, contained(hook, self._projects), True) for sids, hook, _ in hooks]

    @contextmanager
    def _projects(self) -> Iterator[None]:
        """The block is the project's: its statements pass the project's wrappers."""
        connection = self._connection
        before, connection.execute_wrappers = connection.execute_wrappers, wrappers.of_project(connection)
        try:
            yield
        finally:
            connection.execute_wrappers = before

    def _own_statement(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Wrapper of our own statements."""
        is_first = self._limits is None and self.atomic
        if not (is_first or self._pending or self._is_projects or self._is_finishing):
            return execute(sql, params, many, context)
        if not self._connection.in_atomic_block or self._status() == _IN_ERROR:
            return execute(sql, params, many, context)
        return self._send(self._before_ours, _Message(execute, sql, params, many, context))

    def _before_ours(self) -> list[str]:
        before = [_CHECK] * (self._pending is not None)
        self._pending = None
        if self._limits is None and self.atomic:
            before.append(SET_PAGE_LIMITS)
        # In a transaction that goes on behind the page (a test's) all is then as it was; else it ends with this.
        is_nested = self._is_finishing and bool(self._connection.savepoint_ids)
        if self._limits and (self._is_projects or is_nested):
            before.append(self._limits.project if is_nested else self._limits.own)
        if self._is_finishing:
            before += ["CLOSE hc_signals_commit"] if is_nested else ["SET CONSTRAINTS ALL IMMEDIATE", "CLOSE ALL"]
        self._is_finishing = self._is_projects = False
        return [statement for statement in before if statement]

    # One call

    def call(self, owed: Owed) -> "Isolation":
        """Return the context manager of one call."""
        self._owed = owed
        return self

    def __enter__(self) -> None:
        connection = self._connection
        self._sid, self._is_made, self._has_queried, self._lost = "", False, False, None
        if connection.in_atomic_block:
            if self.in_advance or self.is_careful:
                with connection.cursor() as cursor:
                    self._send(self._begin, _Message(self._execute, "SELECT", None, False, {"cursor": cursor}))
            self._sid = f"hc_signals_{next(_numbers)}"
            # Known to Django from the start, so that on_commit hooks of a failed receiver are dropped with its writes.
            connection.savepoint_ids.append(self._sid)
        self._depth = len(connection.savepoint_ids), len(connection.atomic_blocks)
        self._ours = connection.execute_wrappers
        # Ours comes last: what the project's wrappers put in front belongs to the receiver.
        connection.execute_wrappers = [*wrappers.of_project(connection), self._receivers_statement]
        if self._limits and self._limits.idle_seconds is not None:
            self._began = time.monotonic()

    def _receivers_statement(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Wrapper of the present receiver's statements."""
        if self._sid and not self._is_made:
            return self._send(self._begin, _Message(execute, sql, params, many, context))
        if not self._sid and self._settings is None:
            self._settings = self._read("SELECT public.hc_signals_settings()")
        self._has_queried = True
        if self._sid and self._ends_block(sql):
            sql = f"{sql}; {_RESTORE}"
        return execute(sql, params, many, context)

    def _ends_block(self, sql: Any) -> bool:
        """Tell whether the statement ends a block of ``transaction.atomic()`` that is no part of another one."""
        # A wrapper of the project's may have put something in front of it.
        if not (isinstance(sql, str) and "RELEASE SAVEPOINT" in sql and sql.endswith('"')):
            return False
        return bool(self._connection.savepoint_ids[-1:] == [self._sid])

    def _begin(self) -> list[str]:
        """Take the present call for one with a savepoint; return the statements that make it."""
        before = [_CHECK] * (self._pending is not None)
        before += [f"RELEASE SAVEPOINT {self._open}"] * bool(self._open)
        if self._limits and not self._is_projects:
            before += [self._limits.project] * bool(self._limits.changed)
        if not self._is_noted:
            before += [_NOTE, _REFUSE_COMMIT]
        self._pending, self._is_projects, self._is_noted = None, True, True
        self._is_made, self._open = True, self._names[self._open == self._names[0]]
        return [*before, f"SAVEPOINT {self._open}"]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._connection.execute_wrappers = self._ours
        if not self._sid:
            self._end_unisolated(error)
            return
        ids, blocks = self._connection.savepoint_ids, self._connection.atomic_blocks
        try:
            if self._lost:
                raise self._lost
            status, is_open = self._status_after_call(), (len(ids), len(blocks)) != self._depth
            if error is None and status == _IN_TRANSACTION and not is_open and not self._connection.needs_rollback:
                self._pending = (self._owed, self._sid) if self._is_made and self._owed else self._pending
                if self.is_careful:
                    self.settle()
                return
            self._take_back(status, error)
            if error is None:
                raise TransactionManagementError(_LEFT_OPEN if is_open else _WENT_ON)
        finally:
            del ids[self._depth[0] - 1 :], blocks[self._depth[1] :]

    def _status(self) -> int:
        raw = self._connection.connection
        return _UNKNOWN if raw is None else int(raw.pgconn.transaction_status)

    def _status_after_call(self) -> int:
        """Return the status; where the server may have ended the session while it was idle, ask the socket."""
        idle = self._limits.idle_seconds if self._limits else None
        if idle is not None and time.monotonic() - self._began >= idle:
            try:
                self._connection.connection.pgconn.consume_input()
            except Exception:
                return _UNKNOWN
        return self._status()

    def _take_back(self, status: int, error: BaseException | None) -> None:
        connection = self._connection
        if connection.closed_in_transaction:
            raise ConnectionLost(self._owed, is_certain=True)
        if status == _UNKNOWN:
            idle = self._limits.idle_seconds if self._limits else None
            was_idle = idle is not None and time.monotonic() - self._began >= idle
            raise ConnectionLost(self._owed, is_certain=was_idle or is_transaction_limit(error))
        if status == TransactionStatus.ACTIVE:  # in the middle of a COPY, or of a statement of another thread
            connection.close()
            raise ConnectionLost(self._owed, is_certain=True)
        if status == TransactionStatus.IDLE or self._sid not in connection.savepoint_ids:
            raise IsolationLost(self._owed, is_certain=True)
        if status == _IN_ERROR and not self._is_made:
            raise IsolationLost(self._owed)
        connection.needs_rollback = False
        if self._is_made:
            self._roll_back(self._owed)
        self._drop_hooks(self._sid)

    def _roll_back(self, owed: Owed | None, then: str = "") -> None:
        try:
            self._plain(f"ROLLBACK TO SAVEPOINT {self._open}{then}")
        except DatabaseError as error:
            if lacks_savepoint(error):
                raise IsolationLost(owed) from error
            if left_settings(error):  # somebody has passed Django by, and we have not noticed whose call
                raise IsolationLost(owed if self.is_careful else None) from error
            raise
        self._is_projects = True

    def _drop_hooks(self, sid: str) -> None:
        connection = self._connection
        connection.run_on_commit = [entry for entry in connection.run_on_commit if sid not in entry[0]]

    def _blame_pending(self, error: BaseException) -> None:
        """Take back the last call, which has failed as its check shows."""
        assert self._pending is not None  # noqa: S101
        (owed, sid), self._pending = self._pending, None
        if self._status() == _UNKNOWN:
            raise ConnectionLost(owed, is_certain=is_transaction_limit(error)) from error
        self._roll_back(owed, f"; {_CHECK}")
        self._drop_hooks(sid)
        self.late.append((owed, _left_settings(error) if left_settings(error) else error))

    # Messages

    def _send(self, make: Callable[[], list[str]], message: "_Message") -> Any:
        """Send a statement, joined to others before it; once more without what has failed in it for another call.

        Args:
            make: takes these others for done, and returns them.
        """
        while True:
            before = self._is_made, self._open, self._pending, self._is_projects, self._is_noted, self._is_finishing
            statements = make()
            try:
                return self._joined(statements, message)
            except BaseException as error:
                status, pending = self._status(), before[2]
                is_late = pending is not None and left_settings(error)
                # A parameter that cannot be adapted is found before anything is sent.
                if status == _IN_TRANSACTION or is_late or (pending and status == _UNKNOWN):
                    (self._is_made, self._open, self._pending) = before[:3]
                    (self._is_projects, self._is_noted, self._is_finishing) = before[3:]
                if not is_late and not (pending and status == _UNKNOWN):
                    raise
                try:
                    self._blame_pending(error)
                except IsolationLost as lost:
                    self._lost = lost
                    raise

    def _joined(self, statements: list[str], message: "_Message") -> Any:
        cursor: Any = message.context["cursor"].cursor
        takes_limits, is_plain = self._limits is None and self.atomic, type(cursor) is Cursor
        # Other cursors bind at the server, or read from a DECLARE: one statement a message.
        if message.many or not isinstance(message.sql, str) or not is_plain:
            for statement in statements:
                row = self._plain(statement)
                if takes_limits and statement == SET_PAGE_LIMITS:
                    self._limits = Limits.of(row)
            return message.send(message.sql)
        result = message.send("; ".join([*statements, message.sql]))
        if takes_limits:
            self._limits = self._limits_of(statements, cursor)
        else:
            for _ in statements:
                cursor.nextset()
        return result

    def _limits_of(self, statements: list[str], cursor: Any) -> Limits | None:
        """Return what the statement SET_PAGE_LIMITS has found; move on to the results behind ours."""
        found = None
        for statement in statements:
            if statement == SET_PAGE_LIMITS:
                found = Limits.of(cursor.fetchone())
            cursor.nextset()
        return found

    def _execute(self, sql: Any, params: Any, many: bool, context: Any) -> Any:
        with self._connection.wrap_database_errors:
            return context["cursor"].cursor.execute(sql)

    def _plain(self, sql: str) -> Any:
        """Send statements as they are; return the first row of the first one."""
        with wrappers.set_aside(self.using), self._connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone() if cursor.description else None

    def _read(self, sql: str) -> str:
        return str(self._plain(sql)[0])

    # Outside a transaction

    def _end_unisolated(self, error: BaseException | None) -> None:
        """Leave the connection as it was before the call; close it if that cannot be."""
        if self._connection.connection is None:
            return
        if self._status() != TransactionStatus.IDLE or self._connection.in_atomic_block:
            self._discard()
            if error is None:
                raise TransactionManagementError(_LEFT_OPEN)
        elif self._has_queried and self._settings is not None:
            try:
                with wrappers.set_aside(self.using), self._connection.cursor() as cursor:
                    cursor.execute("CALL public.hc_signals_check_settings(%s)", [self._settings])
            except (DatabaseError, InterfaceError) as found:
                self._discard()
                if error is None:
                    raise _left_settings(found) if left_settings(found) else found from None

    def _discard(self) -> None:
        self._connection.in_atomic_block = self._connection.closed_in_transaction = False
        self._connection.close()
        self._connection.connection = None


_WENT_ON = (
    "The receiver went on after an error of the database, which had ended its transaction: "
    "whatever it wrote is gone. Put a query that may fail into a block of transaction.atomic()."
)
_LEFT_OPEN = (
    "The receiver left a transaction, a block of transaction.atomic() or a COPY open: whatever it wrote in it is gone. "
    "End each of them before the receiver returns."
)


def _left_settings(error: BaseException) -> LeftSettingsError:
    return LeftSettingsError(
        f"The receiver changed settings of its session and left them so: {message(error)}. They are set back, and in a "
        "transaction whatever it wrote is gone. Put SET LOCAL into a block of transaction.atomic(), together with the "
        "queries that need it."
    )
