"""``records_changed``: one signal per model and page."""

from collections.abc import Mapping

from hc_signals.delivery.listeners import Model
from hc_signals.delivery.sending import SignalSender
from hc_signals.events import ChangeEvent
from hc_signals.log.change import Change

SIGNAL = "records_changed"

Events = dict[tuple[Model, bool], list[tuple[Change, ChangeEvent]]]
"""Changes with their events, by the model that they are sent for and ``exclusive`` (see ``Listeners.receivers``)."""


def send_bulk(sender: SignalSender, events: Events, *, any_note: bool) -> None:
    """Send ``records_changed`` for these events, once per model and receiver.

    Args:
        sender: sends the signals of the page.
        events: the events of the page.
        any_note: some change of the page has a note, so it may be for named receivers.
    """
    for (model, exclusive), pairs in events.items():
        wanted: Mapping[int, set[str]] = {
            change.id: {each.name for each in sender.receivers(SIGNAL, model, change, exclusive)}
            for change, _ in (pairs if any_note else ())
        }
        for receiver in sender.listeners.receivers(SIGNAL, model, exclusive):
            mine = [pair for pair in pairs if receiver.name in wanted[pair[0].id]] if wanted else pairs
            sender.send_bulk(receiver, model, mine)
