"""Procrastinate: a queue in the same database."""

from typing import Any

from tests.ecosystem.queues import check_queue

PACKAGES = ("procrastinate",)
APPS = ["procrastinate.contrib.django"]


def models() -> None:
    from procrastinate.contrib.django import app

    from tests.ecosystem import queues

    queues.declare_tables()
    queues.ran = app.task(queues.ran)


def check(site: Any) -> None:
    from procrastinate.contrib.django.models import ProcrastinateJob

    from tests.ecosystem import queues

    worker = lambda: site.manage("procrastinate", "worker")  # noqa: E731
    check_queue(site, queues.ran, worker, ProcrastinateJob.objects.count)
