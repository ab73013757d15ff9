"""Waits until Salesforce has given a new row of the app its sfid: for scripts and tests.

The thread sleeps at the doorbell, as a worker does: the trigger notifies when Heroku Connect writes the sfid, or the
refusal, into the row. Two things ring no bell, because Salesforce has changed nothing: the app deletes the row, or a
person ignores a refused entry of the trigger log. For these the row is read every ``QUIET_SECONDS``.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from django.db import connections, router, transaction
from django.db.models import Model

from hc_signals.delivery.pulse import Pulse
from hc_signals.exceptions import HCSignalsError
from hc_signals.heroku.trigger_log.models import trigger_log_of
from hc_signals.heroku.trigger_log.words import TriggerLogState
from hc_signals.postgres.names import quote
from hc_signals.postgres.query import row
from hc_signals.tables import is_connected, quoted_table, table_parts
from hc_signals.worker.doorbell import Doorbell

QUIET_SECONDS = 5.0
"""Seconds between two reads of the row while the doorbell does not ring."""

_ON_ITS_WAY = frozenset({TriggerLogState.NEW, TriggerLogState.PENDING, TriggerLogState.REQUEUE, TriggerLogState.MERGED})
"""States of an entry of the trigger log that Heroku Connect still sends, or has sent as part of another entry."""


class LinkState(StrEnum):
    """What Salesforce has made of a new row."""

    PENDING = "pending"
    """Salesforce has not answered yet."""
    LINKED = "linked"
    """The row has its sfid."""
    FAILED = "failed"
    """Salesforce has refused the row, and ``message`` says why. A later ``redo()`` may still link it."""
    SUPERSEDED = "superseded"
    """The row will get no sfid: it is gone, or nothing of it is on its way; ``message`` says which."""


class NotLinkedError(HCSignalsError):
    """The row did not get its sfid; ``link`` has the state and Salesforce's message."""

    def __init__(self, link: "Link") -> None:
        super().__init__(f"{link} has no sfid: {link.state}. {link.message}".strip())
        self.link = link


class Link:
    """A new row on its way to Salesforce.

    Args:
        instance: a saved instance of a connected model.
        using: database alias; default: the instance's, else where the router sends writes.

    Raises:
        TypeError: the model is not connected.
        ValueError: the instance is not saved.
    """

    def __init__(self, instance: Model, using: str | None = None) -> None:
        model = type(instance)
        if not is_connected(model):
            raise TypeError(f"{model._meta.label} is no connected model, so Salesforce gives its rows no sfid.")
        if instance.pk is None:
            raise ValueError(f"This {model._meta.label} is not saved; call save() first.")
        self.instance = instance
        self.using = using or instance._state.db or router.db_for_write(model)
        self.state = LinkState.PENDING
        """As of the last :meth:`read`."""
        self.sfid: str | None = None
        """The record's Salesforce id, once it is linked."""
        self.message = ""
        """Salesforce's answer (``_hc_err``) if it refused the row, or why the row will get no sfid."""
        key = quote(str(model._meta.pk.column))
        self._row = f"SELECT sfid, _hc_lastop, _hc_err FROM {quoted_table(model)} WHERE {key} = %s"

    def __str__(self) -> str:
        """Return model and primary key."""
        return f"{type(self.instance)._meta.label} {self.instance.pk}"

    def read(self) -> LinkState:
        """Read the row now, and return the state. A linked instance gets its ``sf_id``; nothing else in it changes.

        Raises:
            DatabaseError: the table or the trigger log cannot be read.
        """
        found = row(self.using, self._row, [self.instance.pk])
        self.state, self.sfid, self.message = LinkState.PENDING, None, ""
        if not found:
            self.state, self.message = LinkState.SUPERSEDED, "The row is gone."
        elif found[0]:
            self.state, self.sfid = LinkState.LINKED, found[0]
            self._name_instance(found[0])
        elif found[1] == "FAILED":
            self.state, self.message = LinkState.FAILED, found[2] or ""
        elif found[1] != "PENDING":
            self._read_trigger_log()
        return self.state

    def wait(self, timeout: float | None = None) -> LinkState:
        """Wait until the state is another one than ``PENDING``, and return it.

        Args:
            timeout: most seconds; default: no limit.

        Raises:
            TransactionManagementError: the thread is in a transaction, so that Heroku Connect cannot see the row yet.
            DatabaseError: the table or the trigger log cannot be read.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._wait(lambda: deadline is not None and time.monotonic() >= deadline)

    async def wait_async(self, timeout: float | None = None) -> LinkState:
        """Do :meth:`wait` in a thread with a connection of its own; a cancelled task ends it."""
        deadline, cancelled = None if timeout is None else time.monotonic() + timeout, threading.Event()

        def wait() -> LinkState:
            try:
                return self._wait(lambda: cancelled.is_set() or (deadline is not None and time.monotonic() >= deadline))
            finally:
                connections[self.using].close()

        try:
            return await asyncio.to_thread(wait)
        finally:
            cancelled.set()

    def _wait(self, stopping: Callable[[], bool]) -> LinkState:
        if self.read() is not LinkState.PENDING or stopping():
            return self.state
        if connections[self.using].in_atomic_block:
            raise transaction.TransactionManagementError(
                f"{self} cannot be waited for in a transaction: Heroku Connect sees the row after the commit. Wait "
                "after the block. A TestCase is a transaction too: use TransactionTestCase, or let the simulator send "
                "first, by send_app_writes()."
            )
        pulse = Pulse()
        with Doorbell(self.using, stopping, consumer="wait_linked") as doorbell:
            while self.read() is LinkState.PENDING and not stopping():
                doorbell.sleep(lambda: self.read() is not LinkState.PENDING, lambda: QUIET_SECONDS, pulse)
        return self.state

    def _read_trigger_log(self) -> None:
        """Ask the trigger log about a row without sfid that does not say what became of it.

        Heroku Connect's own trigger makes FAILED, written twice, SYNCED.
        """
        schema, table = table_parts(type(self.instance))
        for model in trigger_log_of(schema):
            logs: Any = model.objects.using(self.using)
            entry = logs.filter(table_name=table, record_id=self.instance.pk).last() if logs.has_table() else None
            if entry is None:
                continue
            if entry.state == TriggerLogState.FAILED:
                self.state, self.message = LinkState.FAILED, entry.sf_message or ""
            elif entry.state not in _ON_ITS_WAY:
                self.state = LinkState.SUPERSEDED
                self.message = f"The last entry of the row in the trigger log is {entry.state}."
            return

    def _name_instance(self, sfid: str) -> None:
        for field in self.instance._meta.concrete_fields:
            if field.column == "sfid":
                setattr(self.instance, field.attname, sfid)


def wait_linked(instance: Model, timeout: float | None = 60.0, using: str | None = None) -> str:
    """Wait until Salesforce has given a new row its sfid. Return the sfid, which is in the instance too.

    It listens for the change. So the triggers must be installed; hc_listen need not run.

    Args:
        instance: a saved instance of a connected model, in a read-write mapping.
        timeout: most seconds; None: no limit.
        using: database alias; default: the instance's, else where the router sends writes.

    Raises:
        NotLinkedError: Salesforce has refused the row, or the row will get no sfid.
        TimeoutError: Salesforce has not answered in time.
        TransactionManagementError: the thread is in a transaction, so that Heroku Connect cannot see the row yet.
        TypeError: the model is not connected.
        ValueError: the instance is not saved.
    """
    link = Link(instance, using)
    link.wait(timeout)
    return _sfid(link, timeout)


async def await_linked(instance: Model, timeout: float | None = 60.0, using: str | None = None) -> str:
    """Do :func:`wait_linked` for a task of asyncio, which may be cancelled."""
    link = Link(instance, using)
    await link.wait_async(timeout)
    return _sfid(link, timeout)


def _sfid(link: Link, timeout: float | None) -> str:
    if link.state is LinkState.PENDING:
        raise TimeoutError(f"{link} has no sfid after {timeout:g} s: Salesforce has not answered.")
    if link.sfid is None:
        raise NotLinkedError(link)
    return link.sfid
