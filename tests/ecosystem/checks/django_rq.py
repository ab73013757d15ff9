"""django-rq with Redis."""

from typing import Any

from tests.ecosystem import needs
from tests.ecosystem.queues import check_queue
from tests.ecosystem.site import PORT

PACKAGES = ("django-rq", "rq")
NEEDS = needs.redis
APPS = ["django_rq"]
SETTINGS: dict[str, Any] = {
    "RQ_QUEUES": {"default": {"HOST": "127.0.0.1", "PORT": PORT, "DB": 0}},
    "RQ": {"COMMIT_MODE": "auto"},
}


def models() -> None:
    from django_rq import job

    from tests.ecosystem import queues

    queues.declare_tables()
    queues.ran = job("default")(queues.ran)


def check(site: Any) -> None:
    from tests.ecosystem import queues

    with site.redis():
        check_queue(site, queues.ran, lambda: site.manage("rqworker", "default"))
