"""One shard of the log, as one worker delivers it: claim it, read a page, hand it on, keep failures, advance."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from hc_signals.conf import Conf
from hc_signals.delivery.ahead import Ahead, Batch
from hc_signals.delivery.dispatch import caution, until_isolated
from hc_signals.delivery.failures import Deliveries, Delivery
from hc_signals.delivery.fatal_calls import Marks
from hc_signals.delivery.gaps import gap_changes
from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.isolation import Isolation
from hc_signals.delivery.listeners import Extras, Listeners
from hc_signals.delivery.page import Page
from hc_signals.delivery.pulse import Pulse
from hc_signals.delivery.retrying import redeliver
from hc_signals.delivery.routing import CHANGE_TYPES
from hc_signals.log.change import Change
from hc_signals.log.claims import Claim, Claims
from hc_signals.log.passed import record_passed
from hc_signals.log.position import LogShard, Position

logger = logging.getLogger("hc_signals")

RETRIES_AT_ONCE = 100


class Outcome(Enum):
    """What came of the attempt to deliver a page."""

    MORE = "there may be more in the window"
    DONE = "all that was committed when the window was opened is delivered"
    ELSEWHERE = "another worker has the shard"
    REMOVED = "the consumer has no position any more"
    MOVED = "the server was replaced by another one"


@dataclass(frozen=True)
class Audience:
    """For whom a worker delivers; the same in all its shards."""

    builders: Mapping[str, InstanceBuilder]
    """By the name of the table, as the log has it."""
    extras: Extras
    unknown: set[str] = field(default_factory=set)
    """Tables without a model, as far as told."""


class Shard:
    """One shard of one consumer's log.

    Args:
        log: the shard as the log knows it.
        claims: claim it, page by page.
        conf: the checked setting.
        audience: for whom.
        stopping: set when no further event is to be begun.
        pulse: of the calling thread.
    """

    def __init__(
        self, log: LogShard, claims: Claims, conf: Conf, audience: Audience, *, stopping: threading.Event, pulse: Pulse
    ) -> None:
        self.log, self.claims, self.conf, self.audience, self.stopping = log, claims, conf, audience, stopping
        self.using, self._pulse = log.using, pulse
        self.delivered = 0
        self.finished = 0
        """How many windows were opened and finished by this object."""
        self._opened: str | None = None
        """Target of the last window that was opened."""
        self.unheard = 0
        """Of the delivered changes, those to which no receiver is connected."""
        self.deliveries = Deliveries(log.using, conf, log.shard)
        self.ahead: Ahead | None = None
        """Reads the next page while receivers are at work; None: nobody does."""
        self._limit = conf.BATCH_SIZE
        self._is_quick = True
        """The last page was done before its time was up; else the next one would be read in vain."""
        self.marks: Marks | None = None
        """Until the shard is past what a process that has died was at; else None."""
        self._is_told_of_takeover = self._has_begun = False

    def deliver_page(self) -> Outcome:
        """Deliver one page; receivers' writes and the new position commit together, unless ``ATOMIC`` is False."""
        outcome = until_isolated(self._deliver_page, self.conf.BATCH_SIZE, self._take_small_pages)
        if self.ahead and outcome in (Outcome.ELSEWHERE, Outcome.REMOVED, Outcome.MOVED):
            self.ahead.forget()
        if self.marks and (outcome is Outcome.DONE or self.delivered - self.marks.since >= self.conf.BATCH_SIZE):
            self.marks.end()
            self.marks = None
        return outcome

    def _take_small_pages(self) -> None:
        """After a page was lost: what is delivered again of it is committed change by change, then by a few."""
        self._limit = 1

    def mark_calls(self, dead: int) -> None:
        """Mark each call before it is made, as far as the processes may have come that have died.

        Args:
            dead: how many.
        """
        self.marks = Marks(self.using, self.log.consumer, self.log.shard, dead, self.delivered)

    def _deliver_page(self) -> Outcome:
        page, isolation = self._pulse.page(self.log.consumer, self.log.shard), self._isolation()
        before = self.delivered
        with page, isolation.opened(), self.claims.page(self.log, self._limit, atomic=self.conf.ATOMIC) as claim:
            outcome = self._deliver_claimed(claim, isolation) if claim else Outcome.ELSEWHERE
        caution.delivered(self.delivered - before)
        return outcome

    def _isolation(self) -> Isolation:
        return Isolation(self.using, atomic=self.conf.ATOMIC, is_careful=caution.changes > 0)

    def deliver_claimed(self, claim: Claim) -> Outcome:
        """Deliver one page of the shard, which the caller has claimed in the open transaction."""
        with self._isolation().opened() as isolation:
            return self._deliver_claimed(claim, isolation)

    def _deliver_claimed(self, claim: Claim, isolation: Isolation) -> Outcome:
        standing = claim.standing
        if standing.has_moved:
            return Outcome.MOVED
        if standing.layout is None and self._has_begun:
            return Outcome.REMOVED
        if not self._fits(standing.layout):
            return Outcome.ELSEWHERE
        self._has_begun = True
        was_open = standing.position.target is not None
        position = standing.position if was_open else self._open_window(claim)
        position, has_told = self._tell_gaps(position, standing.lost, isolation)
        if standing.any_due:
            self._retry(claim, isolation)
        batch = self._read(claim, position)
        done = self._deliver(claim, batch, position, standing.any_kept or has_told, isolation)
        has_more = batch.has_more or done < len(batch.changes)
        position, outcome = self._advance(claim, position, batch.changes[:done], has_more)
        is_news = done or has_told or was_open or standing.is_new or standing.is_idle
        isolation.finish(lambda: claim.append(position) if is_news else None)
        self.delivered += done
        self.finished += outcome is Outcome.DONE and position.seen == self._opened
        return outcome

    def _open_window(self, claim: Claim) -> Position:
        position = claim.open_window()
        self._opened = position.target
        return position

    def _read(self, claim: Claim, position: Position) -> Batch:
        """Read a page; where large images cut it short, the next one asks for fewer."""
        batch = self.ahead.take(position) if self.ahead else None
        if batch is None:
            batch = Batch(*claim.page(position, self._limit), self._limit, {})
        was_cut = batch.has_more and len(batch.changes) < batch.limit
        self._limit = 2 * len(batch.changes) if was_cut else min(4 * batch.limit, self.conf.BATCH_SIZE)
        return batch

    def _advance(
        self, claim: Claim, position: Position, done: list[Change], has_more: bool
    ) -> tuple[Position, Outcome]:
        if has_more:
            return (replace(position, last_id=done[-1].id) if done else position), Outcome.MORE
        return claim.close_window(position), Outcome.DONE

    def _fits(self, layout: int | None) -> bool:
        """Tell whether the consumer's records are split as we think; if not, somebody with other settings took over."""
        if layout in (None, self.log.shards):
            return True
        if not self._is_told_of_takeover:
            self._is_told_of_takeover = True
            logger.warning(
                "Another worker of consumer %r has taken over with SHARDS = %s; this one has %s and delivers nothing "
                "until it is restarted with the same number.",
                self.log.consumer,
                layout,
                self.log.shards,
            )
        return False

    def _deliver(self, claim: Claim, batch: Batch, position: Position, any_kept: bool, isolation: Isolation) -> int:
        """Hand changes to receivers until the time is up or a stop was asked for; return how many were done."""
        changes = batch.changes
        deadline = time.monotonic() + self.conf.MAX_TRANSACTION_SECONDS
        self._tell_unknown(changes)
        listeners = Listeners(self.audience.extras)
        # Before the values of this page are made: that takes about as long as the server takes for the next one.
        if self.ahead and batch.has_more and changes and self._is_quick:
            self.ahead.go_on(replace(position, last_id=changes[-1].id), self._limit, listeners, self.conf.CONSUMER)
        page = Page(
            self.log,
            self.deliveries,
            changes,
            self.audience.builders,
            listeners,
            isolation=isolation,
            pulse=self._pulse,
            any_kept=any_kept,
            images=batch.images,
            marks=self.marks,
        )
        done, tally = 0, self._pulse.tally
        for change in changes:
            if done and (self.stopping.is_set() or time.monotonic() > deadline):
                break
            claim.confirm()
            if tally is not None:
                tally.delivered.append((change, time.time()))
            page.deliver(change)
            done += 1
            if self.ahead and done % 50 == 0:
                self.ahead.receive()
        claim.confirm()
        page.deliver_bulk()
        claim.confirm()
        self._count_unheard(changes[:done], page.unheard | self.audience.unknown)
        self._is_quick = done == len(changes)
        if not self._is_quick:  # the next page need not be much longer than what there is time for
            self._limit = 2 * done
        return done

    def _count_unheard(self, done: list[Change], tables: set[str]) -> None:
        if tables:
            self.unheard += sum(change.table_name in tables and change.operation in CHANGE_TYPES for change in done)
            if (tally := self._pulse.tally) is not None:
                tally.unheard = tables

    def _tell_unknown(self, changes: list[Change]) -> None:
        tables = {change.table_name for change in changes} - self.audience.builders.keys()
        if tables:
            record_passed(self.using, self.conf.CONSUMER, [c for c in changes if c.table_name in tables])
        for table in tables - self.audience.unknown:
            self.audience.unknown.add(table)
            logger.warning("No connected model for table %s: its changes are passed over.", table)

    def _retry(self, claim: Claim, isolation: Isolation) -> None:
        """Try the deliveries again whose time has come, until the time of the page is up."""
        deadline = time.monotonic() + self.conf.MAX_TRANSACTION_SECONDS
        listeners = Listeners(self.audience.extras)
        # Several at once: those that are done stay in the way of the look for the next ones until they are vacuumed.
        # One at a time where no transaction keeps them from being discarded meanwhile.
        limit = RETRIES_AT_ONCE if self.conf.ATOMIC else 1
        while due := self.deliveries.due(limit):
            for delivery in due:
                if self.stopping.is_set() or time.monotonic() > deadline:
                    return
                claim.confirm()
                self._redeliver(delivery, listeners, isolation)

    def _redeliver(self, delivery: Delivery, listeners: Listeners, isolation: Isolation) -> None:
        error = redeliver(
            delivery,
            self.log,
            self.audience.builders,
            listeners,
            isolation=isolation,
            pulse=self._pulse,
            marks=self.marks,
        )
        if error is None:
            self.deliveries.succeeded(delivery)
        else:
            self.deliveries.failed(delivery, error)

    def _tell_gaps(self, position: Position, lost: int, isolation: Isolation) -> tuple[Position, bool]:
        """Tell what the position says and what was not captured; the first shard does it for all."""
        if self.log.shard != 0:
            return replace(position, lost=lost), False
        gaps = [] if position.gap is None else [position.gap]
        if lost > position.lost:
            logger.error("A change could not be written to the log; gap_detected is sent for every connected model.")
            gaps.insert(0, {"cause": "capture_failed"})
        for gap in gaps:
            self._tell_gap(gap, isolation)
        return replace(position, lost=lost, gap=None), bool(gaps)

    def _tell_gap(self, gap: Mapping[str, Any], isolation: Isolation) -> None:
        """Send a gap for every model: which tables are concerned is not known."""
        if (tally := self._pulse.tally) is not None:
            tally.gaps.append(gap["cause"])
        builders, listeners = self.audience.builders, Listeners(self.audience.extras)
        changes = gap_changes(self.log.using, builders, gap)
        # None waits behind an earlier one: that would be for the table's own shard to decide.
        page = Page(
            self.log,
            self.deliveries,
            changes,
            builders,
            listeners,
            isolation=isolation,
            pulse=self._pulse,
            any_kept=False,
            marks=self.marks,
        )
        for change in changes:
            page.deliver(change)
