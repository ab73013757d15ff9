"""Sends one event to its receivers, one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.dispatch import Signal

from hc_signals.delivery.calls import Call, IsolationLost, StoreFailure
from hc_signals.delivery.fatal_calls import Marks
from hc_signals.delivery.identity import Receiver, Receivers
from hc_signals.delivery.isolation import careful
from hc_signals.delivery.isolation.call import isolated
from hc_signals.delivery.isolation.transaction import Isolation
from hc_signals.delivery.project_code import ends_program, nothing_left, run
from hc_signals.delivery.pulse import Pulse
from hc_signals.log.heard import Heard


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
        heard, changes = self.heard, bulk or (change,)
        if heard is not None:
            store_failure = _noted(heard, changes, store_failure)
        for receiver in receivers:
            call = Call(receiver.name, change, attempt, record, store_failure)
            error: BaseException | None = careful.refusal(call)
            if error is None and self.marks is not None:
                error = self.marks.begin(call)
            is_refused = error is not None
            if error is None:
                error = self._call(receiver, call, signal, named)
            if heard is not None:
                seconds = 0.0 if is_refused else self.pulse.turned_at - self.pulse.receiver_at
                heard.add(changes, (call.receiver, bool(bulk), is_replay), seconds, attempt)
            if error is not None:
                failures.append((receiver.name, error))
        for name, error in failures:
            store_failure(name, error)

    def _call(self, receiver: Receiver, call: Call, signal: Signal, named: dict[str, Any]) -> BaseException | None:
        """Make one call; return the receiver's error, None if it has none."""
        isolation, failed = self.isolation, None
        self.pulse.begin_call(call.receiver, signal, named)
        try:
            in_advance = careful.needs_savepoint(call.receiver)
            with isolated(isolation, call, in_advance=in_advance), isolation.others, nothing_left():
                run(receiver.call, signal=signal, using=isolation.using, **named)
        # A receiver may raise anything, also what is meant to end a program. Only Ctrl-C may end this one.
        except BaseException as error:
            failed = error
            if isinstance(error, IsolationLost) or ends_program(error):
                raise
        finally:
            self.pulse.end_call(call.receiver, failed)
        isolation.store_failed()
        return failed


def _noted(heard: Heard, changes: Sequence[int], store_failure: StoreFailure) -> StoreFailure:
    """Return a function that stores a failure and marks the recorded call as failed."""

    def store(receiver: str, error: BaseException) -> None:
        heard.fail(receiver, changes)
        store_failure(receiver, error)

    return store
