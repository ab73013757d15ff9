"""`make interop`: delivers changes of a model of the released django-heroku-connect.

It runs in its own environment, because django-heroku-connect needs psycopg2.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hc_signals.testing import HerokuConnect, embedded


def main() -> int:
    """Start a server and Django, and deliver; return the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        server = embedded.start(directory)
        sys.path.insert(0, str(Path(__file__).parent))
        os.environ |= {"DATABASE_URL": server.url, "DJANGO_SETTINGS_MODULE": "theirs.settings"}
        import django

        django.setup()
        try:
            return deliver_changes()
        finally:
            from django.db import connections

            connections.close_all()
            server.stop()


def deliver_changes() -> int:
    """Create, update and delete a record of their model, deliver, compare the signals; return the exit code."""
    from django.core.management import call_command
    from django.db.models import Model
    from theirs.models import Lead

    from hc_signals.conf import Conf
    from hc_signals.signals import record_changed
    from hc_signals.worker.loop import Worker

    assert Lead.__mro__[1].__module__.startswith("heroku_connect."), "not their model"
    got: list[tuple[str, str, Model]] = []

    def on_change(event: Any, instance: Any, **kwargs: Any) -> None:
        got.append((event.change_type, instance.company, type(instance)))

    record_changed.connect(on_change, sender=Lead)
    heroku = HerokuConnect()
    call_command("migrate", verbosity=0)
    heroku.create_tables()
    call_command("hc_triggers", "install")
    (sfid,) = heroku.insert(Lead, company="one")
    heroku.update(Lead, sfid, company="two")
    heroku.delete(Lead, sfid)
    Worker("default", Conf()).deliver_once()
    print("interop:", [(kind, company) for kind, company, _ in got])
    return 0 if got == [("CREATE", "one", Lead), ("UPDATE", "two", Lead), ("DELETE", "two", Lead)] else 1


if __name__ == "__main__":
    sys.exit(main())
