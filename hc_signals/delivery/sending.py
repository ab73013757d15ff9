"""Sends the signals of one page: to the receivers that may be called now. For the others it parks the change."""

from collections.abc import Sequence
from typing import Any

from hc_signals.delivery.dispatch import Dispatcher
from hc_signals.delivery.event import arguments
from hc_signals.delivery.failures import FailureStore, Key
from hc_signals.delivery.identity import Receiver, Receivers, resolve
from hc_signals.delivery.listeners import Listeners, Model
from hc_signals.delivery.project_code import ends_program
from hc_signals.delivery.routing import SIGNALS
from hc_signals.events import ChangeEvent
from hc_signals.exceptions import ProcessEndedError, RedeliveryError
from hc_signals.log.change import Change


class SignalSender:
    """Sends signals for the changes of one page; parks changes and stores failures."""

    def __init__(self, store: FailureStore, listeners: Listeners, dispatcher: Dispatcher) -> None:
        self.store, self.listeners, self.dispatcher = store, listeners, dispatcher
        self._blocked: set[Key] = set()

    def block(self, changes: Sequence[Change]) -> None:
        """Park those of these changes from now on whose records wait for an earlier delivery."""
        self._blocked = self.store.blocked(changes) if changes else set()

    def send(self, signal: str, receivers: Receivers, sender: Model, change: Change, event: ChangeEvent) -> None:
        """Send one signal for one change, to those of its :meth:`receivers` that may be called now."""
        isolation = self.dispatcher.isolation
        if isolation.failed or isolation.session.unchecked is not None:
            self._check_last_call_for(receivers, change)
        if self._blocked:
            receivers = [each for each in receivers if not self.park(change, each, signal, sender)]
        if not receivers:
            return
        try:
            named = arguments(signal, event)
        except BaseException as error:  # of the project: a field's converter, a model's __init__, one of post_init
            if ends_program(error):
                raise
            for receiver in receivers:
                self.store_failure(change, receiver.name, signal, sender, error)
            return

        def store_failure(receiver: str, error: BaseException) -> None:
            self.store_failure(change, receiver, signal, sender, error)

        named["sender"] = sender
        record = change.table_name, change.record
        self.dispatcher.send(
            SIGNALS[signal],
            receivers,
            named,
            store_failure,
            change=change.id,
            record=record,
            is_replay=change.note is not None and change.replayed,
        )

    def send_bulk(self, receiver: Receiver, sender: Model, pairs: Sequence[tuple[Change, ChangeEvent]]) -> None:
        """Send ``records_changed`` to one receiver, for all of these changes that do not have to wait."""
        signal = "records_changed"
        self._check_last_call_for([receiver], None)
        if self._blocked:
            pairs = [pair for pair in pairs if not self.park(pair[0], receiver, signal, sender)]
        if not pairs:
            return

        def store_failure(name: str, error: BaseException) -> None:
            for change, _ in pairs:
                if not self.park(change, receiver, signal, sender):
                    self.store_failure(change, name, signal, sender, _of_one(error, pairs))

        named = {"sender": sender, "events": [event for _, event in pairs]}
        ids, is_replay = [change.id for change, _ in pairs], pairs[0][0].replayed
        self.dispatcher.send(
            SIGNALS[signal], [receiver], named, store_failure, change=ids[0], bulk=ids, is_replay=is_replay
        )

    def receivers(self, signal: str, sender: Model, change: Change, exclusive: bool) -> Receivers:
        """Return the receivers of a signal for this change: of a snapshot for named receivers, only these.

        For ``exclusive`` see :class:`~hc_signals.delivery.listeners.Listeners`.
        """
        receivers = self.listeners.receivers(signal, sender, exclusive)
        named = change.named_receivers if change.note else ()
        if not named:
            return receivers
        chosen: set[str] = set()
        for name in sorted(named):
            try:
                chosen.update(each.name for each in resolve(name, receivers))
            except RedeliveryError as error:
                self.store_failure(change, name, signal, sender, error)
        return [each for each in receivers if each.name in chosen]

    def park(self, change: Change, receiver: Receiver, signal: str, sender: Model) -> bool:
        """Park the change if an earlier one of its record waits for the receiver; return whether it does."""
        for name in receiver.own:
            if (name, change.table_name, change.record) in self._blocked:
                self.store.park(change, name, signal, sender._meta.label)
                return True
        return False

    def store_failure(self, change: Change, receiver: str, signal: str, sender: Model, error: BaseException) -> None:
        """Store a failed delivery; later changes of the record are parked behind it."""
        if self.store.add(change, receiver, signal, sender._meta.label, error):
            self._blocked.add((receiver, change.table_name, change.record))

    def _check_last_call_for(self, receivers: Receivers, change: Change | None) -> None:
        """Check whether the last call has failed, if a call for ``change`` (None: several) would then have to wait."""
        self.dispatcher.isolation.store_failed()  # one that a statement of our own has found
        unchecked = self.dispatcher.isolation.unchecked
        if unchecked is None or (change and unchecked.record not in (None, (change.table_name, change.record))):
            return
        if any(each.name == unchecked.receiver for each in receivers):
            self.dispatcher.isolation.check_last_call()


def _of_one(error: BaseException, pairs: Sequence[Any]) -> BaseException:
    """Return the error that is stored for one of several changes that were sent together.

    If the call has ended the process, the retries, one change each, find out which change it was.
    """
    return RedeliveryError(str(error)) if isinstance(error, ProcessEndedError) and len(pairs) > 1 else error
