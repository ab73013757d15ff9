"""The public signals. Each is sent with ``sender`` (the model), ``instance``, ``event`` and ``using``."""

from collections.abc import Callable
from typing import Any

from django.dispatch import Signal


class ChangeSignal(Signal):
    """A Django signal whose receivers the dispatcher calls one by one, each isolated from the others."""

    def receivers_of(self, sender: type) -> list[tuple[Callable[..., Any], bool]]:
        """Return ``(receiver, is_async)`` for all receivers that listen to ``sender``, in order of connection."""
        # Signal.send_robust would catch an exception but keep the receiver's half-done writes, so the dispatcher needs
        # the list itself; Django has no public call for it.
        sync, asynchronous = self._live_receivers(sender)
        return [(receiver, False) for receiver in sync] + [(receiver, True) for receiver in asynchronous]

    def receivers_of_only(self, sender: type) -> list[tuple[Callable[..., Any], bool]]:
        """Like :meth:`receivers_of`, without those connected to every sender."""
        general = {id(receiver) for receiver, _ in self.receivers_of(_Nobody)}
        return [pair for pair in self.receivers_of(sender) if id(pair[0]) not in general]


class _Nobody:
    """A sender that no one connects to: its receivers are those connected to all senders."""


record_created = ChangeSignal()
"""A record was created in Salesforce, or came back from its recycle bin."""
record_updated = ChangeSignal()
"""A mapped field of a record changed in Salesforce."""
record_deleted = ChangeSignal()
"""A record was deleted in Salesforce; ``instance`` is its last state."""
record_changed = ChangeSignal()
"""Any of the three above."""
records_changed = ChangeSignal()
"""Once per model and page, with ``events=[...]`` instead of ``instance`` and ``event``: for bulk work."""
gap_detected = ChangeSignal()
"""Changes may have been missed: read the table again. ``event.cause`` says why."""
