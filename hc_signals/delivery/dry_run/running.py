"""Sends past changes to receivers in transactions that are rolled back.

A change has a transaction of its own, so its locks are held for the calls of that change only. Its receivers see each
other's writes; those of the next change do not. ``records_changed`` is sent for a whole page, in one transaction.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, OperationalError, connections, transaction

from hc_signals.delivery.calls import ConnectionLost
from hc_signals.delivery.dry_run.measuring import MeasuringDispatcher
from hc_signals.delivery.dry_run.report import Report
from hc_signals.delivery.failures import FailureStore
from hc_signals.delivery.identity import Receivers
from hc_signals.delivery.isolation.careful import Caution
from hc_signals.delivery.isolation.message import send_alone
from hc_signals.delivery.isolation.transaction import Isolation
from hc_signals.delivery.listeners import Listeners, Model
from hc_signals.delivery.page import BULK, Page
from hc_signals.delivery.pulse import Pulse
from hc_signals.delivery.replay import Replay, ReplayRun
from hc_signals.delivery.routing import route_of
from hc_signals.delivery.sending import SignalSender
from hc_signals.log.change import Change
from hc_signals.log.past import Bound
from hc_signals.postgres.errors import is_lock_timeout, one_line
from hc_signals.postgres.written_rows import counts_writes

ATTEMPTS = 3
"""How many times a change is tried whose receivers wait too long for a lock."""

# In a deadlock with a worker the session whose wait began first gives up, after deadlock_timeout; we give up before.
_GIVE_UP_FIRST = """
SELECT set_config('lock_timeout', greatest(1, (deadlock.setting::int * 8 / 10))::text, true)
FROM pg_settings deadlock, pg_settings own
WHERE deadlock.name = 'deadlock_timeout' AND own.name = 'lock_timeout'
  AND (own.setting::int = 0 OR own.setting::int > deadlock.setting::int * 8 / 10)
"""


class DryRun(ReplayRun):
    """A replay that takes back everything; ``report`` has its figures so far.

    Raises:
        ReplayError: a bound is of another database or outside of the log.
    """

    def __init__(self, replay: Replay, first: Bound, last: Bound = None) -> None:
        super().__init__(replay, first, last)
        self.report = Report({}, counts_writes=counts_writes(self._using))
        for name in replay.receivers:
            self.report.of(name)
        self._others = [alias for alias in connections if alias != self._using and self._can_connect(alias)]

    def _can_connect(self, alias: str) -> bool:
        try:
            connections[alias].ensure_connection()
        except (Error, ImproperlyConfigured) as error:
            self.report.unreachable[alias] = one_line(error) if isinstance(error, Error) else type(error).__name__
            return False
        return True

    def page(self, stopping: Callable[[], bool] = lambda: False) -> int:
        """Send the next page and take it back; return how many changes were sent, fewer if ``stopping`` returns True.

        Raises:
            ReplayError: changes that were still to be sent have been emptied from the log.
        """
        found, has_more = self._past.page(self._after, self._limit)
        changes = [change._replace(note={**(change.note or {}), "replayed": True, "dry_run": True}) for change in found]
        done = 0
        one_by_one = _Signals(self._replay, is_bulk=False)
        for change in changes:
            if done and stopping():
                break
            self._send_and_take_back([change], one_by_one)
            done += 1
        self._send_and_take_back(changes[:done], _Signals(self._replay, is_bulk=True))
        self._past.refuse_loss(self._after)
        self._count(changes[:done])
        self.finished = done == len(changes) and not has_more
        return done

    def _count(self, done: list[Change]) -> None:
        self.report.changes += len(done)
        self.report.by_type.update(route_of(change.operation).change_type for change in done)
        if done:
            self._after = done[-1].id
            self.report.first = self.report.first or done[0].replay_id
            self.report.last = done[-1].replay_id

    def _send_and_take_back(self, changes: list[Change], listeners: Listeners) -> None:
        """Send changes in one transaction and roll it back; try again if a receiver broke it, or waited for a lock."""
        for attempt in range(1, ATTEMPTS + 1):
            trial = self._trial(changes, listeners)
            if attempt == ATTEMPTS or not trial.has_waited_for_lock:
                trial.add_to(self.report)
                return

    def _trial(self, changes: list[Change], listeners: Listeners) -> "Trial":
        while True:
            try:
                return Caution().until_isolated(lambda: Trial(self, changes, listeners), len(changes))
            except OperationalError as error:
                if not isinstance(error.__cause__, ConnectionLost):
                    raise
                connections[self._using].close()  # the call that closes it is refused after a few times

    @contextmanager
    def taking_back(self, isolation: Isolation) -> Iterator[None]:
        """Roll back everything that the block writes, to whichever database, with its ``on_commit`` hooks."""
        with ExitStack() as stack:
            for alias in self._others:
                stack.enter_context(_rolled_back(alias))
            stack.enter_context(isolation.opened())
            stack.enter_context(_rolled_back(self._using))
            send_alone(self._using, _GIVE_UP_FIRST)
            yield


@contextmanager
def _rolled_back(alias: str) -> Iterator[None]:
    with transaction.atomic(using=alias):
        yield
        transaction.set_rollback(True, using=alias)


class Trial(FailureStore):
    """Changes that were sent and taken back. As a store of failures it stores nothing, and remembers them.

    Raises:
        IsolationLost: a receiver has broken the transaction.
    """

    def __init__(self, run: DryRun, changes: list[Change], listeners: Listeners) -> None:
        super().__init__(run._using, run._conf, 0)
        self._failures: list[tuple[Change, str, str, BaseException]] = []
        isolation = Isolation(run._using, is_careful=True)
        self._dispatcher = MeasuringDispatcher(isolation, Pulse(), others=run._others)
        with run.taking_back(isolation):
            page = Page(SignalSender(self, listeners, self._dispatcher), changes, run._builders)
            for change in changes:
                page.deliver(change)
            page.deliver_bulk()

    def add(self, change: Change, receiver: str, signal: str, sender: str, error: BaseException) -> bool:
        """Remember a failed call; later changes of the record do not wait for it."""
        self._failures.append((change, receiver, sender, error))
        return False

    @property
    def has_waited_for_lock(self) -> bool:
        """Whether a receiver waited for a lock until its time was up."""
        return any(is_lock_timeout(error) for _, _, _, error in self._failures)

    def add_to(self, report: Report) -> None:
        """Add the calls to a report."""
        for call in self._dispatcher.measured:
            of = report.of(call.receiver)
            if call.is_wanted:
                of.note_call(asked=call.asked, gets_event=call.gets_event, queries=call.queries, seconds=call.seconds)
                of.note_written(call.written)
            else:
                of.filtered += 1
        for change, receiver, sender, error in self._failures:
            report.of(receiver).note_failure(change, sender, error)


class _Signals(Listeners):
    """The receivers of ``records_changed``, which gets a whole page; or those of all other signals."""

    def __init__(self, replay: Replay, *, is_bulk: bool) -> None:
        super().__init__(replay.extras, replay.receivers)
        self._is_bulk = is_bulk

    def _find(self, signal: str, model: Model, exclusive: bool) -> Receivers:
        return super()._find(signal, model, exclusive) if (signal == BULK) is self._is_bulk else []
