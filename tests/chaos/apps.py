"""The worker's side: a receiver that writes the ledger and fails now and then; wrong readers to test the test with."""

import hashlib
import os
from typing import Any

from django.apps import AppConfig


class ChaosConfig(AppConfig):
    name = "tests.chaos"
    label = "chaos"

    def ready(self) -> None:
        from example.crm import receivers
        from example.crm.models import Account

        from hc_signals.signals import record_changed

        record_changed.disconnect(receivers.keep_ledger)
        record_changed.connect(keep_ledger, sender=Account)
        mutation = os.environ.get("CHAOS_MUTATION")
        if mutation:
            from tests.chaos import mutations

            getattr(mutations, mutation)()


def keep_ledger(instance: Any, event: Any, using: str, **kwargs: Any) -> None:
    """Append what was delivered; one event in twenty fails half-way, once or twice."""
    from django.db import connections

    with connections[using].cursor() as cursor:
        cursor.execute(
            "INSERT INTO chaos_ledger (record, version, operation, event_id) VALUES (%s, %s, %s, %s)",
            [instance.sf_id, instance.number_of_employees, event.change_type, event.event_id],
        )
    digest = int(hashlib.sha256(event.event_id.encode()).hexdigest(), 16)
    if digest % 20 == 0 and event.attempt <= 1 + digest % 2:
        raise RuntimeError("chaos: this receiver fails now")
