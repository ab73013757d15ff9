"""One channel with one trigger for all operations: two channels would be recovered one after the other."""

from dataclasses import dataclass

import pgpubsub
import pgtrigger
from django.db import connection
from pgpubsub.triggers import LockableNotify

from tests.chaos.peers.pubsub.models import Account
from tests.chaos.peers.system import KEEP


@dataclass
class AccountChannel(pgpubsub.TriggerChannel):
    model = Account
    lock_notifications = True


@pgpubsub.trigger_listener(
    AccountChannel,
    trigger=LockableNotify(
        name=AccountChannel.listen_safe_name(),
        when=pgtrigger.After,
        operation=pgtrigger.Insert | pgtrigger.Update | pgtrigger.Delete,
    ),
)
def keep(old: Account | None, new: Account | None) -> None:
    """Append one change, in the transaction that removes the notification."""
    is_same = old is not None and new is not None and old.pk == new.pk
    with connection.cursor() as cursor:
        if old is not None and not is_same:
            cursor.execute(KEEP, [old.sfid, "DELETE", old.numberofemployees])
        if new is not None:
            cursor.execute(KEEP, [new.sfid, "UPDATE" if is_same else "CREATE", new.numberofemployees])
