"""django-q2 with its ORM broker: a receiver enqueues a function by its path."""

from typing import Any

from tests.ecosystem.page import run_block
from tests.ecosystem.queues import check_queue, declare_tables

PACKAGES = ("django-q2",)
APPS = ["django_q"]
SETTINGS: dict[str, Any] = {"Q_CLUSTER": {"name": "shop", "orm": "default", "workers": 1, "poll": 0.2, "timeout": 60}}


def models() -> None:
    run_block("from django_q.tasks import async_task", Account=declare_tables())


def check(site: Any) -> None:
    from django_q.models import OrmQ

    check_queue(site, None, lambda: site.manage("qcluster"), OrmQ.objects.count)
