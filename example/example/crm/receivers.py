"""Receivers of the example: they print every signal, and write a ledger in the same transaction."""

import os
from typing import Any

from django.dispatch import receiver

from example.crm.models import CompoundModel, Seen
from hc_signals.events import ChangeEvent
from hc_signals.signals import gap_detected, record_changed, records_changed

SHOWN = 5
"""Most changes of one model that are printed at a time."""


@receiver(record_changed)
def keep_ledger(sender: type, event: ChangeEvent, using: str, **kwargs: Any) -> None:
    """Write one row per change; the demo and the tests count the rows."""
    Seen.objects.using(using).create(
        event_id=event.event_id,
        sequence_number=event.sequence_number,
        entity_name=event.entity_name,
        change_type=event.change_type,
        record_key=event.record_key,
    )


@receiver(records_changed)
def print_changes(sender: type, events: list[ChangeEvent], **kwargs: Any) -> None:
    """Print the changes of one model that were read together, if CRM_PRINT is set: the first ones of a long list."""
    if not os.environ.get("CRM_PRINT"):
        return
    for event in events[:SHOWN]:
        changes = ", ".join(
            f"{name}: {event.previous.get(name)!s:.30} → {getattr(event.instance, name)!s:.30}"
            for name in event.changed_fields
        )
        print(f"  {sender.__name__:<14} {event.change_type:<7} {event.record_id or '-':<18} {changes}", flush=True)
    if len(events) > SHOWN:
        print(f"  {sender.__name__:<14} and {len(events) - SHOWN} more", flush=True)


@receiver(record_changed, sender=CompoundModel)
def print_compound_change(instance: CompoundModel, event: ChangeEvent, **kwargs: Any) -> None:
    """Print changes of the compound model's Salesforce half; they are sent if its Django row exists."""
    if os.environ.get("CRM_PRINT"):
        print(f"  CompoundModel  {event.change_type:<7} {instance.data!s:.30} + {instance.more_data}", flush=True)


@receiver(gap_detected)
def print_gap(sender: type, event: ChangeEvent, **kwargs: Any) -> None:
    """Print that changes may have been missed."""
    print(f"  {sender.__name__:<14} GAP     {event.cause}", flush=True)
