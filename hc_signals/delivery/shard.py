"""One shard of the log, as one worker delivers it. :meth:`Shard.deliver_page` is the way of a change through it."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from django.db import DatabaseError

from hc_signals.conf import Conf
from hc_signals.delivery.ahead import Ahead, Batch
from hc_signals.delivery.dispatch import Dispatcher
from hc_signals.delivery.failures import FailureStore
from hc_signals.delivery.fatal_calls import Marks
from hc_signals.delivery.gaps import gap_changes
from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.isolation.careful import Caution
from hc_signals.delivery.isolation.transaction import Isolation, room
from hc_signals.delivery.listeners import Extras, Listeners
from hc_signals.delivery.page import Page
from hc_signals.delivery.pulse import Pulse
from hc_signals.delivery.retrying import Retries
from hc_signals.delivery.routing import OF_RECORDS
from hc_signals.delivery.sending import SignalSender
from hc_signals.log.change import Change
from hc_signals.log.claims import Claim, Claims
from hc_signals.log.heard import Heard, append_calls, may_append
from hc_signals.log.passed import record_passed
from hc_signals.log.position import LogShard, Position, Standing
from hc_signals.log.schema import Cause

logger = logging.getLogger("hc_signals")

TIMED = 100
"""Changes per page whose latency is taken, evenly spread; of a page of fewer than twice as many, all."""


class Outcome(Enum):
    """The result of an attempt to deliver a page."""

    MORE = "the window may have more changes"
    DONE = "every change that was committed when the window was opened is delivered"
    ELSEWHERE = "another worker has the shard"
    REMOVED = "the consumer has no position any more"
    MOVED = "the database is on another server now"


@dataclass(frozen=True)
class Audience:
    """What the shards of one worker share."""

    builders: Mapping[str, InstanceBuilder]
    """By table, as the log names it."""
    extras: Extras
    caution: Caution = field(default_factory=Caution)
    unknown: set[str] = field(default_factory=set)
    """Tables without a model that are logged already."""


class Shard:
    """One shard of one consumer's log, in one thread. When ``stopping`` is set, it delivers no further change."""

    def __init__(
        self, log: LogShard, claims: Claims, conf: Conf, audience: Audience, *, stopping: threading.Event, pulse: Pulse
    ) -> None:
        self.log, self.claims, self.conf, self.audience, self.stopping = log, claims, conf, audience, stopping
        self._pulse = pulse
        self.delivered = self.unheard = 0
        """How many changes were delivered, and how many of them had no receiver."""
        self.finished = 0
        """How many windows were opened and finished by this object."""
        self._opened: str | None = None
        """Target of the last window that was opened."""
        self.store = FailureStore(log.using, conf, log.shard)
        self.ahead: Ahead | None = None
        """Reads the next page while receivers run; None: it is read when its turn comes."""
        self._limit = conf.BATCH_SIZE
        """Most changes of the next page."""
        self._room = conf.BATCH_SIZE
        """Most changes of any page, as receivers have written lately."""
        self._is_quick = True
        """False if the last page ran out of time; reading ahead is then wasted."""
        self._marks: Marks | None = None
        """Marks calls until the shard is past the calls of a process that died; else None."""
        self._has_warned = self._has_begun = False
        self._may_record: bool | None = None if conf.RECORD_CALLS else False
        """Whether calls can be recorded; None: not known, at the start and after an error."""

    def deliver_page(self) -> Outcome:
        """Deliver one page: claim the shard, send changes to receivers, append the new position, commit.

        Receivers' writes and the new position commit together, unless ``ATOMIC`` is False. If a receiver breaks the
        page's transaction, the page is delivered again, carefully and in small parts.
        """
        caution = self.audience.caution
        outcome = caution.until_isolated(self._claim_and_deliver, self.conf.BATCH_SIZE, self._take_small_pages)
        if self.ahead and outcome in (Outcome.ELSEWHERE, Outcome.REMOVED, Outcome.MOVED):
            self.ahead.forget()
        if self._marks and (outcome is Outcome.DONE or self.delivered - self._marks.since >= self.conf.BATCH_SIZE):
            self._marks.end()
            self._marks = None
        return outcome

    def _claim_and_deliver(self) -> Outcome:
        page, isolation = self._pulse.page(self.log.consumer, self.log.shard), self._isolation()
        before = self.delivered
        try:
            with page, isolation.opened(), self.claims.page(self.log, self._limit, atomic=self.conf.ATOMIC) as claim:
                outcome = self._deliver_claimed(claim, isolation) if claim else Outcome.ELSEWHERE
        except DatabaseError:
            if self._may_record:  # the table may be gone: a downgrade does not stop the worker
                self._may_record = None
            raise
        self.audience.caution.note_committed(self.delivered - before)
        return outcome

    def _may_record_calls(self) -> bool:
        if self._may_record is None:
            self._may_record = may_append(self.log.using)
            if not self._may_record:
                logger.warning(
                    "The calls of receivers are not recorded: the table hc_signals_heard is missing, or the role may "
                    "not append to it. Run `manage.py migrate hc_signals`, or grant the rights of docs/security.md; "
                    "then restart the worker."
                )
        return self._may_record

    def _deliver_claimed(self, claim: Claim, isolation: Isolation) -> Outcome:
        standing = claim.standing
        if refusal := self._refusal(standing):
            return refusal
        heard = Heard(self.log.using, self.log.consumer, self.log.shard)
        dispatcher = Dispatcher(isolation, self._pulse, self._marks, heard if self._may_record_calls() else None)
        self._has_begun = True
        # Fix what is to be delivered: before anything is written, see Claim.open_window.
        was_open = standing.position.target is not None
        position = standing.position if was_open else claim.open_window()
        if not was_open:
            self._opened = position.target
        # Older things first: gaps that are still to be reported, deliveries that are due again.
        position, has_gaps = self._report_gaps(claim, position, standing.lost, dispatcher)
        has_more_due = standing.any_due and self._retry_due(claim, dispatcher)
        # The page itself. `done` is less than its length if the time is up, or the worker is stopping.
        batch = self._read(claim, position)
        done = self._deliver(claim, batch, position, standing.any_kept or has_gaps, dispatcher)
        # The new position is the transaction's last statement.
        has_more = has_more_due or batch.has_more or done < len(batch.changes)
        position, outcome = self._advance(claim, position, batch.changes[:done], has_more)
        is_news = done or has_gaps or was_open or standing.is_new or standing.is_idle
        isolation.finish(lambda: claim.append(position, heard) if is_news else append_calls(heard))
        self.delivered += done
        self.finished += outcome is Outcome.DONE and position.seen == self._opened
        return outcome

    def deliver_claimed(self, claim: Claim) -> Outcome:
        """Deliver one page of the shard, which the caller has claimed in the open transaction."""
        with self._isolation().opened() as isolation:
            return self._deliver_claimed(claim, isolation)

    def mark_calls(self, dead: int) -> None:
        """Mark each call before it is made, until the shard is past the calls in which ``dead`` processes have died."""
        self._marks = Marks(self.log, dead, self.delivered)

    def _take_small_pages(self) -> None:
        """Commit the changes of a lost page one by one, then by a few."""
        self._limit = 1

    def _isolation(self) -> Isolation:
        return Isolation(self.log.using, atomic=self.conf.ATOMIC, is_careful=self.audience.caution.is_careful)

    def _refusal(self, standing: Standing) -> Outcome | None:
        """Return why the claimed shard must not be delivered by this worker; None as a rule."""
        if standing.has_moved:
            return Outcome.MOVED
        if standing.layout is None:
            return Outcome.REMOVED if self._has_begun else None
        if standing.layout == self.log.shards:
            return None
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "Another worker of consumer %r has taken over with SHARDS = %s; this one has %s and delivers nothing "
                "until it is restarted with the same number.",
                self.log.consumer,
                standing.layout,
                self.log.shards,
            )
        return Outcome.ELSEWHERE

    def _read(self, claim: Claim, position: Position) -> Batch:
        """Read a page; if large images cut it short, the next one asks for fewer changes."""
        batch = self.ahead.take(position) if self.ahead else None
        if batch is None:
            batch = Batch(*claim.page(position, self._limit), self._limit, {})
        was_cut = batch.has_more and len(batch.changes) < batch.limit
        self._limit = min(2 * len(batch.changes) if was_cut else 4 * batch.limit, self._room)
        return batch

    def _advance(
        self, claim: Claim, position: Position, done: list[Change], has_more: bool
    ) -> tuple[Position, Outcome]:
        if has_more:
            return (replace(position, last_id=done[-1].id) if done else position), Outcome.MORE
        return claim.close_window(position), Outcome.DONE

    def _deliver(
        self, claim: Claim, batch: Batch, position: Position, any_waiting: bool, dispatcher: Dispatcher
    ) -> int:
        """Send changes to receivers until the time is up or the worker is stopping; return how many were sent."""
        changes = batch.changes
        deadline = time.monotonic() + self.conf.MAX_TRANSACTION_SECONDS
        self._skip_unknown(changes)
        sender, isolation = self._sender(dispatcher), dispatcher.isolation
        # Before this page's values are made: that takes about as long as the server takes to read the next page.
        if self.ahead and batch.has_more and changes and self._is_quick:
            after = replace(position, last_id=changes[-1].id)
            self.ahead.go_on(after, self._limit, sender.listeners, self.conf.CONSUMER)
        if any_waiting:
            sender.block(changes)
        page = Page(sender, changes, self.audience.builders, batch.images)
        done, before, tally = 0, isolation.subtransactions, self._pulse.tally
        step = max(1, len(changes) // TIMED)
        for change in changes:
            if done and ((now := time.monotonic()) > deadline or self.stopping.is_set() or isolation.is_full):
                break
            if not done or now > claim.confirm_at:
                claim.confirm()
            if tally is not None and not done % step:
                tally.begun_at.append(time.time())
            page.deliver(change)
            done += 1
            if self.ahead and done % 50 == 0:
                self.ahead.receive()
        claim.confirm()
        page.deliver_bulk()
        claim.confirm()
        if tally is not None:
            tally.delivered, tally.step = changes[:done], step
        self._count_unheard(changes[:done], page.unheard | self.audience.unknown)
        self._is_quick = done == len(changes)
        self._room = room(done, isolation.subtransactions - before, self.conf.BATCH_SIZE)
        if not self._is_quick:  # the next page need not be much longer than this one could be
            self._limit = min(2 * done, self._room)
        return done

    def _sender(self, dispatcher: Dispatcher) -> SignalSender:
        return SignalSender(self.store, Listeners(self.audience.extras), dispatcher)

    def _count_unheard(self, done: list[Change], tables: set[str]) -> None:
        if tables:
            self.unheard += sum(change.table_name in tables and change.operation in OF_RECORDS for change in done)
            if (tally := self._pulse.tally) is not None:
                tally.unheard = tables

    def _skip_unknown(self, changes: list[Change]) -> None:
        """Note the changes of tables that have no model: a gap is reported when the model is back."""
        tables = {change.table_name for change in changes} - self.audience.builders.keys()
        if tables:
            record_passed(self.log.using, self.conf.CONSUMER, [c for c in changes if c.table_name in tables])
        for table in tables - self.audience.unknown:
            self.audience.unknown.add(table)
            logger.warning("No connected model for table %s: its changes are skipped.", table)

    def _retry_due(self, claim: Claim, dispatcher: Dispatcher) -> bool:
        """Retry due deliveries until the time of a page is up, or the receivers have written in many calls.

        Returns:
            whether the next page should go on with them at once.
        """
        deadline = time.monotonic() + self.conf.MAX_TRANSACTION_SECONDS

        def may_continue() -> bool:
            if self.stopping.is_set() or time.monotonic() > deadline or dispatcher.isolation.is_half_full:
                return False
            claim.confirm()
            return True

        Retries(self._sender(dispatcher), self.audience.builders).run(may_continue)
        return dispatcher.isolation.is_half_full

    def _report_gaps(
        self, claim: Claim, position: Position, lost: int, dispatcher: Dispatcher
    ) -> tuple[Position, bool]:
        """Report the position's gap, and one for lost statements. The first shard reports for all."""
        if self.log.shard != 0:
            return replace(position, lost=lost), False
        gaps = [] if position.gap is None else [position.gap]
        if lost > position.lost:
            logger.error("A change could not be written to the log; gap_detected is sent for every connected model.")
            failed = {"cause": Cause.CAPTURE_FAILED}
            gaps.insert(0, failed)
            if position.gap is None:
                claim.append(replace(position, gap=failed))  # for hc_status
        for gap in gaps:
            self._report_gap(gap, dispatcher)
        return replace(position, lost=lost, gap=None), bool(gaps)

    def _report_gap(self, gap: Mapping[str, Any], dispatcher: Dispatcher) -> None:
        """Send a gap for every model: nothing says which tables it concerns."""
        if (tally := self._pulse.tally) is not None:
            tally.gaps.append(gap["cause"])
        changes = gap_changes(self.log.using, self.audience.builders, gap)
        # No gap is parked behind an earlier one: only the table's own shard may decide that.
        page = Page(self._sender(dispatcher), changes, self.audience.builders)
        for change in changes:
            page.deliver(change)
