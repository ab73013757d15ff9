"""Past changes of the log once more, in order, to chosen receivers; no position moves.

What is replayed is fixed by a snapshot at the start: what is visible in it, from the first to the last change asked
for. Each page is one transaction, unless ``ATOMIC`` is False. The order of a record's changes holds inside the replay
only: a running worker goes on, and a receiver may hear of a new change between two replayed old ones.
"""

from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

from django.db import OperationalError, connections, models, transaction

from hc_signals.conf import Conf
from hc_signals.delivery.dispatch import caution, until_isolated
from hc_signals.delivery.failures import Deliveries
from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.isolation import Isolation
from hc_signals.delivery.listeners import APPLY_ON_DELETE, Extras, Listeners
from hc_signals.delivery.page import Page
from hc_signals.delivery.pulse import Pulse
from hc_signals.exceptions import ReplayError
from hc_signals.log.change import Change
from hc_signals.log.claims import lock_all
from hc_signals.log.images import stored_images
from hc_signals.log.position import LogShard
from hc_signals.log.positions import read_standing
from hc_signals.log.restoring import WORDS, moved
from hc_signals.log.rows import CHANGE_COLUMNS, IMAGE_BYTES, cut_page
from hc_signals.log.schema import buckets_between
from hc_signals.postgres.dates import clamp_dates
from hc_signals.postgres.errors import is_deadlock
from hc_signals.postgres.moments import aware_row, shown
from hc_signals.tables import connected_models, table_label

_START = """
SELECT epoch, emptied_id, emptied_at, pg_current_snapshot()::text, clock_timestamp(),
    (SELECT last_value FROM public.hc_signals_change_id_seq),
    (SELECT json_build_array(id, captured_at) FROM public.hc_signals_change ORDER BY id LIMIT 1)
FROM public.hc_signals_control
"""
_CHOSEN = """
FROM public.hc_signals_change
WHERE id > %(after)s AND id <= %(last)s AND pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
  AND captured_at BETWEEN coalesce(%(since)s, '-infinity'::timestamptz) AND coalesce(%(until)s, 'infinity'::timestamptz)
  AND bucket = ANY (%(buckets)s) AND table_name = ANY (%(tables)s)
"""
_COUNT = f"SELECT count(*) FROM (SELECT 1 {_CHOSEN} LIMIT %(limit)s) counted"
_PAGE = f"SELECT {IMAGE_BYTES}, id, {CHANGE_COLUMNS} {_CHOSEN} ORDER BY id LIMIT %(limit)s"

Bound = datetime | str | None
"""The first or last change asked for: a time, or a replay id."""


@dataclass(frozen=True)
class _Log:
    """The log at the start of a replay."""

    epoch: str
    emptied_id: int
    emptied_at: datetime | None
    snapshot: str
    now: datetime
    last_id: int
    oldest: list[Any] | None

    def id_of(self, replay_id: str) -> int:
        epoch, _, number = replay_id.partition("-")
        if epoch != self.epoch:
            raise ReplayError(f"{replay_id} is of another database, or from before a restore or failover of this one.")
        if int(number) > self.last_id:
            raise ReplayError(f"{replay_id} is ahead of the log, which ends at {self.replay_id(self.last_id)}.")
        return int(number)

    def replay_id(self, number: int) -> str:
        return f"{self.epoch}-{number:015d}"

    def refuse_emptied(self) -> None:
        reach = "it is empty"
        if self.oldest is not None:
            number, captured_at = self.oldest[0], datetime.fromisoformat(self.oldest[1])
            reach = f"it reaches back to {self.replay_id(number)}, captured {shown(captured_at)}"
        raise ReplayError(f"The log no longer holds all of these changes: {reach}.")


class Replay:
    """One replay, page by page.

    Args:
        using: database alias.
        conf: the checked setting.
        models: whose changes are replayed.
        receivers: who gets them, by name; default: all. The rules of APPLY_ON_DELETE are a receiver too, which
            is called only if it is named: a record deleted then may be back.
    """

    ATTEMPTS = 3
    """A page that PostgreSQL ends because of a deadlock with the worker is tried so often."""

    def __init__(
        self, using: str, conf: Conf, models: Iterable[type[models.Model]], receivers: Collection[str] | None = None
    ) -> None:
        self.using, self.conf, self.models = using, conf, list(models)
        self.finished = False
        self._extras = Extras.of(conf, connected_models())
        known = self.known_receivers()
        self.receivers = frozenset(receivers or known - {APPLY_ON_DELETE})
        self._builders = {table_label(model): InstanceBuilder(model, using) for model in self.models}
        self._log = LogShard(using, conf.CONSUMER)
        self._limit = conf.BATCH_SIZE

    def known_receivers(self) -> set[str]:
        """Return the names of those who listen to the chosen models."""
        listeners = Listeners(self._extras)
        return {name for model in self.models for name in listeners.names(model)}

    def start(self, first: Bound, last: Bound = None, *, limit: int) -> int:
        """Fix which changes are replayed; return how many there are, counted up to ``limit`` + 1.

        Raises:
            ReplayError: a bound is of another database or outside of the log; nothing was done.
        """
        if cause := moved(self.using):
            raise ReplayError(f"{WORDS[cause]}; let `hc_listen --once` take it over.")
        with connections[self.using].cursor() as cursor:
            cursor.execute(_START)
            log = self._at_start = _Log(*aware_row(cursor.fetchone()))
        clamp_dates(connections[self.using].connection)
        since = first if isinstance(first, datetime) else None
        until = last if isinstance(last, datetime) else None
        self._after = log.id_of(first) - 1 if isinstance(first, str) else 0
        self._last = log.id_of(last) if isinstance(last, str) else log.last_id
        if (isinstance(first, str) and self._after < log.emptied_id) or (
            since is not None and log.emptied_at is not None and since <= log.emptied_at
        ):
            log.refuse_emptied()
        self._params: dict[str, Any] = {
            "last": self._last,
            "snapshot": log.snapshot,
            "since": since,
            "until": until,
            "buckets": buckets_between(since, log.now),
            "tables": list(self._builders),
        }
        (count,) = self._rows(_COUNT, limit + 1)[0]
        return int(count)

    @property
    def rest(self) -> tuple[str, str]:
        """What is still to do, as first and last replay id."""
        return self._at_start.replay_id(self._after + 1), self._at_start.replay_id(self._last)

    def _rows(self, sql: str, limit: int) -> list[Any]:
        with connections[self.using].cursor() as cursor:
            cursor.execute(sql, {**self._params, "after": self._after, "limit": limit})
            return list(cursor.fetchall())

    def page(self, stopping: Callable[[], bool] = lambda: False) -> int:
        """Send the next page and commit; return how many changes it had, fewer if it was asked to stop.

        Raises:
            ReplayError: the log was emptied meanwhile of changes that were still to come.
        """
        for attempt in range(self.ATTEMPTS):
            try:
                deliveries, done, is_last = until_isolated(
                    lambda: self._send_page(stopping), self.conf.BATCH_SIZE, self._take_small_pages
                )
                break
            except OperationalError as error:
                if not is_deadlock(error) or attempt + 1 == self.ATTEMPTS:
                    raise
        self._after, self.finished = done[-1].id if done else self._after, is_last
        if deliveries.has_claimed:
            # The worker could not have its shard meanwhile, or does not know when the new deliveries are due.
            with connections[self.using].cursor() as cursor:
                cursor.execute("SELECT public.hc_signals_ring()")
        return len(done)

    def _send_page(self, stopping: Callable[[], bool]) -> tuple["_Kept", list[Change], bool]:
        deliveries = _Kept(self.using, self.conf, 0)
        isolation = Isolation(self.using, atomic=self.conf.ATOMIC, is_careful=caution.changes > 0)
        with isolation.opened(), transaction.atomic(using=self.using) if self.conf.ATOMIC else nullcontext():
            done, is_last = self._page(deliveries, stopping, isolation)
            isolation.finish(lambda: None)
        caution.delivered(len(done))
        self._limit = min(4 * self._limit, self.conf.BATCH_SIZE)
        return deliveries, done, is_last

    def _take_small_pages(self) -> None:
        """After a page was lost: what is sent again of it is committed change by change, then by a few."""
        self._limit = 1

    def _page(
        self, deliveries: "_Kept", stopping: Callable[[], bool], isolation: Isolation
    ) -> tuple[list[Change], bool]:
        """Return the changes that were sent, and whether they were the last."""
        changes, has_more = cut_page(self._rows(_PAGE, self._limit), self._limit)
        changes = [_replayed(change) for change in changes]
        deadline = monotonic() + self.conf.MAX_TRANSACTION_SECONDS
        listeners = Listeners(self._extras, self.receivers)
        page = Page(
            self._log,
            deliveries,
            changes,
            self._builders,
            listeners,
            isolation=isolation,
            pulse=Pulse(),
            any_kept=deliveries.any_kept(),
        )
        if not self.conf.ATOMIC:  # no lock keeps them in the log until a delivery that fails is kept
            deliveries.images = stored_images(self.using, [change.id for change in changes])
        self._refuse_loss()  # after the page was read: what was emptied before shows now
        done = 0
        for change in changes:
            if done and (stopping() or monotonic() > deadline):
                break
            page.deliver(change)
            done += 1
        page.deliver_bulk()
        return changes[:done], done == len(changes) and not has_more

    def _refuse_loss(self) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute("SELECT emptied_id FROM public.hc_signals_control")
            (emptied_id,) = cursor.fetchone()
        if emptied_id > max(self._after, self._at_start.emptied_id):
            first = self._at_start.replay_id(emptied_id + 1)
            raise ReplayError(
                f"Changes from {self.rest[0]} on were emptied from the log while they were replayed; what is left of "
                f"them begins at {first}."
            )


def _replayed(change: Change) -> Change:
    """Return the change with a note that a kept delivery keeps as well: its retries are replayed too."""
    return change._replace(note={**(change.note or {}), "replayed": True})


class _Kept(Deliveries):
    """Deliveries that are kept outside of the worker's claim of the shard.

    Only under that claim it is certain which deliveries of a record wait: between the look at the beginning of a page
    and its end the worker may finish the one that another is to be parked behind, and that would then wait for ever; or
    keep one itself, and of two to be retried neither would wait for the other. So the claim is taken when the first
    delivery is to be kept, and there it is looked again. A replay in which nothing fails never claims anything.
    """

    has_claimed = False

    def _insert(self, change: Change, **values: Any) -> None:
        if values["state"] == "dead":
            return super()._insert(change, **values)
        with transaction.atomic(using=self.using, savepoint=False):
            self._claim()
            is_first = (values["receiver"], change.table_name, change.record) not in self.blocked([change])
            if is_first and values["state"] == "parked":
                values |= {"state": "retry", "delay": 0}
            elif not is_first:
                values |= {"state": "parked", "delay": None}
            super()._insert(change, **values)

    def _claim(self) -> None:
        if not (self.has_claimed and self.conf.ATOMIC):  # else it is held to the end of the page
            layout = read_standing(LogShard(self.using, self.conf.CONSUMER)).layout or 1
            lock_all(LogShard.all_of(self.using, self.conf.CONSUMER, max(layout, self.conf.SHARDS)))
            self.has_claimed = True
