"""Hands one event to its receivers, each isolated in a savepoint that is made only when the receiver needs it."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.db.backends.postgresql.base import Cursor
from django.dispatch import Signal

from hc_signals.observing import here

_savepoint_numbers = itertools.count()


@dataclass(frozen=True)
class Failure:
    """A receiver that raised, and what."""

    receiver: str
    error: Exception


def receiver_path(receiver: Callable[..., Any]) -> str:
    """Return the dotted path by which a receiver is known in the log and on the command line."""
    name = getattr(receiver, "__qualname__", type(receiver).__qualname__)
    return f"{getattr(receiver, '__module__', '?')}.{name}"


Receivers = list[tuple[Callable[..., Any], bool]]
"""Each with whether it is async."""


def receivers_of(signal: Signal, sender: type) -> Receivers:
    """Return who listens to ``sender``, in order of connection."""
    # Signal.send_robust would catch an exception but keep the receiver's half-done writes, so the receivers are called
    # one by one from here; Django has no public call that names them.
    sync, asynchronous = signal._live_receivers(sender)
    return [(receiver, False) for receiver in sync] + [(receiver, True) for receiver in asynchronous]


def receivers_of_only(signal: Signal, sender: type) -> Receivers:
    """Like :func:`receivers_of`, without those connected to every sender."""
    general = {id(receiver) for receiver, _ in receivers_of(signal, _Nobody)}
    return [pair for pair in receivers_of(signal, sender) if id(pair[0]) not in general]


class _Nobody:
    """A sender that no one connects to: its receivers are those connected to all senders."""


def send(
    signal: Signal, receivers: Receivers, using: str, isolation: "Isolation | None" = None, **named: Any
) -> list[Failure]:
    """Call the receivers one by one; return those that failed, with all that they wrote taken back.

    Args:
        isolation: of the transaction, where it sends more than this.
    """
    failures, work, isolated = [], here(), isolation or Isolation(using)
    for receiver, is_async in receivers:
        failed: BaseException | None = None
        work.begin_call(receiver, signal, named)
        try:
            with isolated:
                call = async_to_sync(receiver) if is_async else receiver
                call(signal=signal, using=using, **named)
        except Exception as error:  # user code may raise anything; nobody else may suffer from it
            failed = error
            failures.append(Failure(receiver_path(receiver), error))
        finally:
            work.end_call(receiver, failed)
    return failures


def isolate_hooks(using: str) -> None:
    """Let no receiver's on_commit hook take the others' with it; call it at the end of a page's transaction."""
    connection = connections[using]
    hooks: list[Any] = list(connection.run_on_commit)
    connection.run_on_commit = [(sids, hook, True) for sids, hook, _ in hooks]  # type: ignore[misc]


class Isolation:
    """A savepoint for each receiver call of one transaction, made at the call's first query: one that never touches
    the database costs nothing.

    It travels in the message of that query, and so does the release of the last one: a writing receiver costs no round
    trip of ours, and savepoints do not pile up. Outside a transaction (``ATOMIC = False``) there is nothing to isolate:
    what a receiver wrote is committed.
    """

    # One object for all calls, and not a generator, because it is entered for every call of every receiver.
    __slots__ = ("_connection", "_is_made", "_open", "_sid")

    def __init__(self, using: str) -> None:
        self._connection: Any = connections[using]
        self._sid = ""
        """Of the present call."""
        self._is_made = False
        self._open = ""
        """The last savepoint that was made in this transaction."""

    def __enter__(self) -> None:
        self._sid, self._is_made = "", False
        if self._connection.in_atomic_block:
            self._sid = f"hc_signals_{next(_savepoint_numbers)}"
            # Known to Django from the start, so that on_commit hooks of a failed receiver are dropped with its writes.
            self._connection.savepoint_ids.append(self._sid)
            self._connection.execute_wrappers.append(self._before_query)

    def _before_query(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if self._is_made:
            return execute(sql, params, many, context)
        begin = [f"RELEASE SAVEPOINT {self._open}"] * bool(self._open) + [f"SAVEPOINT {self._sid}"]
        # Other cursors bind at the server, or read from a DECLARE: one statement a message.
        if many or not isinstance(sql, str) or type(context["cursor"].cursor) is not Cursor:
            self._is_made = True
            with self._connection.cursor() as cursor:
                cursor.execute("; ".join(begin))
            self._open = self._sid
            return execute(sql, params, many, context)
        try:
            result = execute("; ".join([*begin, sql]), params, many, context)
        except BaseException:
            # A parameter that cannot be adapted is found before anything is sent: then there is no savepoint.
            if self._connection.connection.info.transaction_status.name != "INTRANS":
                self._is_made, self._open = True, self._sid
            raise
        self._is_made, self._open = True, self._sid
        for _ in begin:
            context["cursor"].nextset()
        return result

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if not self._sid:
            return
        self._connection.execute_wrappers.pop()
        try:
            if error is not None:
                self._take_back()
        finally:
            self._connection.savepoint_ids.remove(self._sid)

    def _take_back(self) -> None:
        connection, sid = self._connection, self._sid
        if self._is_made:
            connection.needs_rollback = False
            transaction.savepoint_rollback(sid, using=connection.alias)
        connection.run_on_commit = [entry for entry in connection.run_on_commit if sid not in entry[0]]
