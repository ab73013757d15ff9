"""`make demo`: Salesforce changes reach Django receivers, live, on an embedded PostgreSQL.

Starts the server, migrates the example, installs capture, runs the real `manage.py hc_listen` as its own process, plays
Heroku Connect for a few seconds, and counts. Exit code 1 if anything was lost or delivered twice.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from hc_signals.testing import HerokuConnect, embedded  # noqa: E402

SEED = 1
SECONDS = 8
BATCH = 40
STEPS_PER_SECOND = 8
DRAIN_TIMEOUT = 30


def manage(*arguments: str) -> None:
    """Run one management command and stop the demo if it fails."""
    print(f"$ manage.py {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, str(HERE / "manage.py"), *arguments], check=True)


def play(heroku: HerokuConnect) -> None:
    """Play Heroku Connect for SECONDS, and print each step; the app adds its own half to compound records."""
    end = time.monotonic() + SECONDS
    for step in heroku.play(poll_size=BATCH):
        left = max(0.0, end - time.monotonic())
        print(
            f"Salesforce: {step.action} of {step.records} {step.model.__name__} record(s)"
            f"  [{heroku.changes} changes so far, {left:.0f} s left]",
            flush=True,
        )
        extend_compound_records()
        if not left:
            return
        time.sleep(1 / STEPS_PER_SECOND)


def extend_compound_records() -> None:
    """Create the Django half of one record of My_Object__c, as the app of the documentation does."""
    from example.crm.models import CompoundModel, SFObjectModel

    bare = SFObjectModel.objects.filter(compoundmodel=None, external_id__isnull=False).first()
    if bare is not None:
        CompoundModel(hc_model=bare, more_data="Django's own half").save_base(raw=True)


def delivered() -> int:
    """Return the number of changes in the receivers' ledger, which refuses the same change twice."""
    from example.crm.models import Seen

    return Seen.objects.count()


def wait_for(count: int) -> int:
    """Wait until the receivers have got ``count`` changes; return how many they got."""
    deadline = time.monotonic() + DRAIN_TIMEOUT
    while (seen := delivered()) < count and time.monotonic() < deadline:
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
    manage("hc_simulate", "--create-only")
    manage("hc_triggers", "install")
    listener = subprocess.Popen([sys.executable, str(HERE / "manage.py"), "hc_listen"])
    heroku = HerokuConnect(seed=SEED)
    try:
        play(heroku)
        seen = wait_for(heroku.changes)
    finally:
        listener.send_signal(signal.SIGTERM)
        listener.wait(timeout=10)
    seen = delivered()
    lost = heroku.changes - seen
    print(f"demo: {heroku.changes} changes, {seen} delivered, {lost} lost", flush=True)
    return 1 if lost or listener.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
