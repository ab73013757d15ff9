"""The consumers of the log in the admin: the backlog, the position and the failed deliveries of each."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.http import urlencode

from hc_signals.admin.base import OnePageAdmin, database
from hc_signals.conf import get_conf
from hc_signals.log.backlog import Backlog
from hc_signals.log.restoring import WORDS, moved
from hc_signals.models import Delivery, Position
from hc_signals.observability.survey import Consumer, Survey
from hc_signals.postgres.moments import age, shown

COUNT_LIMIT = 10_000
"""Most undelivered changes that are counted in each shard."""


@admin.register(Position)
class PositionAdmin(OnePageAdmin):
    """One page of all consumers instead of the list of positions: of these, the newest of each shard counts."""

    def list_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show every consumer with its shards."""
        using = database()
        if cause := moved(using):
            return self.page(request, "consumers", moved=WORDS[cause])
        survey = Survey(using, get_conf(), COUNT_LIMIT, each_shard=True)
        return self.page(request, "consumers", consumers=[self._described(each) for each in survey.consumers])

    def _described(self, consumer: Consumer) -> dict[str, Any]:
        name, url = consumer.name, reverse("admin:hc_signals_delivery_changelist", current_app=self.admin_site.name)
        return {
            "consumer": consumer,
            "age": _age(consumer.backlog),
            "moved": age(consumer.moved_at) if consumer.moved_at else "-",
            "shards": [_shard(consumer, *each) for each in enumerate(consumer.by_shard)],
            "deliveries": [
                (Delivery.State(state).label, count, f"{url}?{urlencode({'consumer': name, 'state__exact': state})}")
                for state, count in sorted(consumer.deliveries.items())
            ],
        }


def _shard(consumer: Consumer, number: int, backlog: Backlog) -> tuple[int, str, Backlog, str]:
    at = consumer.stored_at.get(number)
    return number, shown(at, zone=False) if at else "-", backlog, _age(backlog)


def _age(backlog: Backlog) -> str:
    return age(backlog.since) if backlog.since else "-"
