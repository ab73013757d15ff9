"""django-q2 with its ORM broker: a receiver enqueues a function by its path."""

from typing import Any

from tests.ecosystem.queues import check_queue, declare_tables

PACKAGES = ("django-q2",)
APPS = ["django_q"]
SETTINGS: dict[str, Any] = {"Q_CLUSTER": {"name": "shop", "orm": "default", "workers": 1, "poll": 0.2, "timeout": 60}}


def models() -> None:
    from hc_signals.receivers import on_change

    @on_change(declare_tables())
    def enqueue(event: Any, **kwargs: Any) -> None:
        from django_q.tasks import async_task

        if not event.dry_run:
            record = ("shop.Lead", event.record_id, event.change_type, [], event.event_id)
            async_task("tests.ecosystem.queues.ran", *record)


def check(site: Any) -> None:
    from django_q.models import OrmQ

    check_queue(site, None, lambda: site.manage("qcluster"), OrmQ.objects.count)
