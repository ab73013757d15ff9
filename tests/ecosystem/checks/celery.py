"""Celery with Redis: its worker runs a task for each change."""

import sys
from functools import cache
from typing import Any

from tests.ecosystem import needs
from tests.ecosystem.queues import check_queue
from tests.ecosystem.site import PORT

PACKAGES = ("celery", "redis")
NEEDS = needs.redis


def models() -> None:
    from tests.ecosystem.queues import declare_tables

    declare_tables()


@cache
def app() -> Any:
    """Return the app of Celery with the task."""
    from celery import Celery

    from tests.ecosystem.queues import ran

    broker = f"redis://127.0.0.1:{PORT}/0"
    made = Celery("shop", broker=broker, broker_connection_retry_on_startup=True)
    made.task(ran, name="ran")
    return made


def check(site: Any) -> None:
    command = (sys.executable, "-m", "celery", "-A", "tests.ecosystem.celery_app", "worker", "--pool", "solo")
    with site.redis():
        check_queue(site, app().tasks["ran"], lambda: site.process(*command))
