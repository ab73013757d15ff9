"""The example's settings and a test app, on a real server: DATABASE_URL, else one of PG_BIN or the embedded package."""

import os

if "DATABASE_URL" not in os.environ:
    from tests.server import start_for_this_run

    os.environ["DATABASE_URL"] = start_for_this_run().url

from example.settings import *  # noqa: F403
from example.settings import DATABASES, INSTALLED_APPS, MIDDLEWARE

# Fixtures read HOST, also where the URL has the directory of a socket in ?host=.
_options = DATABASES["default"].get("OPTIONS", {})
DATABASES["default"] |= {name: _options.pop(name.lower()) for name in ("HOST", "PORT") if name.lower() in _options}

INSTALLED_APPS += ["tests.sfdc", "django_tasks", "django_tasks_db", "pghistory"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
# Neither UTC nor the server's: what is shifted by a time zone shows.
TIME_ZONE = "America/Chicago"
MIDDLEWARE = [*MIDDLEWARE, "tests.browser.policy.StrictPolicy"]
