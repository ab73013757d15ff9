"""Delivers changes inside a test: what hc_listen does, at once and in the test's own process."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

from django.conf import settings
from django.db import connections, transaction
from django.test import override_settings

from hc_signals.conf import Conf, get_conf
from hc_signals.delivery.calls import NotSettled
from hc_signals.delivery.failures import FailedDelivery, FailureStore
from hc_signals.exceptions import ConfigurationError
from hc_signals.log.change import CHANGE_COLUMNS, SHARD, Change
from hc_signals.log.claims import Claim, Claims, claim_all, claim_with_page
from hc_signals.log.position import LogShard, Position
from hc_signals.log.positions import read_standing
from hc_signals.log.restoring import moved, take_over
from hc_signals.postgres import wrappers
from hc_signals.postgres.query import rows
from hc_signals.testing.databases import played_databases
from hc_signals.worker.loop import Worker

calls = 0
"""Number of calls of :func:`deliver_changes`. Without one, an assertion that nothing is sent proves nothing."""


class DeliverChanges(Protocol):
    """The type of the fixture ``deliver_changes``."""

    def __call__(self, using: str = "default", *, raise_errors: bool = True, **conf: Any) -> int:
        """See :func:`deliver_changes`."""


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
            shard.claims = OpenTransactionClaims()
        if raise_errors:
            shard.store = RaisingStore(using, checked, shard.log.shard)
        if read_standing(shard.log).is_new:
            start_at_once(shard.log)
    worker.deliver_once(ahead=False)  # another connection would not see what an open transaction has written
    return worker.delivered


_PAGE = f"""
SELECT id, {CHANGE_COLUMNS} FROM public.hc_signals_change
WHERE id > %(after)s AND NOT pg_visible_in_snapshot(xid, %(seen)s::pg_snapshot) {SHARD}
ORDER BY id LIMIT %(limit)s
"""


def start_at_once(shard: LogShard) -> None:
    """Give the shard its first position at the beginning of the log, whatever START_AT the project has chosen."""
    with transaction.atomic(using=shard.using):
        for claim in claim_all([shard]):
            claim.append(Position())


class OpenTransactionClaims(Claims):
    """Claims shards inside the open transaction of a test."""

    @contextmanager
    def page(self, shard: LogShard, limit: int, *, atomic: bool) -> Iterator[Claim | None]:
        """Claim the shard; without a transaction for each page until the test's own one ends."""
        with transaction.atomic(using=shard.using) if atomic else nullcontext():
            claim = claim_with_page(shard, limit)
            yield OpenTransactionClaim(shard, claim.standing) if claim else None


class OpenTransactionClaim(Claim):
    """Reads the log as the open transaction of a test sees it, with its own changes, which no snapshot ever shows.

    No other session writes in a test, so ids are enough: all changes up to ``floor_id`` are delivered.
    """

    def open_window(self) -> Position:
        """Begin behind the delivered changes; the target only marks a window as open."""
        position = self.standing.position
        return replace(position, target=position.seen, last_id=position.floor_id)

    def page(self, position: Position, limit: int) -> tuple[list[Change], bool]:
        """Return up to ``limit`` changes, in order, and whether there may be more."""
        params = {"after": position.last_id, "seen": position.seen, "limit": limit}
        params |= {"shard": self.shard.shard, "shards": self.shard.shards}
        changes = [Change(*found) for found in rows(self.shard.using, _PAGE, params)]
        self._read_up_to = changes[-1].id if changes else position.last_id
        return changes, len(changes) == limit

    def close_window(self, position: Position) -> Position:
        """Return the position after all changes that were read."""
        done = Position(seen=position.seen, floor_xid=position.floor_xid, lost=position.lost, gap=position.gap)
        return replace(done, floor_id=self._read_up_to or 0)


class RaisingStore(FailureStore):
    """Stores nothing: the error of a receiver ends the test."""

    def add(self, change: Change, receiver: str, signal: str, sender: str, error: BaseException) -> bool:
        """Raise the error, with a note that names the receiver. One that waits for a settled value is stored."""
        if isinstance(error, NotSettled):
            return super().add(change, receiver, signal, sender, error)
        error.add_note(
            f"Receiver {receiver} raised this on {signal} of {sender}, record {change.record}. "
            "deliver_changes(raise_errors=False) stores it for a retry, as hc_listen does."
        )
        raise error

    def failed(self, delivery: FailedDelivery, error: BaseException) -> None:
        """Raise the error of a retry."""
        self.add(delivery.change, delivery.receiver, delivery.signal, delivery.sender, error)
