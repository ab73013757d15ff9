"""django-dramatiq with Redis."""

import sys
from typing import Any

from tests.ecosystem import needs
from tests.ecosystem.queues import check_queue
from tests.ecosystem.site import PORT

PACKAGES = ("django-dramatiq", "dramatiq")
NEEDS = needs.redis
APPS = ["django_dramatiq"]
SETTINGS: dict[str, Any] = {
    "DRAMATIQ_BROKER": {
        "BROKER": "dramatiq.brokers.redis.RedisBroker",
        "OPTIONS": {"url": f"redis://127.0.0.1:{PORT}/0"},
        "MIDDLEWARE": ["django_dramatiq.middleware.DbConnectionsMiddleware"],
    }
}


def models() -> None:
    from tests.ecosystem import queues

    queues.declare_tables()


def check(site: Any) -> None:
    from tests.ecosystem.dramatiq_app import ran

    command = (sys.executable, "-m", "dramatiq", "tests.ecosystem.dramatiq_app", "--processes", "1", "--threads", "1")
    with site.redis():
        check_queue(site, ran, lambda: site.process(*command))
