"""What is sent between the receiver calls of one page: savepoints, checks of settings, time limits."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

from django.db import DatabaseError, connections

from hc_signals.delivery.calls import Call, ConnectionLost, IsolationLost
from hc_signals.delivery.isolation.driver import Driver
from hc_signals.delivery.isolation.message import Message, State, beginning, empty_message, send_alone, status
from hc_signals.delivery.isolation.others import OtherDatabases
from hc_signals.delivery.isolation.outside import around_hook
from hc_signals.delivery.isolation.session import CHECK, READ, Session, left_settings_error
from hc_signals.delivery.project_code import LeftRunning, contained
from hc_signals.postgres import wrappers
from hc_signals.postgres.errors import Kind, is_transaction_limit, kind_of, lacks_savepoint, left_settings
from hc_signals.postgres.limits import SET_PAGE_LIMITS, Limits

_numbers = itertools.count()

SUBTRANSACTIONS = 60
"""How many subtransactions of one page may write. PostgreSQL shows other sessions the ids of 64
(``PGPROC_MAX_CACHED_SUBXIDS``). If there are more, a session searches pg_subtrans for each recently changed row that it
reads, and a standby that starts waits until it accepts connections."""


def room(done: int, subtransactions: int, most: int) -> int:
    """Return how many changes the next page may have, at most ``most``.

    Args:
        done: how many changes this page had.
        subtransactions: how many of them have written for these changes.
    """
    return max(1, min(most, done * SUBTRANSACTIONS // subtransactions)) if done and subtransactions else most


class Isolation:
    """Isolates the receiver calls of one page, one transaction if ``atomic``: see :mod:`hc_signals.delivery.isolation`.

    If ``is_careful``, each call has a message before and after it, so that every fault is found at its call.
    """

    def __init__(self, using: str, *, atomic: bool = True, is_careful: bool = False) -> None:
        self.using, self.atomic, self.is_careful = using, atomic, is_careful
        self.connection: Any = connections[using]
        self.others = OtherDatabases(using)
        self.failed: list[tuple[Call, BaseException]] = []
        """Calls that turned out to have failed after they had returned, until :meth:`store_failed`."""
        number = next(_numbers)
        self.note_subtransactions(0)
        self.session = Session((f"hc_signals_{number}_even", f"hc_signals_{number}_odd"))
        """What the server's session has of ours."""
        self.running = LeftRunning()
        self._limits: Limits | None = None
        self.idle_seconds: float | None = None
        """Seconds after which the server ends an idle session while a receiver runs; None: it never does."""
        self.is_watched_closely = is_careful or self.others.has_any
        """Whether everything is checked after each call, also after one that has run no query."""

    @contextmanager
    def opened(self) -> Iterator["Isolation"]:
        """Treat the statements of the block as our own; it contains the transaction."""
        try:
            with wrappers.set_aside(self.using, self._own_statement):
                yield self
        finally:
            if "driver" in self.__dict__:
                self.driver.release()
            self.others.end_page()

    @cached_property
    def driver(self) -> Driver:
        """Watches psycopg's connection from the first call in the transaction on."""
        return Driver(self.connection.connection, in_transaction=True)

    @property
    def unchecked(self) -> Call | None:
        """The call that can still turn out to have failed."""
        return self.session.unchecked[0] if self.session.unchecked else None

    def note_subtransactions(self, count: int) -> None:
        """Note how many subtransactions of this page have written, as far as their statements show."""
        self.subtransactions = count
        # Attributes, because a worker reads them for each change.
        self.is_full = count >= SUBTRANSACTIONS
        """The page should be committed."""
        self.is_half_full = count >= SUBTRANSACTIONS // 2
        """Older deliveries should leave the rest to new changes."""

    def check_last_call(self) -> None:
        """Check by a message of its own whether the last call has failed, and store the failure."""
        if self.session.unchecked:
            # Deferred constraints are checked at COMMIT, where the error no longer shows which call violated one.
            every = (CHECK, "SET CONSTRAINTS ALL IMMEDIATE", "SET CONSTRAINTS ALL DEFERRED")
            try:
                send_alone(self.using, "; ".join(every if self.is_careful else every[:1]))
            except DatabaseError as error:
                self._fail_unchecked(error)
            self.session = self.session._replace(unchecked=None)
        self.store_failed()

    def store_failed(self) -> None:
        """Store the deliveries of calls that turned out to have failed after they had returned."""
        while self.failed:
            call, error = self.failed.pop(0)
            call.store_failure(call.receiver, error)

    def check_late_alarm(self) -> None:
        """Stop an alarm that some call has left, without a handler for its signal; raise IsolationLost then."""
        if not self.is_careful and self.running.stop_unhandled():
            raise IsolationLost

    def check_running(self, error: BaseException | None) -> None:
        """End what the last call has left running: see :meth:`LeftRunning.check`."""
        self.check_late_alarm()
        if self.is_careful or self.running.is_likely():
            self.running.check(error)

    def finish(self, last: Callable[[], None]) -> None:
        """End the isolation of the transaction, before its COMMIT.

        Args:
            last: sends the last statement of the transaction, which takes the last check along; may send nothing.

        Raises:
            IsolationLost: a receiver has left something that cannot be committed.
        """
        self.check_late_alarm()
        is_noted = self.session.is_noted
        self.session = self.session._replace(is_finishing=is_noted)
        try:
            last()
            if self.session.is_finishing:
                with self.connection.cursor() as cursor:
                    cursor.execute("SELECT")
        except DatabaseError as error:
            if self.is_careful or not self.session.is_noted or kind_of(error) is not Kind.FAULT:
                raise
            raise IsolationLost from error
        self.store_failed()
        hooks: list[Any] = list(self.connection.run_on_commit)
        around = partial(around_hook, self.connection, lambda: self.settings)
        # Robust: an error in one receiver's on_commit hook does not stop the hooks of others.
        self.connection.run_on_commit = [(sids, contained(hook, around), True) for sids, hook, _ in hooks]

    def _own_statement(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Execute wrapper of our own statements."""
        is_first, session = self._limits is None and self.atomic, self.session
        if not (is_first or session.unchecked or session.has_project_limits or session.is_finishing):
            return execute(sql, params, many, context)
        if not self.connection.in_atomic_block or status(self.connection) == State.IN_ERROR:
            return execute(sql, params, many, context)
        first = SET_PAGE_LIMITS if is_first else ""
        is_nested = bool(self.connection.savepoint_ids)
        message = Message(execute, sql, params, many, context)
        with beginning(self.connection.connection) as begin:

            def lead(before: Session) -> tuple[list[str], Session]:
                statements, after = before.before_own(self._limits, first, is_nested=is_nested)
                return [*begin, *statements], after

            return self._send(lead, message)

    @cached_property
    def settings(self) -> str:
        """The settings that a receiver outside a transaction has to leave, as they were at its first query."""
        return str(send_alone(self.using, READ)[0])

    def begin_call(self, *, in_advance: bool) -> None:
        """Begin a call; ``in_advance``: its savepoint is made at once, in a message of its own."""
        if self.session.has_savepoint:
            self.session = self.session._replace(has_savepoint=False)
        if in_advance or self.is_careful:
            self.make_savepoint()

    def new_id(self) -> str:
        """Return an id for ``connection.savepoint_ids``."""
        return f"hc_signals_{next(_numbers)}"

    def make_savepoint(self) -> None:
        """Make the savepoint of the present call, in a message of its own."""
        with self.connection.cursor() as cursor:
            self.send_with_savepoint(empty_message(self.connection, cursor))

    def send_with_savepoint(self, message: Message) -> Any:
        """Send the first statement of the present call, behind those that make its savepoint."""
        return self._send(lambda before: before.making_savepoint(self._limits), message)

    def end_call(self, call: Call, sid: str) -> None:
        """End a call that has returned. If it has a savepoint, its settings are still to be checked."""
        if self.session.has_savepoint:
            if wrappers.prepares_cursors(self.connection):  # the backend sets its settings back at the next cursor
                with wrappers.as_project(self.using), self.connection.cursor():
                    pass
            self.session = self.session._replace(unchecked=(call, sid))
        if self.is_careful:
            self.check_last_call()

    def take_back(self, call: Call, sid: str) -> None:
        """Roll back the writes of the present call, and drop its ``on_commit`` hooks; or raise IsolationLost."""
        if self.session.has_savepoint:
            self._roll_back(call)
        self._drop_hooks(sid)

    def _roll_back(self, call: Call, then: str = "") -> None:
        try:
            send_alone(self.using, f"ROLLBACK TO SAVEPOINT {self.session.savepoint}{then}")
        except DatabaseError as error:
            if lacks_savepoint(error):
                raise IsolationLost(call) from error
            if left_settings(error):  # by a call that has bypassed Django, perhaps an earlier one
                raise IsolationLost(call if self.is_careful else None) from error
            raise
        self.session = self.session._replace(has_project_limits=True)

    def _drop_hooks(self, sid: str) -> None:
        connection = self.connection
        connection.run_on_commit = [entry for entry in connection.run_on_commit if sid not in entry[0]]

    def _fail_unchecked(self, error: BaseException) -> None:
        """Roll back the last call: its check has found that it failed."""
        assert self.session.unchecked is not None  # noqa: S101
        call, sid = self.session.unchecked
        self.session = self.session._replace(unchecked=None)
        if status(self.connection) == State.UNKNOWN:
            raise ConnectionLost(call, is_certain=is_transaction_limit(error)) from error
        self._roll_back(call, f"; {CHECK}")
        self._drop_hooks(sid)
        self.failed.append((call, left_settings_error(error) if left_settings(error) else error))

    def _send(self, lead: Callable[[Session], tuple[list[str], Session]], message: Message) -> Any:
        """Send a statement behind those of ``lead``. If the check in them fails, roll back that call and send again."""
        wanted = SET_PAGE_LIMITS if self._limits is None and self.atomic else ""
        while True:
            before = self.session
            statements, self.session = lead(before)
            try:
                result, found = message.send_after(statements, wanted)
            except BaseException as error:
                state = status(self.connection)
                is_late = before.unchecked is not None and (left_settings(error) or state == State.UNKNOWN)
                # psycopg finds a parameter that it cannot adapt before it sends anything.
                if is_late or state == State.IN_TRANSACTION:
                    self.session = before
                if not is_late:
                    raise
                self._fail_unchecked(error)
            else:
                if found is not None:
                    self._limits = Limits.of(found)
                    self.idle_seconds = self._limits.idle_seconds
                    self.is_watched_closely |= self.idle_seconds is not None
                return result
