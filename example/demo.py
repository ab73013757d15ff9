"""`make demo`: Salesforce changes reach Django receivers, live, on an embedded PostgreSQL.

Starts the server, migrates the example, installs capture, runs the real `manage.py hc_listen` as its own process, plays
Heroku Connect for a few seconds, and counts. Exit code 1 if anything was lost or delivered twice.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from hc_signals.testing import embedded  # noqa: E402

SEED = 1
SECONDS = 8
DRAIN_TIMEOUT = 30


def manage(*arguments: str) -> None:
    """Run one management command and stop the demo if it fails."""
    print(f"$ manage.py {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, str(HERE / "manage.py"), *arguments], check=True)


def make_tables() -> None:
    """What Heroku Connect does when a mapping is created."""
    from django.db import connection

    from hc_signals.tables import connected_models

    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA salesforce")
    with connection.schema_editor() as editor:
        for model in connected_models():
            editor.create_model(model)


def as_heroku_connect(sql: str, params: list[object]) -> int:
    """Run one statement as Heroku Connect does; return the number of rows that it changed."""
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL xmlbinary = 'hex'")
        cursor.execute(sql, params)
        return cursor.rowcount


def play() -> int:
    """Insert, edit and delete for SECONDS; return how many changes were written."""
    chance = random.Random(SEED)
    written, number, end = 0, 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        number += 1
        key = [f"{number:018d}"]
        written += as_heroku_connect(
            "INSERT INTO salesforce.account (sfid, name, annualrevenue) VALUES (%s, 'Zoë & Co', 1000)", key
        )
        written += as_heroku_connect("INSERT INTO salesforce.contact (sfid, lastname) VALUES (%s, 'Lovelace')", key)
        written += as_heroku_connect("INSERT INTO salesforce.project__c (sfid, name) VALUES (%s, 'Apollo')", key)
        written += as_heroku_connect(
            "INSERT INTO salesforce.my_object__c (sfid, external_id__c, data__c) VALUES (%s, md5(%s), 'first')", key * 2
        )
        some = [f"{chance.randint(1, number):018d}"]
        revenue = [chance.randint(10**6, 10**9)]
        written += as_heroku_connect("UPDATE salesforce.account SET annualrevenue = %s WHERE sfid = %s", revenue + some)
        data = [f"edit {chance.randint(1, 10**9)}"]
        written += as_heroku_connect("UPDATE salesforce.my_object__c SET data__c = %s WHERE sfid = %s", data + some)
        if number % 7 == 0:
            written += as_heroku_connect("DELETE FROM salesforce.contact WHERE sfid = %s", some)
        time.sleep(0.05)
    return written


def wait_for(count: int) -> int:
    """Wait until the receivers have seen ``count`` changes; return how many they saw."""
    from example.crm.models import Seen

    deadline = time.monotonic() + DRAIN_TIMEOUT
    while (seen := Seen.objects.count()) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen


def main() -> int:
    """Run the demo; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="hc_signals_demo_") as directory:
        print("Starting an embedded PostgreSQL …", flush=True)
        server = embedded.start(directory)
        os.environ |= {"DATABASE_URL": server.url, "DJANGO_SETTINGS_MODULE": "example.settings", "CRM_PRINT": "1"}
        import django

        django.setup()
        try:
            return run()
        finally:
            from django.db import connections

            connections.close_all()
            server.stop()


def run() -> int:
    """Migrate, install, listen, play, count."""
    manage("migrate", "--verbosity", "0")
    make_tables()
    manage("hc_triggers", "install")
    listener = subprocess.Popen([sys.executable, str(HERE / "manage.py"), "hc_listen"])
    try:
        written = play()
        delivered = wait_for(written)
    finally:
        listener.send_signal(signal.SIGTERM)
        listener.wait(timeout=10)
    lost = written - delivered
    print(f"demo: {written} changes, {delivered} delivered, {lost} lost", flush=True)
    return 1 if lost or listener.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
