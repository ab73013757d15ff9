"""Stores the failures of a replay, which runs outside the worker's claim of a shard."""

from typing import Any

from django.db import transaction

from hc_signals.delivery.failures import FailureStore
from hc_signals.log.change import Change
from hc_signals.log.claims import lock_all
from hc_signals.log.position import LogShard
from hc_signals.log.positions import read_standing


class ReplayFailureStore(FailureStore):
    """A store that claims the shards when it stores the first delivery. A replay without failures claims nothing.

    Without the claim, deliveries of a record could be lost or reordered while a page is replayed:

    * the worker finishes the delivery behind which the replay parks another one, which would then wait for ever;
    * the worker stores a failure of the same record, so two deliveries are retried and neither waits.

    So the store reads again, under the claim, whether the record waits for an earlier delivery.
    """

    has_claimed = False

    def _insert(self, change: Change, **values: Any) -> None:
        if values["state"] == "dead":
            return super()._insert(change, **values)
        with transaction.atomic(using=self.using, savepoint=False):
            self._claim()
            is_first = (values["receiver"], change.table_name, change.record) not in self.blocked([change])
            if is_first and values["state"] == "parked":
                values |= {"state": "retry", "delay": 0}
            elif not is_first:
                values |= {"state": "parked", "delay": None}
            super()._insert(change, **values)

    def _claim(self) -> None:
        if self.has_claimed and self.conf.ATOMIC:  # the claim is held to the end of the page
            return
        layout = read_standing(LogShard(self.using, self.conf.CONSUMER)).layout or 1
        lock_all(LogShard.all_of(self.using, self.conf.CONSUMER, max(layout, self.conf.SHARDS)))
        self.has_claimed = True
