"""The example's settings and a test app, on a real server: DATABASE_URL, one of PG_BIN, else an embedded one."""

import atexit
import os
import tempfile

if "DATABASE_URL" not in os.environ and "PG_BIN" in os.environ:
    from tests.server import Server, installation

    _own = Server(installation(), "max_prepared_transactions=5")
    atexit.register(_own.stop)
    os.environ["DATABASE_URL"] = _own.url
elif "DATABASE_URL" not in os.environ:
    import psycopg

    from hc_signals.testing import embedded

    _directory = tempfile.TemporaryDirectory(prefix="hc_signals_")
    _server = embedded.start(_directory.name)
    with psycopg.connect(_server.url, autocommit=True) as _connection:
        _connection.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
    _server.crash()  # two-phase commit is off by default, and only a restart switches it on
    atexit.register(_directory.cleanup)
    atexit.register(_server.stop)
    os.environ["DATABASE_URL"] = _server.url

from example.settings import *  # noqa: F403
from example.settings import INSTALLED_APPS

INSTALLED_APPS += ["tests.sfdc", "django_tasks", "django_tasks_db"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
# Neither UTC nor the server's: what is shifted by a time zone shows.
TIME_ZONE = "America/Chicago"
