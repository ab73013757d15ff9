"""Huey with its Django app and SQLite."""

import os
import tempfile
from typing import Any

from tests.ecosystem.queues import check_queue

PACKAGES = ("huey",)
APPS = ["huey.contrib.djhuey"]
FILE = os.environ.setdefault("ECOSYSTEM_HUEY", os.path.join(tempfile.mkdtemp(), "huey.db"))
SETTINGS: dict[str, Any] = {
    "HUEY": {"huey_class": "huey.SqliteHuey", "filename": FILE, "immediate": False, "consumer": {"workers": 1}}
}


def models() -> None:
    from huey.contrib.djhuey import db_task

    from tests.ecosystem import queues

    queues.declare_tables()
    queues.ran = db_task()(queues.ran)


def check(site: Any) -> None:
    from tests.ecosystem import queues

    check_queue(site, queues.ran, lambda: site.manage("run_huey"))
