"""Sends one event to its receivers, one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.dispatch import Signal

from hc_signals.delivery.calls import UNWANTED, Call, IsolationLost, StoreFailure
from hc_signals.delivery.fatal_calls import Marks
from hc_signals.delivery.identity import Receiver, Receivers
from hc_signals.delivery.isolation import careful
from hc_signals.delivery.isolation.call import About, CallsInTransaction, CallsOutside, calls_of
from hc_signals.delivery.isolation.transaction import Isolation
from hc_signals.delivery.project_code import complete, ends_program
from hc_signals.delivery.pulse import Pulse
from hc_signals.log.heard import Heard

LONG = 0.001
"""Seconds of a call after which an alarm is looked for at once, and not at the end of the page."""


@dataclass(frozen=True)
class Dispatcher:
    """Calls the receivers of one page."""

    isolation: Isolation
    pulse: Pulse
    """Of the calling thread."""
    marks: Marks | None = None
    """Marks each call before it is made, after a process has died; None: no call is marked."""
    heard: Heard | None = None
    """Collects the calls; None: they are not recorded."""

    def send(
        self,
        signal: Signal,
        receivers: Receivers,
        named: dict[str, Any],
        store_failure: StoreFailure,
        *,
        change: int,
        attempt: int = 1,
        record: Any = None,
        bulk: Sequence[int] = (),
        is_replay: bool = False,
    ) -> None:
        """Call the receivers one by one; then store a failure for each that failed, whose writes are rolled back.

        Args:
            named: arguments of the receivers, besides ``signal`` and ``using``.
            store_failure, change, attempt, record: see :class:`~hc_signals.delivery.calls.Call`.
            bulk: ids of all changes, if the call is about several.
            is_replay: whether the change is replayed.

        Raises:
            IsolationLost: everything that the page wrote is lost: see ``Caution.until_isolated``.
        """
        failures = []
        heard, changes, is_bulk = self.heard, bulk or (change,), bool(bulk)
        about = change, attempt, record, store_failure if heard is None else _noted(heard, changes, store_failure)
        named = {**named, "signal": signal, "using": self.isolation.using}
        pulse = self.pulse
        try:
            for receiver in receivers:
                error = self._refusal(receiver, about) if careful.any_broken() or self.marks is not None else None
                seconds = 0.0
                if error is None:
                    error = self._call(receiver, about, signal, named)
                    seconds = pulse.turned_at - pulse.receiver_at
                    if seconds > LONG:
                        self.isolation.check_late_alarm()
                if heard is not None:
                    heard.add(changes, (receiver.name, is_bulk, is_replay), seconds, attempt)
                if error is not None:
                    failures.append((receiver.name, error))
        finally:
            self._calls.pause()
        for name, error in failures:
            about[3](name, error)

    @cached_property
    def _calls(self) -> "CallsInTransaction | CallsOutside":
        return calls_of(self.isolation)

    def _refusal(self, receiver: Receiver, about: About) -> BaseException | None:
        """Return why the call must not be made, or mark it."""
        call = Call(receiver.name, *about)
        return careful.refusal(call) or (self.marks.begin(call) if self.marks is not None else None)

    def _call(self, receiver: Receiver, about: About, signal: Signal, named: dict[str, Any]) -> BaseException | None:
        """Make one call; return the receiver's error, None if it has none."""
        calls, failed = self._calls, None
        self.pulse.begin_call(receiver.name, signal, named)
        try:
            # A receiver may raise anything, also what is meant to end a program. Only Ctrl-C may end this one.
            try:
                calls.begin(receiver.name, about)
                result = receiver.call(**named)
                if result is not None and result is not UNWANTED:
                    complete(result)
            except BaseException as error:
                failed = error
            failed = calls.end(failed)
            if failed is not None and (isinstance(failed, IsolationLost) or ends_program(failed)):
                raise failed
        finally:
            self.pulse.end_call(receiver.name, failed)
        self.isolation.store_failed()
        return failed


def _noted(heard: Heard, changes: Sequence[int], store_failure: StoreFailure) -> StoreFailure:
    """Return a function that stores a failure and marks the recorded call as failed."""

    def store(receiver: str, error: BaseException) -> None:
        heard.fail(receiver, changes)
        store_failure(receiver, error)

    return store
