"""Sends one event to its receivers, one by one."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.dispatch import Signal

from hc_signals.delivery.calls import UNWANTED, Call, IsolationLost, NotSettled, StoreFailure
from hc_signals.delivery.fatal_calls import Marks
from hc_signals.delivery.identity import Receivers
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
        seconds: list[float] = []
        if self.heard is not None:
            self.heard.add(bulk or (change,), receivers, seconds, attempt, in_bulk=bool(bulk), is_replay=is_replay)
            store_failure = _noted(self.heard, seconds, store_failure)
        about = change, attempt, record, store_failure
        is_wary = self.marks is not None or careful.has_learned()
        call = self._call_warily if is_wary else self._call
        try:
            failures = call(receivers, about, signal, named, seconds)
        finally:
            self._calls.pause()
        for name, error in failures:
            store_failure(name, error)

    @cached_property
    def _calls(self) -> "CallsInTransaction | CallsOutside":
        return calls_of(self.isolation)

    def _call_warily(
        self, receivers: Receivers, about: About, signal: Signal, named: dict[str, Any], seconds: list[float]
    ) -> list[tuple[str, BaseException]]:
        """Do what :meth:`_call` does; ask before each call whether it may be made."""
        failures: list[tuple[str, BaseException]] = []
        for receiver in receivers:
            self._calls.pause()
            call = Call(receiver.name, *about)
            error = careful.refusal(call) or (self.marks.begin(call) if self.marks is not None else None)
            if error is None:
                taken: list[float] = []
                failures += self._call([receiver], about, signal, named, taken)
                seconds += taken
            else:
                failures.append((receiver.name, error))
                seconds.append(0.0)
        return failures

    def _call(  # noqa: PLR0912  (a function for a branch would cost each call a tenth of its time)
        self, receivers: Receivers, about: About, signal: Signal, named: dict[str, Any], seconds: list[float]
    ) -> list[tuple[str, BaseException]]:
        """Call the receivers; append the seconds of each call; return the names of those that failed, with errors.

        As long as receivers leave nothing, a round of the loop makes three calls: the receiver, the check, the clock.
        """
        calls, isolation, pulse, using = self._calls, self.isolation, self.pulse, self.isolation.using
        every = {**named, "signal": signal, "using": using}
        is_usual = len(named) == 3 and "event" in named  # sender, instance, event
        sender, instance, event = (named["sender"], named["instance"], named["event"]) if is_usual else (None,) * 3
        failures: list[tuple[str, BaseException]] = []
        began = time.monotonic()
        try:
            for receiver in receivers:
                name, error = receiver.name, None
                # Set `receiver` last: a thread that reads it relies on `receiver_at`.
                pulse.receiver_at, pulse.receiver = began, name
                for observer in pulse.observers_of_calls:
                    observer.call_begins(name, signal, every)
                # A receiver may raise anything, also what is meant to end a program. Only Ctrl-C may end this one.
                try:
                    if not calls.is_open:
                        calls.begin(name)
                    call = receiver.call
                    if is_usual:  # written out, the arguments take half the time of a dict
                        result = call(signal=signal, sender=sender, instance=instance, event=event, using=using)
                    else:
                        result = call(**every)
                    if result is not None and result is not UNWANTED:
                        complete(result)
                except BaseException as raised:
                    error = raised
                is_checked = error is not None or not calls.has_left_nothing()
                if is_checked:
                    error = calls.end(name, about, error)
                ended = time.monotonic()
                seconds.append(ended - began)
                is_checked |= ended - began > LONG
                began = ended
                for observer in pulse.observers_of_calls:
                    observer.call_ends(name, None if isinstance(error, NotSettled) else error)
                if error is not None:
                    failures.append((name, error))
                    if isinstance(error, IsolationLost) or ends_program(error):
                        raise error
                if is_checked:
                    isolation.check_late_alarm()
                    isolation.store_failed()
                    began = time.monotonic()
        finally:
            failed = [each for each in failures if not isinstance(each[1], NotSettled)] if failures else ()
            pulse.end_calls(receivers, seconds, failed, began)
        return failures


def _noted(heard: Heard, seconds: list[float], store_failure: StoreFailure) -> StoreFailure:
    """Return a function that stores a failure and marks the recorded call as failed; one that is put off is not."""

    def store(receiver: str, error: BaseException) -> None:
        if not isinstance(error, NotSettled):
            heard.fail(receiver, seconds)
        store_failure(receiver, error)

    return store
