"""A receiver that writes the ledger."""

from typing import Any

from django.apps import AppConfig

from tests.chaos.peers.system import KEEP


class OursConfig(AppConfig):
    name = "tests.chaos.peers.ours"
    label = "ours"

    def ready(self) -> None:
        from example.crm import receivers
        from example.crm.models import Account

        from hc_signals.signals import record_changed

        record_changed.disconnect(receivers.keep_ledger)
        record_changed.connect(keep, sender=Account)


def keep(event: Any, using: str, **kwargs: Any) -> None:
    """Append one change, in the transaction of its delivery."""
    from django.db import connections

    with connections[using].cursor() as cursor:
        cursor.execute(KEEP, [event.record_id, event.change_type, event.instance.number_of_employees])
