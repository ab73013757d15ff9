"""``records_changed``: one signal per model and page."""

from collections import defaultdict

from hc_signals.delivery.listeners import Model
from hc_signals.delivery.sending import SignalSender
from hc_signals.events import ChangeEvent
from hc_signals.log.change import Change

SIGNAL = "records_changed"


class Bulk:
    """The events of one page for receivers of ``records_changed``.

    Args:
        sender: sends the signals of the page.
        any_note: some change of the page has a note, so it may be for named receivers.
    """

    def __init__(self, sender: SignalSender, *, any_note: bool) -> None:
        self._sender, self._any_note = sender, any_note
        self._pairs: dict[tuple[Model, bool], list[tuple[Change, ChangeEvent]]] = defaultdict(list)

    def add(self, model: Model, exclusive: bool, change: Change, event: ChangeEvent) -> None:
        """Add an event, to be sent with the others of its model."""
        self._pairs[model, exclusive].append((change, event))

    def send(self) -> None:
        """Send all events that were added, once per model and receiver."""
        for (model, exclusive), pairs in self._pairs.items():
            wanted: dict[int, set[str]] = {}
            for change, _ in pairs if self._any_note else ():
                wanted[change.id] = {each.name for each in self._sender.receivers(SIGNAL, model, change, exclusive)}
            for receiver in self._sender.listeners.receivers(SIGNAL, model, exclusive):
                mine = [pair for pair in pairs if receiver.name in wanted[pair[0].id]] if wanted else pairs
                self._sender.send_bulk(receiver, model, mine)
        self._pairs.clear()
