"""Delivers changes inside a test: what hc_listen does, at once and in the test's own process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, NoReturn

from django.conf import settings
from django.db import connections
from django.test import override_settings

from hc_signals.conf import Conf, get_conf
from hc_signals.delivery.failures import Deliveries, Delivery
from hc_signals.events import Change
from hc_signals.exceptions import ConfigurationError
from hc_signals.log.changelog import ChangeLog
from hc_signals.log.position import Position, Standing
from hc_signals.log.restoring import moved, take_over
from hc_signals.log.rows import CHANGE_COLUMNS, SHARD
from hc_signals.postgres import wrappers
from hc_signals.testing.databases import played_databases
from hc_signals.worker.loop import Worker

calls = 0
"""Number of calls of :func:`deliver_changes`. Without one, an assertion that nothing is sent proves nothing."""


def deliver_changes(using: str = "default", *, raise_errors: bool = True, **conf: Any) -> int:
    """Deliver all changes that were captured so far to the connected receivers.

    Args:
        using: database alias. Inside a transaction (``TestCase``, ``db``) it delivers the transaction's own changes
            too. All that it writes is rolled back with the transaction.
        raise_errors: raise the error of a receiver, and leave undelivered changes for the next call. False: store the
            failure for a retry, as hc_listen does.
        conf: keys of ``HC_SIGNALS`` for this call.

    Returns:
        the number of delivered changes.

    Raises:
        ConfigurationError: an unknown key or a wrong value, or a database without a change log.
    """
    if not played_databases([using]):
        raise ConfigurationError(
            f"The database {using!r} has no change log: the routers do not migrate hc_signals there, or it is not "
            "PostgreSQL. Deliver on the alias where Heroku Connect's tables are, or let DATABASE_ROUTERS allow it."
        )
    global calls  # noqa: PLW0603 - one per process, as receivers are
    calls += 1
    with override_settings(HC_SIGNALS={**getattr(settings, "HC_SIGNALS", {}), **conf}):
        checked = get_conf()
    with wrappers.set_aside(using):
        return _deliver(using, checked, raise_errors=raise_errors)


def _deliver(using: str, checked: Conf, *, raise_errors: bool) -> int:
    if moved(using):  # a copy of the test database, made for a parallel run
        take_over(using)
    worker = Worker(using, checked)
    for shard in worker.shards:
        if connections[using].in_atomic_block:
            shard.log = OpenTransactionLog(using, checked.CONSUMER, shard.log.shard, checked.SHARDS, worker.claims)
        if raise_errors:
            shard.deliveries = RaisingDeliveries(using, checked, shard.log.shard)
        if shard.log.standing().is_new:
            shard.log.append(Position())  # the whole log, whatever the project has chosen for a new consumer
    worker.deliver_once(ahead=False)  # another connection would not see what an open transaction has written
    return worker.delivered


_PAGE = f"""
SELECT id, {CHANGE_COLUMNS} FROM public.hc_signals_change
WHERE id > %(after)s AND NOT pg_visible_in_snapshot(xid, %(seen)s::pg_snapshot) {SHARD}
ORDER BY id LIMIT %(limit)s
"""


class OpenTransactionLog(ChangeLog):
    """The log as the open transaction of a test sees it, with its own changes, which no snapshot ever shows.

    Nobody else writes meanwhile, so ids are enough here: everything up to ``floor_id`` is done.
    """

    @contextmanager
    def claimed(self, limit: int, *, atomic: bool) -> Iterator[bool]:
        """Claim the shard; without a transaction for each page until the test's own one ends."""
        if atomic:
            with super().claimed(limit, atomic=True) as is_claimed:
                yield is_claimed
        else:
            yield self.claim()

    def open_window(self, standing: Standing) -> Position:
        """Begin behind what is done; the target says only that a window is open."""
        position = standing.position
        return replace(position, target=position.seen, last_id=position.floor_id)

    def page(self, position: Position, limit: int) -> tuple[list[Change], bool]:
        """Return up to ``limit`` changes, in order, and whether there may be more."""
        params = {"after": position.last_id, "seen": position.seen, "limit": limit}
        params |= {"shard": self.shard, "shards": self.shards}
        with connections[self.using].cursor() as cursor:
            cursor.execute(_PAGE, params)
            changes = [Change(*row) for row in cursor.fetchall()]
        self._read_up_to = changes[-1].id if changes else position.last_id
        return changes, len(changes) == limit

    def close_window(self, position: Position) -> Position:
        """All that was read is done."""
        floor_id = self._read_up_to or 0
        kept = {each.name: getattr(position, each.name) for each in fields(Position) if each.name in ("lost", "gap")}
        return Position(seen=position.seen, floor_xid=position.floor_xid, floor_id=floor_id, **kept)


class RaisingDeliveries(Deliveries):
    """Keeps nothing: what a receiver raised comes out of the test."""

    def keep(self, change: Change, receiver: str, signal: str, sender: str, error: BaseException) -> NoReturn:
        """Raise the error, with a note of whose it is."""
        error.add_note(
            f"Receiver {receiver} raised this on {signal} of {sender}, record {change.record}. "
            "deliver_changes(raise_errors=False) keeps it for a retry, as hc_listen does."
        )
        raise error

    def failed(self, delivery: Delivery, error: BaseException) -> NoReturn:
        """Raise what a retry failed on."""
        self.keep(delivery.change, delivery.receiver, delivery.signal, delivery.sender, error)
