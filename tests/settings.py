"""The example's settings and a test app, on a real server: DATABASE_URL, else one of PG_BIN or the embedded package."""

import os

if "DATABASE_URL" not in os.environ:
    from tests.server import start_for_this_run

    os.environ["DATABASE_URL"] = start_for_this_run().url

from example.settings import *  # noqa: F403
from example.settings import INSTALLED_APPS, MIDDLEWARE

INSTALLED_APPS += ["tests.sfdc", "django_tasks", "django_tasks_db", "pghistory"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
# Neither UTC nor the server's: what is shifted by a time zone shows.
TIME_ZONE = "America/Chicago"
MIDDLEWARE = [*MIDDLEWARE, "tests.browser.policy.StrictPolicy"]
