"""The consumers of the log in the admin: what each shard has come to and what it has not been given yet."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.http import urlencode

from hc_signals.admin.read_only import ReadOnlyAdmin, database
from hc_signals.admin.times import age, moment
from hc_signals.conf import get_conf
from hc_signals.log.backlog import backlog
from hc_signals.log.consumers import Consumer, consumers
from hc_signals.log.positions import shards_of
from hc_signals.log.restoring import WORDS, moved
from hc_signals.models import Delivery, Position

COUNT_LIMIT = 10_000
"""Undelivered changes are counted up to this, per consumer and per shard."""


@admin.register(Position)
class PositionAdmin(ReadOnlyAdmin):
    """One page of all consumers in place of the list of positions, of which only the newest counts."""

    def list_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show every consumer with its shards."""
        using = database()
        if cause := moved(using):
            return self.page(request, "consumers", moved=WORDS[cause])
        found = [self._described(using, each) for each in consumers(using, get_conf().RETENTION_HOURS, COUNT_LIMIT)]
        return self.page(request, "consumers", consumers=found)

    def _described(self, using: str, consumer: Consumer) -> dict[str, Any]:
        url = reverse("admin:hc_signals_delivery_changelist", current_app=self.admin_site.name)
        return {
            "consumer": consumer,
            "age": age(consumer.backlog.since),
            "moved": age(consumer.moved_at),
            "shards": [self._shard(log) for log in shards_of(using, consumer.name)],
            "deliveries": [
                {"state": Delivery.State(state).label, "count": count, "url": f"{url}?{_query(consumer.name, state)}"}
                for state, count in sorted(consumer.deliveries.items())
            ],
        }

    def _shard(self, log: Any) -> dict[str, Any]:
        waiting = backlog([log], COUNT_LIMIT)
        newest = self.model._base_manager.using(log.using).filter(consumer=log.consumer, shard=log.shard).last()
        return {
            "number": log.shard,
            "moved_at": moment(newest and newest.created_at),
            "backlog": waiting,
            "age": age(waiting.since),
        }


def _query(consumer: str, state: str) -> str:
    return urlencode({"consumer": consumer, "state__exact": state})
