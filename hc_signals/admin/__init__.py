"""The pages in Django's admin: change log, deliveries, consumers, capture triggers, trigger log."""

from hc_signals.admin.capture import ConnectedTableAdmin
from hc_signals.admin.changes import ChangeAdmin
from hc_signals.admin.deliveries import DeliveryAdmin
from hc_signals.admin.picklists import MultiPicklistListFilter
from hc_signals.admin.positions import PositionAdmin
from hc_signals.admin.trigger_log import TriggerLogAdmin, TriggerLogArchiveAdmin

__all__ = (
    "ChangeAdmin",
    "ConnectedTableAdmin",
    "DeliveryAdmin",
    "MultiPicklistListFilter",
    "PositionAdmin",
    "TriggerLogAdmin",
    "TriggerLogArchiveAdmin",
)
